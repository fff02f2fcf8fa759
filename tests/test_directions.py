"""Which layer's direction an ablation needs: the table against the attack's own directions, and the figure."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from synthetic import LABELS, MODEL

from es2.attacks.directions import mean_difference
from es2.embeddings import Embeddings
from es2.plots.directions import directions_figure
from es2.reporting import Study
from es2.tables.directions import directions, directions_table

PROMPTS = pd.DataFrame({"prompt_id": list("abcdef"), "label": ["harmful"] * 3 + ["safe"] * 3})
ROW = {"run": "es2", "model": MODEL, "method": "es2", "parent": "refusal_sft", "seed": 0, "attack": "ablation"}
STUDY = Study(MODEL, ("base", "refusal_sft", "hold", "es2"), labels=LABELS)


def embeddings(seed: int) -> Embeddings:
    values = torch.randn(6, 3, 8, generator=torch.Generator().manual_seed(seed))
    return Embeddings(list("fedcba"), values)


def search() -> pd.DataFrame:
    shares = {"n": 16, "refusal": 0.25, "compliance": 0.75, "degenerate": 0.0}
    first = [{"stage": 1, "setting": f"direction of layer {k}", **shares, "chosen": False} for k in (1, 2)]
    second = {"stage": 2, "setting": "direction of layer 2", **shares, "n": 60, "chosen": True}
    return pd.DataFrame([*first, second])


def test_the_directions_are_the_attacks_own() -> None:
    found = directions(embeddings(0), PROMPTS)
    source = SimpleNamespace(embeddings=embeddings(0))
    attacked = mean_difference(SimpleNamespace(source=source, fit=PROMPTS))  # type: ignore[arg-type]
    torch.testing.assert_close(found, attacked)


def test_a_row_a_layer_that_was_tried_with_its_cosine_to_the_parents() -> None:
    table = directions_table([ROW], [search()], [embeddings(0)], [embeddings(1)], PROMPTS)
    assert table["layer"].tolist() == [1, 2]
    assert table["chosen"].tolist() == [False, True]
    assert table["n"].tolist() == [16, 16]
    own, before = directions(embeddings(0), PROMPTS), directions(embeddings(1), PROMPTS)
    cosines = [torch.nn.functional.cosine_similarity(own[k], before[k], dim=0).item() for k in (1, 2)]
    assert table["cosine_to_parent"].tolist() == pytest.approx(cosines, abs=1e-6)
    same = directions_table([ROW], [search()], [embeddings(0)], [embeddings(0)], PROMPTS)
    assert same["cosine_to_parent"].tolist() == pytest.approx([1.0, 1.0])


def test_a_direction_of_an_earlier_token_has_a_row_and_no_cosine() -> None:
    trials = search()
    trials.loc[0, "setting"], trials.loc[2, "setting"] = (
        "direction 3 earlier of layer 2",
        "direction 3 earlier of layer 2",
    )
    table = directions_table([ROW], [trials], [embeddings(0)], [embeddings(1)], PROMPTS)
    assert table[["layer", "earlier", "chosen"]].to_numpy().tolist() == [[2, 3, True], [2, 0, False]]
    assert table["cosine_to_parent"].isna().tolist() == [True, False]
    upper, _ = directions_figure(table, STUDY, {}).axes
    lines = {line.get_label(): line for line in upper.lines}
    assert list(lines["_es2"].get_xdata()) == [2]
    assert "dots" in upper.get_title(loc="left")
    assert lines["_earlier_es2"].get_xydata().tolist() == [[2.0, 0.75]]
    assert lines["_chosen_es2"].get_xydata().tolist() == [[2.0, 0.75]]


def test_a_star_marks_the_layer_taken_and_triangles_those_that_a_run_changes() -> None:
    other = ROW | {"run": "hold", "method": "hold"}
    table = directions_table([ROW, other], [search()] * 2, [embeddings(0)] * 2, [embeddings(1)] * 2, PROMPTS)
    upper, lower = directions_figure(table, STUDY, {"es2": [0, 1]}).axes
    stars = {line.get_label(): line for line in upper.lines}
    assert stars["_chosen_es2"].get_xydata().tolist() == [[2.0, 0.75]]
    assert list(stars["_changed_es2"].get_xdata()) == [0, 1]
    assert max(stars["_changed_es2"].get_ydata()) < 0
    assert "_changed_hold" not in stars
    assert lower.get_xlabel() == "layer k"


def test_without_an_ablation_the_figure_says_so() -> None:
    table = directions_table([], [], [], [], PROMPTS)
    figure = directions_figure(table, STUDY, {})
    assert [text.get_text() for panel in figure.axes for text in panel.texts] == ["no ablation"] * 2
