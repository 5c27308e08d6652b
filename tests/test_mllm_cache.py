"""Keys and values that are written once say what transformers' growing ones say."""

import pytest
import torch
from transformers import DynamicCache, MistralConfig

from components.mllm.cache import continued

HEADS, WIDTH = 2, 4
ROWS = torch.tensor([2, 0, 0, 1, 2])


def states(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, HEADS, length, WIDTH, generator=generator) for _ in range(2)]


def prefixes(config):
    cache = DynamicCache(config=config)
    for layer in range(config.num_hidden_layers):
        cache.update(*states(3, 6, layer), layer)
    return cache


@pytest.mark.parametrize("window", [None, 4, 50])
def test_a_batch_continues_its_prefixes(window):
    config = MistralConfig(num_hidden_layers=2, sliding_window=window)
    cache, expected = prefixes(config), prefixes(config)
    expected.batch_select_indices(ROWS)
    found = continued(cache, ROWS, room=5)
    for step, length in enumerate((3, 1, 1)):
        for layer in range(2):
            assert found.get_mask_sizes(length, layer) == expected.get_mask_sizes(length, layer)
            new = states(len(ROWS), length, 10 * step + layer)
            for mine, theirs in zip(found.update(*new, layer), expected.update(*new, layer), strict=True):
                assert torch.equal(mine, theirs)
            assert found.get_seq_length(layer) == expected.get_seq_length(layer)
    for untouched, original in zip(cache.layers, prefixes(config).layers, strict=True):
        assert torch.equal(untouched.keys, original.keys)
        assert torch.equal(untouched.values, original.values)


@pytest.mark.parametrize("room", [0, 1, 3])
def test_an_answer_outgrows_its_room(room):
    config = MistralConfig(num_hidden_layers=1, sliding_window=None)
    expected, found = prefixes(config), continued(prefixes(config), ROWS, room)
    expected.batch_select_indices(ROWS)
    for step, length in enumerate((2, *20 * [1])):
        new = states(len(ROWS), length, step)
        for mine, theirs in zip(found.update(*new, 0), expected.update(*new, 0), strict=True):
            assert torch.equal(mine, theirs)


def test_memory_is_that_of_the_room():
    (layer,) = continued(prefixes(MistralConfig(num_hidden_layers=1, sliding_window=None)), ROWS, room=2).layers
    assert layer.keys.untyped_storage().nbytes() == len(ROWS) * HEADS * (6 + 2) * WIDTH * 4
