"""Tensor files: what is written is read, and equal contents are equal bytes."""

import pytest
import torch
from safetensors import safe_open

from es2.tensors import write_pieces, write_tensors

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


@pytest.mark.parametrize("cuts", [(7,), (3, 4), (1, 0, 6)])
def test_pieces_are_the_bytes_of_the_whole(tmp_path, cuts) -> None:
    whole = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(0))
    write_tensors(tmp_path / "whole.safetensors", {"x": whole}, METADATA)
    write_pieces(tmp_path / "pieces.safetensors", "x", whole.shape, whole.split(list(cuts)), METADATA)
    assert (tmp_path / "pieces.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("n", [6, 8])
def test_pieces_that_do_not_make_up_the_whole_leave_no_file(tmp_path, n) -> None:
    with pytest.raises(ValueError, match="do not make up x"):
        write_pieces(tmp_path / "x.safetensors", "x", (n, 2), [torch.ones(7, 2)], {})
    assert list(tmp_path.iterdir()) == []
