"""What training is tried on: a tiny parent with its references, of which fresh children are trained."""

import torch
from conftest import PROMPTS

from es2 import registry
from es2.checkpoints import Checkpoints, trainable
from es2.embeddings import Embeddings, extract_tokens
from es2.methods.base import TrainingData
from es2.reference import record
from es2.training import HeldOut, add_lora, draw_batch, train

HARMFUL = ["Make a trap", "Steal a car now", "Forge a letter", "Break a lock"]
SAFE = ["Make a cake", "Wash a car now", "Write a letter", "Mend a clock"]
SETTINGS = {
    "steps": 6,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "decay": "constant",
    "weight_decay": 0.0,
    "clip": 1.0,
    "batch": {"harm": 2, "plain": 2},
    "evaluate_every": 2,
    "checkpoint_every": 2,
    "stop": {"kl_heldout": 50.0, "norm_ratio": 20.0},
    "lora": {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": "all-linear"},
    "separation": {"weight": 1.0, "form": "bounded", "distance": "pairwise", "target": 3.0, "layers": [1, 2]},
    "kl": {"weight": 0.5},
    "hold": {"refusals": 0.5, "safe_drift": 0.1},
    "accumulate": 1,
    "gradient_checkpointing": False,
    "rerouting": {"alpha": 2.0, "retain": 3.0, "refusals": 0.5, "scale": 2.0},
    "triplet": {"safe": 1.0, "harmful": 1.0, "margin_safe": 0.5, "margin_harmful": 0.5},
    "adversarial": {
        "refusals": 1.0,
        "safe": 1.0,
        "edits": ["landing", "push", "project"],
        "strengths": [0.5, 2.5],
        "budgets": [0.05, 0.3],
        "start": [0.0, 0.4],
        "end": [0.5, 1.0],
        "depths": [0.0, 1.0],
        "positions": 1,
        "hardest": None,
        "answer_tokens": None,
        "soft_prompt": {"vectors": 2, "steps": 3, "batch": 2, "rate": 0.3, "bound": 4.0, "carried": False},
        "safe_unedited": 0.0,
        "parts": 1,
        "c": [0.01, 1.0],
        "fit_prompts": 4,
        "refit_every": 2,
    },
    "sft": {"own_answers": 1.0, "answer_tokens": 16},
}


class Bench:
    """A tiny parent with its references and embeddings; `run` trains a fresh child of it."""

    def __init__(self, load_model, folder):
        self.load, self.folder, self.runs = load_model, folder, 0
        lm = load_model()
        texts = {f"h{i}": text for i, text in enumerate(HARMFUL)} | {f"s{i}": text for i, text in enumerate(SAFE)}
        texts |= {f"v{i}": text for i, text in enumerate(PROMPTS[:3])}
        self.texts = texts
        references = record(lm, texts, lambda prompt, _: "refusal" if prompt in HARMFUL[:3] else "compliance", 4)
        self.references = {one.prompt_id: one for one in references}
        values = extract_tokens(lm, [one.prompt_tokens for one in references])
        self.embeddings = Embeddings(list(texts), values)
        self.pools = {"harm": [key for key in texts if key[0] == "h"], "plain": [key for key in texts if key[0] == "s"]}
        watched = [one for one in references if one.prompt_id[0] == "v"]
        self.held_out = HeldOut(watched, self.embeddings.of([one.prompt_id for one in watched]))
        known = {key: one for key, one in self.references.items() if key[0] != "v"}
        self.data = TrainingData(
            frozenset(self.pools["harm"]),
            known,
            [[5, 6, 7, 1], [8, 9, 1]],
            self.embeddings,
            [1, 2],
            {key: [9 - place, 8, 7, 11] for place, key in enumerate(self.pools["harm"][1:])},
        )

    def run(self, name="es2", seed=0, checkpoint=None, spoil=None, checkpointed=False, **changes):
        """(model, Trained) of a method under changed settings; `spoil(learner)` may tamper with the method.

        `checkpointed`: with gradient checkpointing.
        """
        settings = {**SETTINGS, **changes}
        lm = self.load()
        torch.manual_seed(seed)
        add_lora(lm, settings["lora"], seed)
        if checkpointed:
            lm.checkpoint_blocks()
        learner = registry.method(name)(settings, self.data)
        if spoil is not None:
            spoil(learner)
        self.runs += 1
        saved = checkpoint or Checkpoints(self.folder / f"run-{self.runs}", "none")
        return lm, train(lm, learner, self.pools, self.held_out, settings, seed, saved)


class KilledError(Exception):
    """A killed job."""


def learner_of(bench, name, **changes):
    """A method on the bench's data, under changed settings."""
    return registry.method(name)({**SETTINGS, **changes}, bench.data)


def drawn_examples(bench, learner, lm, batches=1):
    """The examples of the first batches, for which the method is prepared."""
    drawn = [draw_batch(bench.pools, {"harm": 3, "plain": 3}, 0, step) for step in range(batches)]
    learner.prepare(lm, [pair for batch in drawn for pair in batch])
    return [[learner.example(*pair) for pair in batch] for batch in drawn]


def states(*shape, seed):
    """Random states of a shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moved(lm):
    """A model whose fresh adapter has moved: both of its halves are random."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in trainable(lm.model).items():
            if "lora_B" in name:
                weight.add_(0.1 * torch.randn_like(weight))
    return lm
