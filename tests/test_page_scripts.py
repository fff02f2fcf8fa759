"""The scripts that draw figures and write the findings and the card, run on a synthetic study's tables."""

import dataclasses
import json
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import synthetic
from synthetic import GGUF, Truth

from es2.files import write_csv

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"


class Inputs(SimpleNamespace):
    """Named files of a rule."""


def run_script(name: str, monkeypatch: pytest.MonkeyPatch, inputs: Inputs, outputs: Inputs, **params: object) -> None:
    """Run a workflow script with a stand-in for the object that Snakemake gives it."""
    scripting = ModuleType("es2.scripting")
    scripting.job = nullcontext  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "es2.scripting", scripting)
    given = SimpleNamespace(input=inputs, output=outputs, params=SimpleNamespace(**params))
    runpy.run_path(str(SCRIPTS / f"{name}.py"), init_globals={"snakemake": given})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a synthetic study on disk."""
    folder = tmp_path_factory.mktemp("results")
    truth = Truth()
    tables = dataclasses.asdict(synthetic.all_tables(truth))
    tables |= {"training": synthetic.training_table(truth), "cost": synthetic.cost_table()}
    tables["settings"] = pd.DataFrame([truth.who("es2") | {"attack": "", "key": "training.steps", "value": "45"}])
    for name, table in tables.items():
        write_csv(table, folder / f"{name}.csv")
    (folder / "layers.json").write_text('{"layers": [1, 3]}')
    prompts = synthetic.prompts_table(truth.study())
    for name, part in prompts.groupby("set"):
        part.to_parquet(folder / f"{name}.parquet")
    for i, run in enumerate(truth.runs):
        synthetic.write_embeddings(folder / f"{run}.safetensors", run, prompts, truth.factor[i])
    (folder / "manifest.json").write_text('{"files": {"model.safetensors": "abcd"}, "model": "smollm2_135m"}')
    (folder / "check.json").write_text(json.dumps({"greedy_answers_equal": 20}))
    return folder


def table_inputs(folder: Path) -> Inputs:
    names = ("dsr", "robustness", "paired", "separability", "ability", "training", "cost", "settings")
    paths = {name: str(folder / f"{name}.csv") for name in names}
    named = {"layers": folder / "layers.json", "check": folder / "check.json", "manifest": folder / "manifest.json"}
    return Inputs(**paths, **{name: str(path) for name, path in named.items()})


@pytest.mark.parametrize(
    "figure",
    ["separability", "projection", "training", "robustness", "dsr", "dose_response", "balance", "tradeoff", "cost"],
)
def test_a_figure_script_writes_both_files(
    figure: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, truth = table_inputs(results), Truth()
    inputs.prompts = [str(path) for path in sorted(results.glob("*.parquet"))]
    inputs.embeddings = [str(results / f"{run}.safetensors") for run in truth.runs]
    cfg = dataclasses.asdict(truth.study()) | {"runs": list(truth.runs), "layers": "auto"}
    outputs = Inputs(svg=str(tmp_path / "x.svg"), png=str(tmp_path / "x.png"))
    more: dict[str, object] = {"runs": list(truth.runs)}
    if figure == "dose_response":  # asks where each run was trained
        inputs.layers = [inputs.layers] * len(truth.runs)
        more["trained"] = [(run, 0, "auto") for run in truth.runs]
    if figure == "separability":  # asks where runs change states
        inputs.layers = [inputs.layers]
        more["changed"] = {"es2": "auto"}
    run_script(f"plot_{figure}", monkeypatch, inputs, outputs, cfg=cfg, **more)
    assert (tmp_path / "x.svg").read_text().lstrip().startswith("<?xml")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_the_findings_script_writes_pages_and_tables(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = table_inputs(results)
    inputs.layers = [inputs.layers]
    study = dataclasses.asdict(Truth().study()) | {"layers": [12, 18]}
    paths = {"rst": "findings.rst", "html": "findings.html", "findings": "f.csv", "main": "m.csv", "targets": "t.csv"}
    outputs = Inputs(**{name: str(tmp_path / path) for name, path in paths.items()})
    run_script("write_findings", monkeypatch, inputs, outputs, cfg={"studies": [study]})
    assert len(pd.read_csv(outputs.findings)) == 5
    assert "layers 12 and 18" in (tmp_path / "findings.rst").read_text()
    assert np.isclose(
        pd.read_csv(outputs.main).query("measure == 'kl_to_parent' and run == 'es2'")["value"], 0.021
    ).all()
    assert len(pd.read_csv(outputs.targets)) == 12


def test_the_card_script_writes_the_card(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = dataclasses.asdict(Truth().study()) | {
        "layers": [0], "own_layers": "auto", "release": "es2", "origin": {"format": "gguf", "source": "smollm2"},
        "sources": {"smollm2": GGUF},
    }  # fmt: skip
    outputs, inputs = Inputs(card=str(tmp_path / "README.md")), table_inputs(results)
    inputs.own_layers = inputs.layers
    run_script("write_card", monkeypatch, inputs, outputs, cfg=cfg, row=Truth().who("es2"))
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n")
    assert "from 0): 1, 3" in card
