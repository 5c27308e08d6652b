"""Other towers and larger language models begin with what the shipped weights know."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import CLIPVisionModel

from components.paths import PRETRAINED
from components.scenes import Scene, render, sample_scene
from components.scenes.graph import Text
from components.scenes.labels import PATCH_CLASSES, TEXTS, image_labels
from components.scenes.world import COLOURS, SHAPES, WORDS
from pipelines.pretrain import tiles
from pipelines.pretrain.dense import DenseLoss
from pipelines.pretrain.micro_models import micro_llava
from pipelines.pretrain.train_clip import normalised
from pipelines.pretrain.train_tower import consumed
from pipelines.pretrain.warm_start import start_language, start_projector, tower_from_clip

CLIP, LLAVA = PRETRAINED / "clip/micro", PRETRAINED / "mllm/micro-llava"


@pytest.fixture(scope="module")
def seen():
    """Pixels of scenes, and what the CLIP says of their patches where an MLLM reads."""
    scenes = np.stack([render(sample_scene(seed, "validation")) for seed in range(4)])
    pixels = normalised(torch.from_numpy(scenes))
    clip = CLIPVisionModel.from_pretrained(CLIP, dtype=torch.float32)
    with torch.no_grad():
        return pixels, clip(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]


@pytest.mark.parametrize(("kind", "unlike"), [("internvit", 0.005), ("siglip", 0.5)])
def test_a_tower_begins_as_the_clip(seen, kind, unlike):
    """A SigLIP has no CLS, and so is only near; one of random weights would differ by more than 1."""
    pixels, due = seen
    with torch.no_grad():
        found = consumed(tower_from_clip(kind, CLIP), pixels)
    assert found.shape == due.shape
    assert float(((found - due) ** 2).mean() / due.var((0, 1)).mean()) < unlike


def test_layers_that_are_added_pass_on_what_they_are_given():
    smaller, _ = micro_llava(CLIP)
    larger, processor = micro_llava(CLIP, layers=7)
    features = torch.randn(1, 64, 128)
    ids = torch.tensor([[1, *processor.tokenizer("what kind of place is this ?").input_ids]])
    said = []
    for model in (smaller.eval(), larger.eval()):
        start_language(model, LLAVA)
        start_projector(model, LLAVA, features)
        with torch.no_grad():
            said.append(model.lm_head(model.model.language_model(input_ids=ids).last_hidden_state))
    torch.testing.assert_close(said[0], said[1])
    assert sum(p.numel() for p in larger.parameters()) > sum(p.numel() for p in smaller.parameters())


def crossing(**things) -> Scene:
    """A scene of detail 2 with nothing in it but what is given."""
    return replace(sample_scene(0, "train", "train", 256, 2), **{"objects": (), "text": None, **things})


def test_half_an_object_is_labelled_as_what_it_is():
    """Its centre is in the upper left tile, by the border to the upper right one."""
    obj = replace(sample_scene(0).objects[0], cx=120.0, cy=40.0, diameter=34.0)
    patch, _ = tiles.labels(crossing(objects=(obj,)))
    named = [SHAPES.index(obj.shape) + 1, COLOURS.index(obj.colour) + 1]
    of_tiles = patch[:4].reshape(4, 8, 8, -1)
    assert of_tiles[1, 1:4, 0, 4:6].tolist() == [named] * 3  # what covers the patch
    assert not of_tiles[1, ..., :4].any()  # whose centre it holds
    assert of_tiles[0, 2, 7, :2].tolist() == named and of_tiles[0, 2, 7, 4:6].tolist() == named
    assert not of_tiles[2:].any() and not of_tiles[1, :, 1:].any()


@pytest.mark.parametrize(("left", "readable"), [(100.0, 1), (76.0, 0)])
def test_a_piece_of_a_text_that_cannot_be_read_counts_for_nothing(left, readable):
    text = Text("word", WORDS[0], "", 30, left=left, top=40.0, right=left + 80, bottom=70.0, light=True)
    patch, _ = tiles.labels(crossing(text=text))
    shown = [set(view.tolist()) - {0} for view in patch[:4, :, 6]]
    due = [{tiles.IGNORED}, {TEXTS.index(WORDS[0]) + 1}]
    assert shown == [due[readable == 0], due[readable == 1], set(), set()]
    loss = DenseLoss(4)
    torch.manual_seed(0)
    tokens, whole = torch.randn(2, 64, 4), torch.from_numpy(image_labels(crossing(text=text))).expand(2, -1)
    part = torch.from_numpy(patch[[1 - readable, readable]])  # the unreadable tile, then the readable one
    part[0, :, 6] = tiles.IGNORED

    def of_text(chosen):
        loss.zero_grad()
        loss(tokens[chosen], part[chosen], whole[chosen])[0].backward()
        first = sum(list(PATCH_CLASSES.values())[:6])
        return loss.patch.weight.grad[first : first + PATCH_CLASSES["text"]].clone()

    torch.testing.assert_close(of_text([0, 1]), of_text([1]))


def test_tiles_and_their_labels_belong_together():
    """Every object of a scene of detail 2 is in one tile; the tile's pixels are the scene's; the whole comes last."""
    for seed in range(8):
        scene = sample_scene(seed, "train", "train", 256, 2)
        image = render(scene)
        views = tiles.cut(torch.from_numpy(image)[None], 2)[0].numpy()
        patch, whole = tiles.labels(scene)
        assert views.shape == (5, 128, 128, 3) and patch.shape[:2] == (5, 64)
        assert np.array_equal(views[1], image[:128, 128:]) and np.array_equal(views[2], image[128:, :128])
        named = (patch[:4, :, 0] > 0).sum()
        assert len(scene.objects) - 2 <= named <= len(scene.objects)  # two centres may share a patch
        assert np.array_equal(whole[4], image_labels(scene))
        for place in range(4):
            part = tiles.tile(scene, *divmod(place, 2))
            for obj in part.objects:
                assert 0 <= obj.cx < 128 and 0 <= obj.cy < 128
            if part.text:
                assert re.fullmatch(r"[a-z]+|\d", part.text.value)
                assert 0 <= part.text.left < part.text.right <= 128
