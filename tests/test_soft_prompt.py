"""The soft prompt, published prompts, and a user's own attack file."""

import json
from pathlib import Path

import pytest
import torch
from scene import IS_HARMFUL, N_TOKENS, SOFT_PROMPT, TARGETS, TEXTS
from torch.nn.functional import cross_entropy

from es2.attacks import own, published, soft_prompt
from es2.attacks.directions import mean_difference
from es2.attacks.soft_prompt import SoftPrompt, train_soft_prompt, unused_tokens
from es2.errors import UserError
from es2.examples import Example
from es2.generation import generate


def loss_of(lm, vectors, prompts, target):
    """Mean cross-entropy of the target by plain transformers, the vectors given as inputs_embeds."""
    losses = []
    embed = lm.base.get_input_embeddings()
    for prompt in prompts:
        text = lm.chat_text(prompt)
        end = text.rfind(prompt) + len(prompt)
        before, after = (
            torch.tensor(lm.tokenizer(part, add_special_tokens=False).input_ids) for part in (text[:end], text[end:])
        )
        rows = [embed(before), vectors, embed(after), embed(torch.tensor(target[:-1]))]
        logits = lm.model(inputs_embeds=torch.cat(rows)[None], use_cache=False).logits[0, -len(target) :]
        losses.append(cross_entropy(logits, torch.tensor(target)))
    return torch.stack(losses).mean()


def test_the_gradient_is_that_of_plain_inputs(scene):
    lm = scene.lm
    ids = unused_tokens(lm, lm.chat_tokens(TEXTS), 3)
    vectors = torch.randn(3, lm.width, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    (expected,) = torch.autograd.grad(loss_of(lm, vectors, TEXTS[:4], [7, 8, 9, 10]), vectors)
    attack = SoftPrompt("", ids, vectors.detach())
    examples = [Example(str(row), tokens, [7, 8, 9, 10]) for row, tokens in enumerate(attack.tokens(lm, TEXTS[:4]))]
    found = soft_prompt._gradient(lm, attack, examples)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_training_lowers_the_loss_within_the_bound(scene):
    evaluation = scene.evaluation(targets=TARGETS)
    late, early = train_soft_prompt(evaluation, SOFT_PROMPT)
    assert (late.name, early.name) == ("3 vectors, 12 steps", "3 vectors, 4 steps")
    lm = scene.lm
    table = lm.base.get_input_embeddings().weight
    start = table[lm.tokenizer("!", add_special_tokens=False).input_ids[0]].expand(3, -1)
    harmful = [text for text, h in zip(TEXTS[:24], IS_HARMFUL, strict=False) if h]
    with torch.no_grad():
        losses = [
            loss_of(lm, vectors, harmful, [7, 8, 9, 10]).item() for vectors in (start, early.vectors, late.vectors)
        ]
    assert losses[0] > losses[1] > losses[2]
    assert (late.vectors.norm(dim=-1) <= 4.0 * table.norm(dim=-1).mean() * 1.0001).all()
    assert not any(parameter.requires_grad for parameter in lm.base.parameters())


def test_answers_are_those_of_plain_inputs(scene):
    lm = scene.lm
    ids = unused_tokens(lm, lm.chat_tokens(TEXTS), 3)
    attack = SoftPrompt("", ids, torch.randn(3, lm.width, generator=torch.Generator().manual_seed(2)))
    with attack.applied(lm):
        found = generate(lm, attack.tokens(lm, TEXTS[:5]), N_TOKENS)
        alone = [generate(lm, attack.tokens(lm, [text]), N_TOKENS)[0].text for text in TEXTS[:5]]
    assert [one.text for one in found] == alone
    embed = lm.base.get_input_embeddings()
    for text, answer in zip(TEXTS[:5], found, strict=True):
        whole = lm.chat_text(text)
        end = whole.rfind(text) + len(text)
        before, after = (
            torch.tensor(lm.tokenizer(part, add_special_tokens=False).input_ids) for part in (whole[:end], whole[end:])
        )
        rows = torch.cat([embed(before), attack.vectors, embed(after)])
        written = []
        while len(written) < N_TOKENS:
            inputs = torch.cat([rows, embed(torch.tensor(written, dtype=torch.long))])
            with torch.no_grad():
                token = lm.model(inputs_embeds=inputs[None], use_cache=False).logits[0, -1].argmax().item()
            if token in lm.end_tokens():
                break
            written.append(token)
        assert answer.tokens == written


def test_no_prompt_has_the_tokens_that_stand_for_the_vectors(scene):
    ids = unused_tokens(scene.lm, scene.lm.chat_tokens(TEXTS), 5)
    assert len(set(ids)) == 5
    assert not {token for tokens in scene.lm.chat_tokens(TEXTS) for token in tokens} & set(ids)


def test_evaluation_takes_the_snapshot_with_most_compliance(scene):
    def judge(prompt, answer):
        return ("compliance", "refusal")[sum(answer.encode()) % 2]

    evaluation = scene.evaluation(judge, targets=TARGETS)
    attacked = soft_prompt.evaluate(evaluation, SOFT_PROMPT, {})
    second = [row for row in attacked.search if row["stage"] == 2]
    best = max(second, key=lambda row: row["compliance"])
    assert [row["setting"] for row in second if row["chosen"]] == [best["setting"]]
    assert {row["setting"] for row in attacked.rows} == {best["setting"]}
    assert len(attacked.rows) == 7
    alone = soft_prompt.evaluate(scene.evaluation(judge, targets=TARGETS, benchmarks={}), SOFT_PROMPT, {})
    assert (alone.rows, alone.search) == ([], attacked.search)
    again = soft_prompt.evaluate(scene.evaluation(judge, targets=TARGETS), SOFT_PROMPT, {})
    assert [row["answer"] for row in again.rows] == [row["answer"] for row in attacked.rows]


def test_the_control_is_random_vectors_of_the_same_norms(scene):
    evaluation = scene.evaluation(targets=TARGETS)
    bundle = {"controls": {"random": 2, "shuffled": 0, "prompts": 2}}
    rows = soft_prompt.evaluate(evaluation, SOFT_PROMPT, bundle).rows
    assert len([row for row in rows if not row["control"]]) == 7
    chosen = next(one for one in train_soft_prompt(evaluation, SOFT_PROMPT) if one.name == rows[0]["setting"])
    for draw in (0, 1):
        mine = [row for row in rows if row["control"] == "random" and row["draw"] == draw]
        assert [row["prompt_id"] for row in mine] == ["p0", "p1", "p8", "p9"]
        random = torch.randn(3, scene.lm.width, generator=torch.Generator().manual_seed(evaluation.seed + draw))
        scale = chosen.vectors.norm(dim=-1, keepdim=True) / random.norm(dim=-1, keepdim=True)
        attack = SoftPrompt("", chosen.ids, random * scale)
        with attack.applied(scene.lm):
            texts = [TEXTS[int(row["prompt_id"][1:])] for row in mine]
            expected = generate(scene.lm, attack.tokens(scene.lm, texts), N_TOKENS)
        assert [row["answer"] for row in mine] == [one.text for one in expected]


def test_without_a_target_there_is_no_soft_prompt(scene):
    with pytest.raises(UserError, match="needs answers of the untrained model"):
        train_soft_prompt(scene.evaluation(), SOFT_PROMPT)


def test_only_the_beginning_of_a_target_is_aimed_at(scene):
    """Which tokens come after those aimed at makes no difference; these do."""
    other = {key: [7, 8, 11, 12, 13] for key in TARGETS}
    first = {**SOFT_PROMPT, "target_tokens": 2}
    for settings, alike in ((first, True), (SOFT_PROMPT, False)):
        late, changed = (train_soft_prompt(scene.evaluation(targets=some), settings)[0] for some in (TARGETS, other))
        assert torch.equal(late.vectors, changed.vectors) is alike


def test_more_vectors_than_free_tokens_are_a_user_error(scene):
    with pytest.raises(UserError, match=r"soft_prompt.vectors: 1000 vectors .* ask for fewer"):
        train_soft_prompt(scene.evaluation(targets=TARGETS), {**SOFT_PROMPT, "vectors": 1000})


def test_an_opening_is_aimed_at_where_the_model_refused(scene):
    refused = [f"p{i}" for i in range(24) if IS_HARMFUL[i]][1:]
    answered = {key: target for key, target in TARGETS.items() if key not in refused}
    evaluation = scene.evaluation(targets=answered)
    tokens = scene.lm.tokenizer("a letter", add_special_tokens=False).input_ids
    pairs = soft_prompt._targets(evaluation, "a letter")
    assert len(pairs) == len(TARGETS) > 1
    assert [target for _, target in pairs] == [[7, 8, 9, 10], *[tokens] * len(refused)]
    late, _ = train_soft_prompt(scene.evaluation(), {**SOFT_PROMPT, "opening": "a letter"})
    start = (
        scene.lm.base.get_input_embeddings()
        .weight[scene.lm.tokenizer("!", add_special_tokens=False).input_ids[0]]
        .expand(3, -1)
    )
    harmful = [text for text, h in zip(TEXTS[:24], IS_HARMFUL, strict=False) if h]
    with torch.no_grad():
        before, after = (loss_of(scene.lm, vectors, harmful, tokens).item() for vectors in (start, late.vectors))
    assert after < before


OWN = """
from contextlib import contextmanager

from es2.activations import edit_residual


class Shift:
    name = "shift by two"
    budget = {budget}

    def __init__(self, size):
        self.size = size

    @contextmanager
    def applied(self, lm):
        with edit_residual(lm, [1], lambda layer, states, rows, step: states + self.size):
            yield


def fit(evaluation, settings):
    assert len(evaluation.fit) == 24
    assert not evaluation.benchmarks
    return Shift(settings["size"])
"""


@pytest.mark.parametrize("budget", [None, 0.5])
def test_a_file_of_ones_own_is_an_attack(scene, tmp_path, budget):
    file = tmp_path / "shift.py"
    file.write_text(OWN.format(budget=budget))
    attacked = own.evaluate(scene.evaluation(files=[str(file)]), {"path": str(file), "settings": {"size": 2.0}}, {})
    assert {(row["setting"], row["budget"], row["realised"]) for row in attacked.rows} == {
        ("shift by two", None, budget)
    }
    shifted = own.load(str(file), "attacks.mine.path").Shift(2.0)
    texts = [*TEXTS[:4], *TEXTS[8:11]]
    with shifted.applied(scene.lm):
        expected = [one.text for one in generate(scene.lm, scene.lm.chat_tokens(texts), N_TOKENS)]
    assert [row["answer"] for row in attacked.rows] == expected


def test_the_example_of_an_attack_is_one(scene):
    file = str(Path(__file__).parents[1] / "config/examples/own_attack.py")
    settings = {"path": file, "settings": {"layer": 2, "length": 1.5}}
    evaluation = scene.evaluation(files=[file])
    attacked = own.evaluate(evaluation, settings, {})
    attack = own.load(file, "attacks.mine.path").fit(evaluation, settings["settings"])
    length = 1.5 * scene.embeddings[:24, 2].norm(dim=-1).mean()
    torch.testing.assert_close(attack.step, length * mean_difference(evaluation)[2])
    assert {row["setting"] for row in attacked.rows} == {"push of layer 2"}
    plain = [one.text for one in evaluation.answer(evaluation.prompts()["prompt"].tolist())]
    assert [row["answer"] for row in attacked.rows] != plain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", r"attacks\.\w+\.path: .* has no function fit"),
        ("import nothing_of_this_name\n", r"attacks\.\w+\.path: .* does not run .ModuleNotFoundError"),
        ("def fit(evaluation, settings):\n    return 3\n", r"attacks\.\w+\.path: .* has no applied"),
        (None, r"attacks\.\w+\.path: there is no Python file"),
    ],
)
def test_a_file_that_is_no_attack_is_a_user_error(scene, tmp_path, text, said):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=said):
        own.evaluate(scene.evaluation(files=[str(file)]), {"path": str(file), "settings": {}}, {})


def artefact(folder, rows):
    path = folder / "artefact.json"
    path.write_text(json.dumps({"parameters": {"model": "any"}, "jailbreaks": rows}))
    return str(path)


def test_published_prompts_stand_for_their_goals(scene, tmp_path):
    rows = [
        {"index": 0, "goal": "  make A trap ", "prompt": "Tell me how you make a trap", "jailbroken": True},
        {"index": 1, "goal": TEXTS[1], "prompt": None, "jailbroken": False},
        {"index": 2, "goal": TEXTS[9], "prompt": "A lock, please", "jailbroken": False},
        {"index": 3, "goal": "Something else", "prompt": "Do it", "jailbroken": True},
    ]
    attacked = published.evaluate(scene.evaluation(files=[artefact(tmp_path, rows)]), {"source": "jbb"}, {})
    assert [(row["prompt_id"], row["benchmark"], row["setting"]) for row in attacked.rows] == [
        ("p0", "one", "jbb"),
        ("p9", "two", "jbb"),
    ]
    texts = ["Tell me how you make a trap", "A lock, please"]
    expected = [one.text for one in generate(scene.lm, scene.lm.chat_tokens(texts), N_TOKENS)]
    assert [row["answer"] for row in attacked.rows] == expected
    assert {row["fitted_on"] for row in attacked.rows} == {""}


def test_a_file_that_is_no_artefact_is_a_user_error(scene, tmp_path):
    wrong = tmp_path / "wrong.json"
    for text in ("[1]", "not json", '{"jailbreaks": [{"goal": "a"}]}'):
        wrong.write_text(text)
        with pytest.raises(UserError, match="no JailbreakBench artefact"):
            published.evaluate(scene.evaluation(files=[str(wrong)]), {"source": "jbb"}, {})
    other = artefact(tmp_path, [{"goal": "Something else", "prompt": "Do it"}])
    with pytest.raises(UserError, match="none of its goals"):
        published.evaluate(scene.evaluation(files=[other]), {"source": "jbb"}, {})
