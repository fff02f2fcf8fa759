"""Safetensors files that are equal byte for byte where their contents are.

The library writes the header's metadata in an order that changes from process to process. A file that is made again
would then differ from itself, and what was made from it would be made again too.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from es2.files import atomic_write

_LENGTH = 8  # bytes, little-endian, that tell how long the header is


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], private: bool = False
) -> None:
    """Write tensors and a metadata header, atomically, the metadata sorted by key; `private` as in `atomic_write`."""
    with atomic_write(path, private) as temporary:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, str(temporary), metadata=dict(metadata))
        _sort_metadata(temporary)


def write_pieces(
    path: str | Path, name: str, shape: Sequence[int], pieces: Iterable[Tensor], metadata: Mapping[str, str]
) -> None:
    """Write one float32 tensor as its pieces along the first axis come, atomically; the same bytes as `write_tensors`.

    Memory holds one piece at a time. Raises ValueError if the pieces do not make up `shape`.
    """
    size = 4 * math.prod(shape)
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        body = _json({"__metadata__": dict(sorted(metadata.items())), name: entry})
        length = -len(body) % _LENGTH + len(body)
        stream.write(length.to_bytes(_LENGTH, "little") + body.ljust(length))
        for piece in pieces:
            stream.write(piece.to(torch.float32).contiguous().numpy().data)
        if stream.tell() != _LENGTH + length + size:
            raise ValueError(f"{path}: the pieces do not make up {name} {list(shape)}")


def _json(header: Mapping[str, object]) -> bytes:
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()


def _sort_metadata(path: Path) -> None:
    """Write the header again, in place: it is JSON, and may be padded with spaces."""
    with open(path, "r+b") as stream:
        length = int.from_bytes(stream.read(_LENGTH), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        stream.seek(_LENGTH)
        stream.write(_json(header).ljust(length))
