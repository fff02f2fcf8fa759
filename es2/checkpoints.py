"""Training checkpoints: adapter, optimizer and random state as safetensors, guarded by a fingerprint."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from es2.files import atomic_write

Rows = list[dict[str, Any]]


class Checkpoints:
    """One checkpoint in `folder`, overwritten as training goes on; none is kept that another job made.

    The folder is not an output of the workflow, so that it survives a failed or killed job. `fingerprint` covers the
    settings, code and inputs: a checkpoint with another one is deleted, and training starts anew.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self.path = Path(folder) / "checkpoint.safetensors"
        self.fingerprint = fingerprint

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        rows: Rows,
        best: dict[str, Tensor],
    ) -> None:
        """Write the state after `step` optimizer steps, the training table so far, and the last good adapter."""
        tensors = {f"weight/{name}": value.detach() for name, value in trainable(model).items()}
        tensors |= {f"best/{name}": value for name, value in best.items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
        tensors["random"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            tensors["random_cuda"] = torch.cuda.get_rng_state()
        about = {"step": str(step), "fingerprint": self.fingerprint, "rows": json.dumps(rows)}
        with atomic_write(self.path) as temporary:
            save_file(
                {key: value.contiguous().clone() for key, value in tensors.items()},
                str(temporary),
                metadata=about,
            )

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, Rows, dict[str, Tensor]]:
        """Put the saved state back: (steps done, training table, last good adapter); (0, [], {}) if there is none."""
        if not self.path.is_file():
            return 0, [], {}
        with safe_open(str(self.path), framework="pt") as stream:
            about = stream.metadata()
            if about["fingerprint"] != self.fingerprint:
                self.clear()
                return 0, [], {}
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a dict)
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                parameter.copy_(tensors[f"weight/{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, index, entry = key.split("/")
                state.setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        torch.set_rng_state(tensors["random"])
        if "random_cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random_cuda"])
        best = {key.removeprefix("best/"): value for key, value in tensors.items() if key.startswith("best/")}
        return int(about["step"]), json.loads(about["rows"]), best

    def clear(self) -> None:
        """Delete the folder: training is done, or the checkpoint is another job's."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
