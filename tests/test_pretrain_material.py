"""What is kept beside rendered scenes belongs to these scenes and to this code."""

import numpy as np
import pytest
import torch

from components.errors import CotamError
from components.mllm import Kind, load_mllm
from components.paths import PRETRAINED
from components.scenes import render as drawn
from pipelines.pretrain import material as module
from pipelines.pretrain.features import features
from pipelines.pretrain.lessons import LENGTH, PLACES, lessons, word_ids
from pipelines.pretrain.material import Material, captions, view_labels
from pipelines.pretrain.render_scenes import render_array
from pipelines.pretrain.words import EOS

SCENES, COUNT = Material("train"), 3


def render(folder, first=0):
    render_array(folder / "train.npy", "train", "train", first, COUNT)


def names(folder):
    return {path.name for path in folder.iterdir()} - {"train.npy"}


def test_features_of_other_pixels_are_made_anew(tmp_path):
    family = load_mllm(PRETRAINED / "mllm/micro-llava").family
    render(tmp_path)
    before = np.array(features(family, tmp_path, SCENES, COUNT))
    [kept] = names(tmp_path)
    stamp = (tmp_path / kept).stat().st_mtime_ns
    assert np.array_equal(features(family, tmp_path, SCENES, COUNT - 1), before[: COUNT - 1])
    assert (tmp_path / kept).stat().st_mtime_ns == stamp
    render(tmp_path, first=100)
    after = features(family, tmp_path, SCENES, COUNT)
    assert not np.array_equal(after, before)
    [made] = names(tmp_path)  # the other is gone
    assert made != kept


def test_labels_lessons_and_captions_are_kept_until_pixels_or_code_change(tmp_path, monkeypatch):
    render(tmp_path)

    def make():
        patch, image = view_labels(tmp_path, SCENES, COUNT)
        taught = lessons(tmp_path, SCENES, COUNT, 4, word_ids(), processes=1)
        said = captions(tmp_path, SCENES, COUNT)
        assert patch.shape[:3] == (COUNT, 1, 64) and image.shape[:2] == (COUNT, 1)
        assert taught.shape == (COUNT, 4 + len(PLACES), 4, LENGTH) and len(said) == COUNT
        return {(name, (tmp_path / name).stat().st_mtime_ns) for name in names(tmp_path)}

    first = make()
    assert len(first) == 3
    assert make() == first
    render(tmp_path, first=100)
    second = make()
    assert len(second) == 3 and not second & first
    monkeypatch.setattr(module, "import_closure", lambda name: [])
    assert len(make() - second) == 3


def test_more_questions_are_other_lessons(tmp_path):
    render(tmp_path)
    assert lessons(tmp_path, SCENES, COUNT, 2, word_ids(), processes=1).shape[2] == 2
    assert lessons(tmp_path, SCENES, COUNT, 4, word_ids(), processes=1).shape[2] == 4


def test_another_vocabulary_has_lessons_of_its_own(tmp_path):
    render(tmp_path)
    ids = word_ids()
    moved = {word: number + 1 for word, number in ids.items()}
    tokens = lessons(tmp_path, SCENES, COUNT, 2, ids, processes=1)[:, 0]
    others = lessons(tmp_path, SCENES, COUNT, 2, moved, processes=1)[:, 0]
    assert np.array_equal(others, tokens + (tokens > EOS))


@pytest.mark.parametrize("material", [SCENES, Material("train", 2), Material("train", 4)])
def test_the_views_of_a_scene_are_its_tiles_and_the_whole(tmp_path, material):
    """In parts and at once they are the same, and as many as is said."""
    render_array(tmp_path / f"{material.name}.npy", "train", "train", 0, COUNT, material.size, material.detail)
    family = load_mllm(PRETRAINED / "mllm/micro-internvl").family
    seen = features(family, tmp_path, material, COUNT)
    assert seen.shape[:2] == (COUNT, material.views)
    views = family.framing(Kind.IMAGE, (material.size,) * 2).pixels(
        torch.from_numpy(np.array(material.pixels(tmp_path))).permute(0, 3, 1, 2)
    )
    layer = family.tower.feature_layer
    last = family.tower.hidden_states(family.tower.patch_embed(views[-1]), {layer})[layer].detach().numpy()
    assert np.abs(seen[-1] - last).mean() < 0.02 * np.abs(last).mean()  # bfloat16 and float16


def test_the_views_of_a_clip_are_its_frames(tmp_path):
    material = Material("train", frames=2)
    render_array(tmp_path / "train-clips.npy", "train", "train", 0, COUNT, frames=2)
    pixels = material.pixels(tmp_path)
    assert pixels.shape == (COUNT, 2, 128, 128, 3)
    assert np.array_equal(pixels[1, 1], drawn(material.clip(1).frames(2)[1]))
    family = load_mllm(PRETRAINED / "mllm/micro-internvl").family
    seen = features(family, tmp_path, material, COUNT)
    assert seen.shape[:2] == (COUNT, 2)
    view = family.framing(Kind.VIDEO, (128, 128)).pixels(torch.from_numpy(pixels[2, :1].copy()).permute(0, 3, 1, 2))
    layer = family.tower.feature_layer
    (alone,) = family.tower.hidden_states(family.tower.patch_embed(view[:, 0]), {layer})[layer].detach().numpy()
    assert np.abs(seen[2, 0] - alone).mean() < 0.02 * np.abs(alone).mean()  # bfloat16 and float16


def test_scenes_that_were_not_rendered_are_one_sentence(tmp_path):
    with pytest.raises(CotamError, match=r"train\.npy does not exist; run python -m pipelines\.pretrain\.render_sc"):
        view_labels(tmp_path, SCENES, COUNT)
