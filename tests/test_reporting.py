"""What the figures read: tables with empty cells and booleans, and the trained layers."""

from pathlib import Path

import numpy as np
import synthetic
from drawing import NEVER
from synthetic import Truth

from es2.reporting import read_table, rows, trained_layers


def test_tables_are_read_with_empty_cells_and_booleans(tmp_path: Path) -> None:
    path = tmp_path / "robustness.csv"
    synthetic.robustness_table(NEVER).to_csv(path, index=False, float_format="%.6g")
    table = read_table(path)
    assert table["censored"].dtype == bool
    assert table["censored"].any()
    assert np.isinf(table["value"]).any()
    synthetic.dsr_table(Truth()).to_csv(path, index=False, float_format="%.6g")
    table = read_table(path)
    assert set(table.loc[table["run"] == "base", "parent"]) == {""}
    assert len(rows(table, Truth().study(), fitted_on="", attack="direct")) > 0


def test_trained_layers_come_from_the_config_or_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_text('{"layers": [3, 7], "rule": "d_prime"}')
    assert trained_layers({"layers": "auto"}, path) == [3, 7]
    assert trained_layers({}, path) == [3, 7]
    assert trained_layers({"layers": [12, 18]}, path) == [12, 18]
