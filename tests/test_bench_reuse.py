"""`cotam bench reuse`: both ways learn from the same batch, and the numbers are of what was timed."""

import numpy as np
import pytest
import torch

from benchmarks import reuse as bench
from components.training.feature_store import PORTION, FeatureStore
from tests.small_checkout import tiny_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return tiny_settings(tmp_path_factory.mktemp("models"))


def test_what_is_made_anew_is_what_was_kept(settings, tmp_path, monkeypatch):
    made = []
    look_at = FeatureStore.look_at

    def watched(self, *args):
        made.append((args[-1], look_at(self, *args)))
        return made[-1][1]

    monkeypatch.setattr(FeatureStore, "look_at", watched)
    found = bench.measure(2, settings, tmp_path / "store")
    filled, again = made[: -2], made[-2:]
    for start, (views, images) in again:
        kept = next(rows for place, rows in filled if place == start)
        assert all(np.array_equal(views[name], kept[0][name][: len(views[name])]) for name in views)
        assert all(np.array_equal(images[name], kept[1][name]) for name in images)
        assert len(views["decoded"]) == PORTION
    assert found["kept_images_per_second"] > found["anew_images_per_second"] > 0
    assert found["ratio"]["lowest"] <= found["ratio"]["median"] <= found["ratio"]["highest"]
    assert torch.get_num_threads() == 1
