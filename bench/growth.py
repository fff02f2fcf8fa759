"""How costs grow with prompts, layers, width and runs: formulas, and what they give from 135M to 70B parameters.

Computed, not measured. N is the number of weights in the blocks; a token costs 2 N floating-point operations forward,
and 2 N more backward where the weights are frozen under an adapter (gradients to activations alone). Attention over the
context, norms and the adapter itself are left out: a few percent at these lengths.
"""

from dataclasses import dataclass

HEAD, OWN, ANSWER = 24, 18, 32  # tokens: a template's shared head, a prompt's own, an answer's
STEP_ANSWER = 24  # tokens of a recorded answer in a step
STEPS, STEP_PROMPTS, PROMPTS, ANSWERS = 45, 16, 1000, 4000
SUSTAINED = 1e14  # FLOP/s, for the table's minutes: scale them by what your device sustains


@dataclass(frozen=True)
class Shape:
    """A decoder: layers L, width d, MLP width, heads and key-value heads of a size, vocabulary, and whether the LM head
    is the input embedding."""

    name: str
    layers: int
    width: int
    mlp: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool = False

    @property
    def block_weights(self) -> int:
        """N: queries and output, keys and values, and the three matrices of a gated MLP, in all layers."""
        attention = 2 * self.width * self.head_size * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.mlp)

    @property
    def head_weights(self) -> int:
        """The LM head, d |V|."""
        return self.width * self.vocabulary

    @property
    def weights(self) -> int:
        """All weights but the norms'."""
        return self.block_weights + self.head_weights * (1 if self.tied else 2)


SHAPES = (
    Shape("SmolLM2-135M", 30, 576, 1536, 9, 3, 64, 49152, tied=True),
    Shape("Qwen2.5-0.5B", 24, 896, 4864, 14, 2, 64, 151936, tied=True),
    Shape("Llama-2-7B", 32, 4096, 11008, 32, 32, 128, 32000),
    Shape("Llama-3.1-8B", 32, 4096, 14336, 32, 8, 128, 128256),
    Shape("Qwen2.5-32B", 64, 5120, 27648, 40, 8, 128, 152064),
    Shape("Llama-3.1-70B", 80, 8192, 28672, 64, 8, 128, 128256),
)


def extraction(shape: Shape, prompts: int, head: int = HEAD, own: int = OWN) -> float:
    """FLOP of embedding prompts: 2 N (head + prompts x own); the head is run once, the LM head never."""
    return 2.0 * shape.block_weights * (head + prompts * own)


def naive_extraction(shape: Shape, prompts: int, head: int = HEAD, own: int = OWN) -> float:
    """FLOP of the same without sharing and with the LM head on every token: 2 (N + d |V|) prompts (head + own)."""
    return 2.0 * (shape.block_weights + shape.head_weights) * prompts * (head + own)


def step(shape: Shape, prompts: int, head: int = HEAD, own: int = OWN, answer: int = STEP_ANSWER) -> float:
    """FLOP of one step: 4 N (head + prompts (own + answer)) + 6 d |V| prompts answer (head of the child forward and
    backward, and of the parent's cached states)."""
    tokens = head + prompts * (own + answer)
    return 4.0 * shape.block_weights * tokens + 6.0 * shape.head_weights * prompts * answer


def naive_step(shape: Shape, prompts: int, width: int = 512) -> float:
    """FLOP of one step with two models and every example padded: (6 N + 6 d |V|) prompts width."""
    return (6.0 * shape.block_weights + 6.0 * shape.head_weights) * prompts * width


def answers(shape: Shape, prompts: int, head: int = HEAD, own: int = OWN, length: int = ANSWER) -> float:
    """FLOP of greedy answers: 2 N (head + prompts (own + length)) + 2 d |V| prompts length.

    Decoding in narrow batches is bound by memory instead: each step reads all weights once.
    """
    tokens = head + prompts * (own + length)
    return 2.0 * shape.block_weights * tokens + 2.0 * shape.head_weights * prompts * length


def probes(shape: Shape, fit: int = 200, strengths: int = 3, iterations: int = 10) -> float:
    """Float64 FLOP of all probes and their shuffled control: a QR a layer, 4 n^2 d, and Newton steps in r = min(n, d)
    dimensions, 2 |C| iterations (2 n r^2 + r^3 / 3)."""
    r = min(fit, shape.width)
    each = 4.0 * fit * r * shape.width + 2 * strengths * iterations * (2.0 * fit * r**2 + r**3 / 3)
    return shape.layers * each


def embeddings_bytes(shape: Shape, prompts: int) -> float:
    """4 prompts L d: float32 states of every layer."""
    return 4.0 * prompts * shape.layers * shape.width


def states_bytes(shape: Shape, references: int, answer: int = STEP_ANSWER) -> float:
    """4 references answer d: the parent's cached states; its logits would be |V| / d times as large."""
    return 4.0 * references * answer * shape.width


def run(shape: Shape) -> float:
    """FLOP of one trained run: its prompts embedded, its training, its answers. Runs and seeds add up."""
    return extraction(shape, PROMPTS) + STEPS * step(shape, STEP_PROMPTS) + answers(shape, ANSWERS)


def table() -> list[list[str]]:
    """Head and rows of the page's table."""
    head = [
        "shape",
        "N, billions",
        f"embed {PROMPTS:,} prompts, PFLOP",
        "without sharing",
        f"a step of {STEP_PROMPTS}, TFLOP",
        "two models, padded to 512",
        f"{ANSWERS:,} answers, PFLOP",
        "probes, TFLOP",
        "embeddings, GB",
        "weights in bfloat16, GB",
        "one run, minutes at 100 TFLOP/s",
    ]
    rows = [
        [
            shape.name,
            f"{shape.block_weights / 1e9:.3g}",
            f"{extraction(shape, PROMPTS) / 1e15:.3g}",
            f"{naive_extraction(shape, PROMPTS) / 1e15:.3g}",
            f"{step(shape, STEP_PROMPTS) / 1e12:.3g}",
            f"{naive_step(shape, STEP_PROMPTS) / 1e12:.3g}",
            f"{answers(shape, ANSWERS) / 1e15:.3g}",
            f"{probes(shape) / 1e12:.2g}",
            f"{embeddings_bytes(shape, PROMPTS) / 1e9:.2g}",
            f"{2 * shape.weights / 1e9:.3g}",
            f"{run(shape) / SUSTAINED / 60:.2g}",
        ]
        for shape in SHAPES
    ]
    return [head, *rows]
