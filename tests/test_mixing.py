"""Mixed views: what is taken, from whom, and that it depends on nothing but seed, epoch and image."""

import numpy as np
import pytest
import torch

from components.training.mixing import MixedViews

COUNT = 50


class Numbered:
    """Views whose every entry is the image's number."""

    def __init__(self, patches=(8, 8), latents=(8, 8)):
        self.patches, self.latents = patches, latents
        self.given = {}

    def __len__(self):
        return COUNT

    def order(self, epoch):
        return np.roll(np.arange(COUNT), epoch)

    def batch(self, epoch, examples):
        # The same tensors again for the same images, so that it would be seen if they were written into.
        return self.given.setdefault(tuple(map(int, examples)), self._made(examples))

    def _made(self, examples):
        numbers = torch.from_numpy(np.asarray(examples))
        patches = numbers.float()[:, None, None].repeat(1, self.patches[0] * self.patches[1], 3)
        latents = numbers[:, None, None].repeat(1, *self.latents)
        found = {"patches": patches, "decoded": patches + 100, "features": patches}
        return found | {"quality_map": latents, "y_hat": latents[:, None].float().repeat(1, 2, 1, 1) + 200}


def mixed(share, epoch=0, **sizes):
    views = Numbered(**sizes)
    return MixedViews(views, share, views.patches, seed=3).batch(epoch, np.arange(COUNT))


def test_a_rectangle_is_taken_from_one_other_image_in_all_features_alike():
    batch = mixed(1.0)
    assert set(batch) == {"patches", "decoded", "y_hat", "quality_map"}
    maps = batch["quality_map"]
    others = set()
    for number, grid in enumerate(maps):
        taken = grid != number
        assert len(grid[taken].unique()) <= 1
        if not taken.any():  # the other one was the image itself
            continue
        others.add(int(grid[taken][0]))
        rows, columns = taken.any(1), taken.any(0)
        assert torch.equal(taken, rows[:, None] & columns)
        for line in (rows, columns):
            assert 2 <= line.sum() <= 6 and line.int().diff().ne(0).sum() <= 2
    assert len(others) > COUNT / 3
    assert torch.equal(batch["patches"][..., 0], maps.flatten(1).float())
    assert torch.equal(batch["decoded"], batch["patches"] + 100)
    assert torch.equal(batch["y_hat"][:, 1], maps.float() + 200)


def test_as_many_are_mixed_as_is_said():
    own = torch.arange(COUNT)[:, None, None]
    assert torch.equal(mixed(0.0)["quality_map"], own.expand(-1, 8, 8))
    some = (mixed(0.5)["quality_map"] != own).flatten(1).any(1).sum()
    assert COUNT / 4 < some < 3 * COUNT / 4


def test_patches_and_latents_on_other_grids_are_taken_at_the_same_place():
    batch = mixed(1.0, patches=(24, 24), latents=(21, 21))
    values = {(24, 24): batch["patches"][..., 0], (21, 21): batch["quality_map"].flatten(1)}
    found = []
    for grid, value in values.items():
        taken = (value != torch.arange(COUNT)[:, None]).float().unflatten(1, grid)
        places = (torch.arange(grid[0]) + 0.5) / grid[0]
        centres = [(taken.sum(axis) * places).sum(1) / taken.sum((1, 2)) for axis in (1, 2)]
        found.append(torch.stack([taken.mean((1, 2)), *centres]))
    assert torch.allclose(*found, atol=0.05, equal_nan=True)  # a nan: the other one was the image itself


def test_it_depends_on_seed_epoch_and_image_alone():
    views = MixedViews(Numbered(), 1.0, (8, 8), seed=3)
    whole = views.batch(2, np.arange(COUNT))["y_hat"]
    for part in ([7], [30, 7, 2]):
        assert torch.equal(views.batch(2, np.array(part))["y_hat"], whole[part])
    assert not torch.equal(views.batch(1, np.arange(COUNT))["y_hat"], whole)
    other = MixedViews(Numbered(), 1.0, (8, 8), seed=4)
    assert not torch.equal(other.batch(2, np.arange(COUNT))["y_hat"], whole)
    assert len(views) == COUNT
    assert views.order(2)[0] == COUNT - 2


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_was_given_stays_as_it_was(share):
    views = Numbered()
    before = {name: tensor.clone() for name, tensor in views.batch(0, np.arange(4)).items()}
    MixedViews(views, share, (8, 8), seed=3).batch(0, np.arange(4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in views.batch(0, np.arange(4)).items())
