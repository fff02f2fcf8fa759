"""Tensor files: what is written is read, and equal contents are equal bytes."""

import torch
from safetensors import safe_open

from es2.tensors import write_tensors

METADATA = {"run": "es2", "prompt_ids": '["a", "b \\" c"]', "note": "an é, a tab\t and a line\nend", "c": "[0.01, 1.0]"}


def test_tensors_and_metadata_are_read_as_they_were_written(tmp_path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.ones(2, dtype=torch.bfloat16)}
    write_tensors(tmp_path / "x.safetensors", tensors, METADATA)
    with safe_open(str(tmp_path / "x.safetensors"), framework="pt") as stream:
        assert stream.metadata() == METADATA
        assert set(stream.keys()) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(stream.get_tensor(name), tensor)


def test_equal_contents_are_equal_bytes_whatever_their_order(tmp_path) -> None:
    orders = [METADATA, dict(reversed(METADATA.items()))] * 8
    for place, metadata in enumerate(orders):
        write_tensors(tmp_path / f"{place}.safetensors", {"x": torch.ones(3)}, metadata)
    assert len({(tmp_path / f"{place}.safetensors").read_bytes() for place in range(len(orders))}) == 1
