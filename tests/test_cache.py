"""The cache with room holds what transformers' own cache holds, and lets rows go without copying the others."""

import pytest
import torch
from transformers import DynamicCache

from es2.cache import close_ranks, join_caches


def states(rows: int, places: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, places, 4, generator=draw), torch.randn(rows, 2, places, 4, generator=draw)


def cache(rows: int, places: int, seed: int) -> DynamicCache:
    made = DynamicCache()
    for layer in range(2):
        made.update(*states(rows, places, seed + layer), layer)
    return made


def pairs(one: DynamicCache, two: DynamicCache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    layers = zip(one.layers, two.layers, strict=True)
    return [pair for a, b in layers for pair in ((a.keys, b.keys), (a.values, b.values))]


def test_it_grows_as_transformers_own():
    own, roomy = cache(3, 5, 0), join_caches([cache(3, 5, 0)], 5, 9)
    for step in range(4):
        for layer in range(2):
            new = states(3, 1, 10 + 2 * step + layer)
            returned = roomy.update(*new, layer)
            for found, wanted in zip(returned, own.update(*new, layer), strict=True):
                torch.testing.assert_close(found, wanted, rtol=0, atol=0)
        assert roomy.get_seq_length() == own.get_seq_length() == 6 + step
        assert roomy.layers[0].get_mask_sizes(1) == own.layers[0].get_mask_sizes(1)


def test_parts_are_joined_and_a_shorter_one_is_filled_with_zeros():
    one, two = cache(2, 5, 0), cache(1, 3, 7)
    joined = join_caches([one, two], 5, 8)
    for (found, first), (_, second) in zip(pairs(joined, one), pairs(joined, two), strict=True):
        assert found.shape == (3, 2, 5, 4)
        torch.testing.assert_close(found[:2], first, rtol=0, atol=0)
        torch.testing.assert_close(found[2:, :, :3], second, rtol=0, atol=0)
        assert found[2:, :, 3:].abs().max() == 0


def test_rows_of_several_parts_are_repeated():
    one, two = cache(2, 5, 0), cache(1, 3, 7)
    joined = join_caches([one, two], 5, 8, [1, 3, 2])
    once = join_caches([one, two], 5, 8)
    for found, wanted in pairs(joined, once):
        torch.testing.assert_close(found, wanted[[0, 1, 1, 1, 2, 2]], rtol=0, atol=0)
    joined.update(*states(6, 1, 9), 0)
    assert joined.layers[0].keys.shape == (6, 2, 6, 4)


@pytest.mark.parametrize("ended", [[1], [0, 3], [4], [2, 4], [0, 1, 2, 3], []])
def test_rows_that_go_make_room_and_the_others_grow_on(ended):
    own, roomy = cache(5, 4, 0), join_caches([cache(5, 4, 0)], 4, 6)
    stays = torch.ones(5, dtype=torch.bool)
    stays[ended] = False
    places = close_ranks(stays)
    assert sorted(places.tolist()) == torch.nonzero(stays).squeeze(1).tolist()
    for one in (own, roomy):
        one.batch_select_indices(places)
        for layer in range(2):
            one.update(*states(len(places), 1, 20 + layer), layer)
    for found, wanted in pairs(roomy, own):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_only_as_many_rows_move_as_go():
    stays = torch.tensor([True, False, True, True, True, True])
    assert close_ranks(stays).tolist() == [0, 5, 2, 3, 4]
