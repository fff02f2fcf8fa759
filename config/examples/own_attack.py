"""An attack of one's own: push one layer towards the mean embedding of the safe prompts."""

from contextlib import contextmanager

from es2.activations import edit_residual
from es2.attacks.directions import mean_difference


class Push:
    """What `fit` returns: within `applied` the model is attacked."""

    def __init__(self, layer, step):
        self.name, self.budget = f"push of layer {layer}", None
        self.layer, self.step = layer, step

    @contextmanager
    def applied(self, lm):
        """Add the step at the last prompt token and at every generated one."""
        with edit_residual(lm, [self.layer], lambda layer, states, rows, step: states + self.step.to(states)):
            yield


def fit(evaluation, settings):
    """The step: `length` mean norms along the layer's mean difference of the attack split."""
    layer = settings["layer"]
    norm = evaluation.embeddings.of(list(evaluation.fit["prompt_id"]))[:, layer].norm(dim=-1).mean()
    return Push(layer, settings["length"] * norm * mean_difference(evaluation)[layer])
