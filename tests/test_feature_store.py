"""What the adapter learns from: every row is what codec and tower say, and a kill leaves no trace in the bytes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.codec import Codec
from components.codec.guidance import guide
from components.errors import CotamError
from components.files import sha256_tree
from components.training import feature_store
from components.training.adapter_stage import training_tower
from components.training.draws import GUIDED_SHARE, draw
from components.training.feature_store import FeatureStore, Plan, store_key
from components.training.table import Column, Table
from components.vision import load_tower
from tests.models import tiny_clip_folder, tiny_llava_folder
from tests.small_checkout import scenes, tiny_codec_folder

IMAGES, HELD_OUT, TRAINING = 21, 4, 17
PLAN = Plan(seed=3, qualities=(0, 4, 8), draws=2, held_out=HELD_OUT, layers=(0, 1), grid=4, k=0.75)


class Pictures(list):
    """Images in memory, in an order of their own for every epoch."""

    def order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(epoch).permutation(len(self))

    def read(self, numbers):
        return (self.image(number) for number in numbers)

    def image(self, index: int) -> Image.Image:
        return self[index]


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """(codec, guiding tower, the MLLM's tower)."""
    folder = tmp_path_factory.mktemp("models")
    return (
        Codec.from_pretrained(tiny_codec_folder(folder / "codec")),
        load_tower(tiny_clip_folder(folder / "clip", seed=1)),
        training_tower(load_tower(tiny_llava_folder(folder / "llava", seed=2), bf16=True)),
    )


@pytest.fixture(scope="module")
def pictures():
    """Scenes, and among them two photographs' shapes: one is cut from its longer side."""
    pictures = Pictures(Image.fromarray(scene) for scene in scenes(IMAGES))
    pictures[2] = pictures[2].resize((300, 150))
    pictures[-1] = pictures[-1].resize((90, 140))
    return pictures


@pytest.fixture(scope="module")
def store(parts, pictures, tmp_path_factory):
    return FeatureStore(tmp_path_factory.mktemp("store"), pictures, PLAN, *parts)


def square(pictures, number):
    return feature_store.cut(pictures[number], 128, PLAN.seed, number)


def half(tensor) -> torch.Tensor:
    """As the store keeps it."""
    return torch.as_tensor(tensor).half().float()


def check_views(batch, numbers, looks, parts, pictures):
    """Compare rows with a stream that was really written, read and looked at."""
    codec, clip, tower = parts
    images = [square(pictures, number) for number in numbers]
    levels = guide(clip, images, PLAN.grid, PLAN.k, PLAN.layers)
    maps = [grid if look.guided else None for grid, look in zip(levels, looks, strict=True)]
    decoded = codec.decode(codec.encode(images, [look.quality for look in looks], maps))
    assert torch.equal(batch["y_hat"], half(np.stack([one.latent for one in decoded])))
    assert torch.equal(batch["quality_map"], torch.from_numpy(np.stack([one.level_map for one in decoded])))
    seen = tower.patch_embed(tower.geometry.pixels([one.image for one in decoded]))
    original = tower.patch_embed(tower.geometry.pixels(images))
    # Sums over a batch of another size are rounded otherwise, here in bfloat16; a wrong row is off by more than 1.
    assert (batch["decoded"] - seen).abs().max() < 0.1
    assert (batch["patches"] - original).abs().max() < 0.1
    consumed = tower.forward_from_patches(original).consumed_BND
    assert (batch["features"] - consumed).abs().mean() < 0.05 * consumed.abs().mean()
    assert (seen - original).abs().max() > 1


def test_rows_are_what_the_codec_and_the_tower_say(store, parts, pictures):
    for epoch in range(3):
        numbers = store.order(epoch)[:6]
        looks = [draw(PLAN.seed, epoch % PLAN.draws, int(number), PLAN.qualities) for number in numbers]
        check_views(store.batch(epoch, numbers), numbers, looks, parts, pictures)


def test_held_out_images_are_seen_guided_at_every_quality(store, parts, pictures):
    for quality in (0, 4, 8):
        batches = list(store.held_out(quality, 3))
        assert [len(batch["y_hat"]) for batch in batches] == [3, 1]
        held_out = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        looks = [feature_store.Draw(quality, True)] * HELD_OUT
        check_views(held_out, range(TRAINING, IMAGES), looks, parts, pictures)


def test_no_held_out_image_is_trained_on(store):
    assert len(store) == TRAINING
    for epoch in range(3):
        assert sorted(store.order(epoch)) == list(range(TRAINING))
    assert not np.array_equal(store.order(0), store.order(1))


def test_epochs_take_turns_with_the_drawn_views(store):
    numbers = np.arange(TRAINING)
    first, second, third = (store.batch(epoch, numbers) for epoch in range(3))
    assert all(torch.equal(first[name], third[name]) for name in first)
    assert torch.equal(first["patches"], second["patches"])
    assert not torch.equal(first["y_hat"], second["y_hat"])
    dtypes = {name: tensor.dtype for name, tensor in first.items()}
    assert dtypes.pop("quality_map") == torch.int64
    assert set(dtypes.values()) == {torch.float32}


def test_a_sample_is_of_the_training_views(store, monkeypatch):
    batches = [store.batch(epoch, np.arange(TRAINING)) for epoch in range(PLAN.draws)]
    whole = store.sample()
    assert len(whole["y_hat"]) == TRAINING * PLAN.draws
    for name, tensor in whole.items():
        # Rows are image by image, batches draw by draw.
        assert torch.equal(tensor, torch.stack([batch[name] for batch in batches], 1).flatten(0, 1))
    monkeypatch.setattr(feature_store, "SAMPLE", 5)
    assert len(store.sample()["y_hat"]) == 5


class StopsReading(Pictures):
    """Dies while picture number `last` is read."""

    last: int

    def image(self, index: int) -> Image.Image:
        if index == self.last:
            raise Interrupted
        return super().image(index)


def test_a_fill_that_was_interrupted_goes_on_to_the_same_bytes(parts, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "PORTION", 4)
    FeatureStore(tmp_path / "whole", pictures, PLAN, *parts)
    hurt = tmp_path / "hurt"

    for last in (0, 6, 18):  # within the first portion, a later one, and that of the held-out images
        interrupted = StopsReading(pictures)
        interrupted.last = last
        with pytest.raises(Interrupted):
            FeatureStore(hurt, interrupted, PLAN, *parts)
        # Between the two tables: the views of a portion are written, its images are not.
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(parts[2], "forward_from_patches", raises_interrupted)
            FeatureStore(hurt, pictures, PLAN, *parts)

    FeatureStore(hurt, pictures, PLAN, *parts)
    assert sha256_tree(hurt) == sha256_tree(tmp_path / "whole")


def test_the_bytes_do_not_depend_on_the_number_of_workers(parts, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "PORTION", 4)
    for workers in (1, 3):
        FeatureStore(tmp_path / str(workers), pictures, PLAN, *parts, workers=workers)
    assert sha256_tree(tmp_path / "1") == sha256_tree(tmp_path / "3")


def raises_interrupted(patches_BND):
    raise Interrupted


def test_a_full_store_is_read_and_not_filled_again(parts, pictures, store):
    never = StopsReading(pictures)
    never.image = raises_interrupted
    again = FeatureStore(store.views.folder.parent, never, PLAN, *parts)
    batch, expected = again.batch(0, np.arange(3)), store.batch(0, np.arange(3))
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_a_store_is_named_after_everything_that_goes_into_it():
    key = store_key(PLAN, {"shards": "a", "codec": "b"})
    assert key == store_key(Plan(**vars(PLAN)), {"codec": "b", "shards": "a"})
    assert key != store_key(PLAN, {"shards": "a", "codec": "c"})
    assert key != store_key(Plan(**vars(PLAN) | {"k": 0.5}), {"shards": "a", "codec": "b"})


@given(st.integers(2, 10_000), st.integers(1, 500))
def test_a_fifth_at_most_is_held_out_and_never_nothing(images, wanted):
    training, held_out = Plan(0, (0,), 1, wanted, (0,), 4, 0.75).split(images)
    assert training + held_out == images
    assert 1 <= held_out <= max(1, min(wanted, images // 5))
    assert training >= 1


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images_are_refused(images):
    with pytest.raises(CotamError, match="training needs at least 2; shard a larger folder"):
        PLAN.split(images)


def test_most_views_are_guided_and_qualities_are_drawn_alike():
    drawn = [draw(7, 0, number, (1, 5, 5)) for number in range(3000)]
    assert abs(np.mean([view.guided for view in drawn]) - GUIDED_SHARE) < 0.03
    assert abs(np.mean([view.quality == 5 for view in drawn]) - 2 / 3) < 0.03
    assert drawn[:50] == [draw(7, 0, number, (1, 5, 5)) for number in range(50)]


COLUMNS = {"a": Column((2, 3), "float16"), "b": Column((), "uint8")}


@settings(max_examples=25)
@given(st.lists(st.integers(0, 4), max_size=6), st.integers(0, 99))
def test_a_table_gives_back_what_was_appended(tmp_path_factory, counts, seed):
    folder = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(seed)
    rows = [
        {"a": random.random((n, 2, 3)).astype("float16"), "b": random.integers(0, 255, n, np.uint8)} for n in counts
    ]
    for values in rows:
        Table(folder, COLUMNS, 30).append(values)  # opened anew each time, as after a kill
    table = Table(folder, COLUMNS, 30)
    assert table.filled == sum(counts)
    for name in COLUMNS if counts else ():
        assert np.array_equal(table[name][: table.filled], np.concatenate([values[name] for values in rows]))


def test_rows_that_were_forgotten_are_written_again(tmp_path):
    table = Table(tmp_path, {"a": Column((), "uint8")}, 4)
    table.append({"a": np.array([1, 2, 3])})
    table.rewind(1)
    table.append({"a": np.array([7])})
    assert Table(tmp_path, {"a": Column((), "uint8")}, 4).filled == 2
    assert table["a"].tolist() == [1, 7, 3, 0]
    with pytest.raises(ValueError, match="has only 2 rows"):
        table.rewind(3)


def test_a_table_that_would_not_fit_is_refused_before_it_is_filled(tmp_path):
    with pytest.raises(CotamError, match=r"needs 1000000\.0 GB of which .* GB are free; make room"):
        Table(tmp_path / "table", {"a": Column((1000, 1000), "uint8")}, 10**9)
    assert not list((tmp_path / "table").iterdir())


def test_rows_of_another_shape_are_refused_and_not_counted(tmp_path):
    table = Table(tmp_path, COLUMNS, 4)
    for values in (
        {"a": np.zeros((1, 2, 3))},
        {"a": np.zeros((1, 2, 3)), "b": np.zeros(2)},
        {"a": np.zeros((1, 3, 2)), "b": np.zeros(1)},
    ):
        with pytest.raises(ValueError):
            table.append(values)
    assert Table(tmp_path, COLUMNS, 4).filled == 0
