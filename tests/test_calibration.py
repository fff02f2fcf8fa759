"""The judge's agreement with human labels, scikit-learn as the oracle."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from es2 import calibration
from es2.calibration import agreement, confusion, judged
from es2.errors import UserError
from es2.judges import local
from es2.judges.endpoint import Endpoint
from es2.judges.registry import Judge, one_by_one
from es2.judges.verdict import Verdict

SAID = {"no": Verdict.REFUSAL, "yes": Verdict.COMPLIANCE, "zzz": Verdict.DEGENERATE}
JUDGE = Judge("keyword", "9.9", one_by_one(lambda prompt, answer: SAID[answer]))


def tables(n=40, names=("one", "two"), noisy=0.2):
    random = np.random.default_rng(0)
    found = {}
    for name in names:
        label = random.choice(["1_full_compliance", "2_full_refusal", "3_partial_refusal"], size=n, p=[0.5, 0.4, 0.1])
        right = np.where(label == "1_full_compliance", "yes", "no")
        noise = random.random(n)
        said = np.where(noise < noisy, np.where(right == "yes", "no", "yes"), right)
        said = np.where(noise > 0.95, "zzz", said)
        prompts = [f"prompt {i}" for i in range(n)]
        found[name] = pd.DataFrame({"prompt": prompts, "completion": said, "final_label": label})
    return found


def test_agreement_is_scikit_learns():
    found = judged(tables(), JUDGE)
    table = agreement(found, JUDGE)
    assert table.groupby("mapping", sort=False)["source_model"].apply(list).tolist() == [["one", "two", "pooled"]] * 3
    assert set(table["version"]) == {"9.9"}
    for mapping, meaning in calibration.MAPPINGS.items():
        for name in ("one", "two", "pooled"):
            cell = found if name == "pooled" else found[found["source_model"] == name]
            if not meaning:
                cell = cell[cell["label"] != "partial"]
            label = cell["label"].replace("partial", meaning or "partial")
            row = table[(table["mapping"] == mapping) & (table["source_model"] == name)].iloc[0]
            assert row["n"] == len(cell)
            assert row["kappa"] == pytest.approx(cohen_kappa_score(label, cell["verdict"]))
            assert row["accuracy"] == pytest.approx(np.mean(label.to_numpy() == cell["verdict"].to_numpy()))
            assert row["kappa_low"] < row["kappa"] < row["kappa_high"]


def test_of_more_than_three_source_models_the_three_of_the_least_pooled_kappa_are_told():
    found = judged(tables(names=("a", "b", "c", "d")) | tables(names=("good",), noisy=0.0), JUDGE)
    table = agreement(found, JUDGE).set_index(["mapping", "source_model"])
    for mapping, meaning in calibration.MAPPINGS.items():
        cells = found.assign(label=found["label"].replace("partial", meaning)).query("label != ''")
        pooled = {
            " + ".join(some): cohen_kappa_score(part["label"], part["verdict"])
            for some in combinations(("a", "b", "c", "d", "good"), 3)
            for part in [cells[cells["source_model"].isin(some)]]
        }
        (hardest,) = [name for name in table.loc[mapping].index if "+" in name]
        assert hardest == min(pooled, key=pooled.__getitem__)
        assert "good" not in hardest
        assert table.loc[(mapping, hardest), "kappa"] == pytest.approx(pooled[hardest])


def test_the_interval_is_a_bootstrap_over_prompts():
    """A prompt's two completions are drawn together."""
    found = judged(tables(), JUDGE)
    cell = found.assign(label=found["label"].replace("partial", "refusal"))
    random = np.random.default_rng(1)
    groups = [part for _, part in cell.groupby("prompt")]
    values = []
    for _ in range(400):
        drawn = pd.concat([groups[place] for place in random.integers(len(groups), size=len(groups))])
        values.append(cohen_kappa_score(drawn["label"], drawn["verdict"]))
    row = agreement(found, JUDGE).set_index(["mapping", "source_model"]).loc[("partial is refusal", "pooled")]
    low, high = np.percentile(values, [2.5, 97.5])
    assert row["kappa_low"] == pytest.approx(low, abs=0.04)
    assert row["kappa_high"] == pytest.approx(high, abs=0.04)


def test_confusion_counts_every_completion():
    found = judged(tables(), JUDGE)
    table = confusion(found)
    assert table["n"].sum() == 80
    counted = {(row.source_model, row.label, row.verdict): row.n for row in table.itertuples()}
    for (name, label, verdict), n in counted.items():
        assert n == ((found.source_model == name) & (found.label == label) & (found.verdict == verdict)).sum()
    assert {"partial", "refusal", "compliance"} == set(table["label"])


def test_files_in_and_tables_out(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name, table in tables().items():
        table["completion"] = table["completion"].map(
            {"no": "I cannot help with that.", "yes": "Here it is.", "zzz": ""}
        )
        table.to_csv(tmp_path / "in" / f"xstest_v2_completions_{name}.csv", index=False)
    calibration.main([str(tmp_path / "in"), str(tmp_path / "out")])
    written = pd.read_csv(tmp_path / "out" / "agreement.csv")
    assert written["n"].tolist()[:3] == [40, 40, 80]
    assert (pd.read_csv(tmp_path / "out" / "confusion.csv")["n"].sum()) == 80
    assert "called degenerate, of 80 real answers: 0.0" in capsys.readouterr().out


def test_bad_files_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="make calibrate DATA"):
        calibration.main([str(tmp_path)])
    with pytest.raises(UserError, match="holds no file"):
        calibration.main([str(tmp_path), str(tmp_path)])
    with pytest.raises(UserError, match="PROMPTS=0 is no number of prompts"):
        calibration.main([str(tmp_path), str(tmp_path), "--prompts", "0"])
    with pytest.raises(UserError, match="invalid int value: 'all'"):
        calibration.main([str(tmp_path), str(tmp_path), "--prompts", "all"])
    with pytest.raises(UserError, match="its config files are missing"):
        calibration.main([str(tmp_path), str(tmp_path), "rubric"])
    file = tmp_path / "completions_one.csv"
    file.write_text("prompt\na\n")
    with pytest.raises(UserError, match="has no column completion"):
        calibration.main([str(tmp_path), str(tmp_path)])
    file.write_text("prompt,completion,final_label\na,no,4_other\n")
    with pytest.raises(UserError, match="has the label '4_other'"):
        calibration.main([str(tmp_path), str(tmp_path)])


def test_drawn_prompts_are_the_same_of_every_model():
    both = tables()
    both["two"] = both["two"][5:]  # the first five prompts were answered by one model alone
    some = calibration.drawn(both, 12)
    assert len(some["one"]) == 12
    assert set(some["one"]["prompt"]) == set(some["two"]["prompt"]) <= set(both["two"]["prompt"])
    again = calibration.drawn(both, 12)
    assert again["one"]["prompt"].tolist() == some["one"]["prompt"].tolist()
    with pytest.raises(UserError, match="PROMPTS=36 is more than the 35 prompts"):
        calibration.drawn(both, 36)


def test_verdicts_that_are_missing_are_in_no_agreement_and_in_the_confusion():
    found = judged(tables(), JUDGE)
    unread = found.assign(verdict=["missing"] * 10 + found["verdict"].tolist()[10:])
    pd.testing.assert_frame_equal(agreement(unread, JUDGE), agreement(found[10:], JUDGE))
    table = confusion(unread)
    assert table.loc[table["verdict"] == "missing", "n"].sum() == 10


def test_another_judge_of_the_config_is_set_against_the_labels(tmp_path, capsys, monkeypatch):
    tables()["one"].to_csv(tmp_path / "completions_one.csv", index=False)
    rubric = "{kind: rubric, level: answer, max_new_tokens: 9, batch_rows: 1, "
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "judges:\n"
        f"  far: {rubric}endpoint: {{url: 'http://127.0.0.1:9/v1', model: m}}}}\n"
        f"  near: {rubric}model: smollm2_135m}}\n"
    )
    default = str(Path(__file__).parents[1] / "config/config.yaml")

    def run(judge):
        calibration.main([str(tmp_path), str(tmp_path / "out"), judge, default, str(mine)])

    said = {"no": "VERDICT: no", "yes": "VERDICT: yes", "zzz": "Hm."}
    monkeypatch.setattr(Endpoint, "say_all", lambda self, prompts, _: [said[_answer(prompt)] for prompt in prompts])
    run("far")
    written = pd.read_csv(tmp_path / "out" / "agreement.csv")
    assert set(written["judge"]) == {"rubric"}
    missing = int(pd.read_csv(tmp_path / "out" / "confusion.csv").query("verdict == 'missing'")["n"].sum())
    assert 0 < missing == 40 - written["n"][0]
    assert f"could not be read, of 40 verdicts: {missing}" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the judge near asks the model smollm2_135m, which is not made yet"):
        run("near")
    manifest = tmp_path / "resources/models/smollm2_135m/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    asked = []

    def say_all(prompts, model, *_):
        asked.append(model)
        return [said[_answer(prompt)] for prompt in prompts]

    monkeypatch.setattr(local, "say_all", say_all)
    run("near")
    assert [(model["manifest"], model["dtype"], model["system_prompt"]) for model in asked] == [
        ("resources/models/smollm2_135m/manifest.json", "float32", "template")
    ]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "agreement.csv"), written)
    with pytest.raises(UserError, match="there is no judge 'fat'; did you mean far"):
        run("fat")
    monkeypatch.setattr(Endpoint, "say_all", lambda self, prompts, _: [""] * len(prompts))
    with pytest.raises(UserError, match="no verdict of this judge could be read"):
        run("far")


def test_a_judge_that_goes_by_odds_is_told_its_threshold(tmp_path, capsys, monkeypatch):
    frame = tables()["one"]
    for name in ("one", "two"):
        frame.to_csv(tmp_path / f"completions_{name}.csv", index=False)
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "judges: {near: {kind: rubric, level: answer, batch_rows: 1, model: smollm2_135m, threshold: 100}}\n"
    )
    manifest = tmp_path / "resources/models/smollm2_135m/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    odds = {"no": -9.0, "yes": -5.0, "zzz": -7.0}
    monkeypatch.setattr(local, "odds_all", lambda prompts, *_: [odds[_answer(prompt)] for prompt in prompts])
    monkeypatch.chdir(tmp_path)
    default = str(Path(__file__).parents[1] / "config/config.yaml")
    calibration.main([str(tmp_path), "out", "near", default, str(mine)])
    said = capsys.readouterr().out
    assert set(pd.read_csv("out/confusion.csv")["verdict"]) == {"refusal"}
    assert "(the config has 100)" in said
    best = float(said.partition("with all these labels: ")[2].split()[0])
    assert -9.0 < best < -5.0
    kept = pd.read_csv("out/agreement_held_out.csv")
    pooled = kept[(kept["source_model"] == "pooled") & (kept["mapping"] == "partial is refusal")].iloc[0]
    assert pooled["n"] == 80
    assert pooled["kappa"] > 0.3


def test_a_mapping_that_leaves_nothing_has_no_kappa():
    found = judged(tables(), JUDGE)
    partial = found[found["label"] == "partial"]
    assert len(partial)
    table = agreement(partial, JUDGE).set_index(["mapping", "source_model"])
    assert table.loc[("partial left out", "pooled"), "n"] == 0
    assert table.loc[("partial left out", "pooled"), ["kappa", "kappa_low"]].isna().all()
    assert table.loc[("partial is refusal", "pooled"), "n"] == len(partial)


def _answer(prompt):
    return prompt.partition("\nANSWER ")[2].splitlines()[1]
