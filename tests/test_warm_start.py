"""Other towers and larger language models begin with what the shipped weights know."""

import re

import numpy as np
import pytest
import torch
from transformers import CLIPVisionModel

from components.paths import PRETRAINED
from components.scenes import render, sample_scene
from components.scenes.labels import image_labels
from pipelines.pretrain import tiles
from pipelines.pretrain.micro_models import micro_llava
from pipelines.pretrain.train_clip import normalised
from pipelines.pretrain.train_tower import consumed
from pipelines.pretrain.warm_start import start_language, start_projector, tower_from_clip

CLIP, LLAVA = PRETRAINED / "clip/micro", PRETRAINED / "mllm/micro-llava"


@pytest.fixture(scope="module")
def seen():
    """Pixels of scenes, and what the CLIP says of their patches where an MLLM reads."""
    pixels = normalised(np.stack([render(sample_scene(seed, "validation")) for seed in range(4)]))
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


def test_tiles_and_their_labels_belong_together():
    """Every object of a scene of detail 2 is in one tile; the tile's pixels are the scene's; the whole comes last."""
    for seed in range(8):
        scene = sample_scene(seed, "train", "train", 256, 2)
        image = render(scene)
        views = tiles.cut(image[None], 2)[0]
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
