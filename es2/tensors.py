"""Safetensors files that are equal byte for byte where their contents are.

The library writes the header's metadata in an order that changes from process to process. A file that is made again
would then differ from itself, and what was made from it would be made again too.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from es2.files import atomic_write

_LENGTH = 8  # bytes, little-endian, that tell how long the header is


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and a metadata header, atomically, the metadata sorted by key."""
    with atomic_write(path) as temporary:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, str(temporary), metadata=dict(metadata))
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Write the header again, in place: it is JSON, and may be padded with spaces."""
    with open(path, "r+b") as stream:
        length = int.from_bytes(stream.read(_LENGTH), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        body = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        stream.seek(_LENGTH)
        stream.write(body.ljust(length))
