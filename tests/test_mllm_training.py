"""Packed questions teach exactly what the same questions teach one at a time, and what the MLLM will be asked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.mllm import load_mllm
from components.mllm.visual import Kind
from components.paths import PRETRAINED
from components.scenes import render, sample_scene
from components.scenes.questions import draw_questions
from pipelines.pretrain.lessons import IGNORED, LENGTH, lesson, word_ids
from pipelines.pretrain.micro_models import MODELS
from pipelines.pretrain.packing import ROOM, pack
from pipelines.pretrain.train_clip import image_processor
from pipelines.pretrain.train_mllm import QUESTIONS, Lesson, family_of, save
from pipelines.pretrain.warm_start import start_language, tower_from_clip
from pipelines.pretrain.words import PAD

CLIP, LLAVA = PRETRAINED / "clip/micro", PRETRAINED / "mllm/micro-llava"
TOWERS = {"internvl": "internvit", "onevision": "siglip"}


@pytest.fixture(scope="module", params=sorted(MODELS))
def model_and_processor(request, tmp_path_factory):
    """One of each kind, with the micro LLaVA's language model: answers differ between images."""
    folder = CLIP
    if request.param in TOWERS:
        folder = tmp_path_factory.mktemp("tower")
        tower_from_clip(TOWERS[request.param], CLIP).save_pretrained(folder)
        image_processor().save_pretrained(folder)
    torch.manual_seed(0)
    model, processor = MODELS[request.param](folder)
    start_language(model, LLAVA)
    return model.eval(), processor


def scene_of(seed: int, detail: int):
    return sample_scene(seed, "train", "train", 128 * detail, detail)


def lessons_of(seeds, detail: int = 1) -> np.ndarray:
    ids = word_ids()
    rows = []
    for seed in seeds:
        drawn = draw_questions(scene_of(seed, detail), np.random.default_rng(seed), QUESTIONS)
        rows.append(np.stack([np.stack(column) for column in zip(*(lesson(*one, ids) for one in drawn), strict=True)]))
    return np.stack(rows)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_packing_moves_whole_questions_and_changes_nothing_in_them(seed, images):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LENGTH + 1, (images, QUESTIONS))
    given_B3QL = rng.integers(1, 100, (images, 3, QUESTIONS, LENGTH)).astype(np.int16)
    outside = np.arange(LENGTH) >= lengths[..., None]
    given_B3QL[:, 0][outside] = PAD
    given_B3QL[:, 1:][np.stack([outside, outside], 1)] = IGNORED
    packed = pack(given_B3QL, rng)
    for image in range(images):
        kept = packed.owners[image].unique().tolist()
        originals = {given_B3QL[image, :, q, : lengths[image, q]].tobytes() for q in range(QUESTIONS)}
        for owner in filter(None, kept):
            inside = packed.owners[image] == owner
            columns = torch.stack([packed.tokens[image], packed.answers[image], packed.marks[image]])[:, inside]
            assert columns.numpy().astype(np.int16).tobytes() in originals
            assert packed.places[image][inside].tolist() == list(range(int(inside.sum())))
        assert len(kept) > 1 or lengths[image].min() > ROOM
        assert (packed.tokens[image][packed.owners[image] == 0] == PAD).all()
        assert (packed.answers[image][packed.owners[image] == 0] == IGNORED).all()


def features_of(family, seeds, detail: int) -> torch.Tensor:
    pixels = torch.from_numpy(np.stack([render(scene_of(seed, detail)) for seed in seeds])).permute(0, 3, 1, 2)
    views = family.framing(Kind.IMAGE, (128 * detail, 128 * detail)).pixels(pixels)
    layer = family.tower.feature_layer
    states = family.tower.hidden_states(family.tower.patch_embed(views.flatten(0, 1)), {layer})[layer]
    return states.unflatten(0, views.shape[:2])


@torch.no_grad()
def test_a_packed_question_is_answered_as_if_it_were_alone(model_and_processor):
    model, processor = model_and_processor
    family = family_of(model, processor)
    learn, detail = Lesson(family, processor), 1 if family.model_class.__name__.startswith("LlavaFor") else 2
    features = features_of(family, [3, 4], detail)
    packed = pack(lessons_of([3, 4], detail), np.random.default_rng(0))
    _, (together, _, _) = learn(features, packed, 128 * detail)
    total, count = 0.0, 0
    for image in range(2):
        for owner in filter(None, packed.owners[image].unique().tolist()):
            inside = packed.owners[image] == owner
            alone = type(packed)(*(column[image][inside][None] for column in packed))
            alone = alone._replace(owners=torch.ones_like(alone.owners))
            _, (answer, _, _) = learn(features[image : image + 1], alone, 128 * detail)
            targets = int((alone.answers != IGNORED).sum())
            total, count = total + float(answer) * targets, count + targets
    assert float(together) == pytest.approx(total / count, rel=1e-4)


@torch.no_grad()
def test_training_shows_what_the_mllm_will_be_asked(model_and_processor, tmp_path: Path):
    """The first word that the shipped folder answers is the likeliest in training, tiles and marks included."""
    model, processor = model_and_processor
    family = family_of(model, processor)
    learn, detail = Lesson(family, processor), 1 if family.model_class.__name__.startswith("LlavaFor") else 2
    save(model, processor, tmp_path)
    mllm = load_mllm(tmp_path)
    family.model.load_state_dict(mllm.model.state_dict())  # rounded to float16, as that is
    ids, scene = word_ids(), scene_of(5, detail)
    drawn = draw_questions(scene, np.random.default_rng(1), QUESTIONS)
    (view,) = mllm.views([render(scene)])
    answers = mllm.answer([view] * QUESTIONS, [question.prompt for _, question in drawn], max_new_tokens=1)
    rows = []
    for one, answer in zip(drawn, answers, strict=True):
        tokens, targets, marks = lesson(*one, ids)
        start = int((targets != IGNORED).argmax())
        targets[:] = IGNORED
        targets[start] = processor.tokenizer.convert_tokens_to_ids(answer)
        rows.append(np.stack([tokens, targets, marks]))
    packed = pack(np.stack(rows).transpose(1, 0, 2)[None], np.random.default_rng(0))
    _, (_, _, right) = learn(features_of(family, [5], detail), packed, 128 * detail)
    assert len(set(answers)) > 1
    assert float(right) == 1.0
