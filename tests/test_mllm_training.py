"""Packed questions teach exactly what the same questions teach one at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.scenes.questions import draw_questions
from pipelines.pretrain.lessons import IGNORED, LENGTH, lesson, word_ids
from pipelines.pretrain.train_mllm import PATCHES, QUESTIONS, ROOM, Lesson, micro_llava, pack
from pipelines.pretrain.words import PAD
from tests.models import tiny_clip_folder


def lessons_of(seeds) -> np.ndarray:
    from components.scenes import sample_scene

    ids = word_ids()
    rows = []
    for seed in seeds:
        drawn = draw_questions(sample_scene(seed, "train"), np.random.default_rng(seed), QUESTIONS)
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


def test_a_packed_question_is_answered_as_if_it_were_alone(tmp_path):
    torch.manual_seed(0)
    model = micro_llava(tiny_clip_folder(tmp_path)).eval()
    learn = Lesson(model)
    features = torch.randn(2, PATCHES, model.config.vision_config.hidden_size)
    material = lessons_of([3, 4])
    packed = pack(material, np.random.default_rng(0))
    with torch.no_grad():
        _, (together, _, _) = learn(features, packed)
        total, count = 0.0, 0
        for image in range(2):
            for owner in filter(None, packed.owners[image].unique().tolist()):
                inside = packed.owners[image] == owner
                alone = type(packed)(*(column[image][inside][None] for column in packed))
                alone = alone._replace(owners=torch.ones_like(alone.owners))
                _, (answer, _, _) = learn(features[image : image + 1], alone)
                targets = int((alone.answers != IGNORED).sum())
                total, count = total + float(answer) * targets, count + targets
    assert float(together) == pytest.approx(total / count, rel=1e-4)
