"""The question-only predictor uses every word it is given; the scores add up."""

import numpy as np
import pytest
import torch

from components.mllm import load_mllm
from components.scenes import object_mask, sample_scene
from components.scenes.world import FAMILIES, FORMS
from components.vision import load_tower
from pipelines.pretrain.evaluate_mllm import Asked, QuestionOnly, accuracies, ask_all, attention_auc, evaluate
from tests.models import tiny_clip_folder, tiny_llava_folder


@pytest.fixture(scope="module")
def fitted():
    scenes = [sample_scene(seed, "train", "bench") for seed in range(400)]
    return QuestionOnly(question for scene in scenes for question in ask_all(scene))


def test_every_family_is_asked_in_every_form():
    questions = [question for seed in range(40) for question in ask_all(sample_scene(seed, "validation"))]
    asked = {(question.family, question.form) for question in questions}
    assert asked == {(family, form) for family in FAMILIES for form in FORMS} - {
        ("existence", "short"),
        ("existence", "choice"),
    }
    assert questions == [question for seed in range(40) for question in ask_all(sample_scene(seed, "validation"))]


def test_question_only_beats_chance_but_does_not_see(fitted):
    questions = [q for seed in range(150) for q in ask_all(sample_scene(seed, "validation", "bench"))]
    shares = {form: np.mean([fitted(q) == q.answer for q in questions if q.form == form]) for form in FORMS}
    assert 0.15 < shares["short"] < 0.5
    assert 0.5 < shares["yesno"] < 0.75
    assert 0.25 < shares["choice"] < 0.6


def test_scores_add_up():
    questions = ask_all(sample_scene(3, "validation"))
    asked = [Asked(question, question.answer, "wrong", question.answer) for question in questions]
    scores = accuracies(asked)
    assert scores["all"] == scores["question_only"] == 1.0
    assert scores["other_image"] == 0.0
    assert set(scores["level"].values()) == set(scores["family"].values()) == {1.0}


def test_a_map_that_is_the_mask_finds_every_object(tmp_path):
    tower = load_tower(tiny_clip_folder(tmp_path))
    scenes = [sample_scene(seed, "validation") for seed in range(6)]
    masks = torch.tensor(np.stack([object_mask(scene) for scene in scenes])).double()
    tower.cls_attention = lambda pixels: torch.nn.functional.avg_pool2d(masks, 16)
    assert attention_auc(tower, scenes) > 0.9
    tower.cls_attention = lambda pixels: -torch.nn.functional.avg_pool2d(masks, 16)
    assert attention_auc(tower, scenes) < 0.1


def test_a_random_model_is_evaluated_and_reaches_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.pretrain.evaluate_mllm.FIT_SCENES", 60)
    mllm = load_mllm(tiny_llava_folder(tmp_path / "llava"))
    metrics = evaluate(mllm, load_tower(tiny_clip_folder(tmp_path / "clip")), scenes=3)
    assert metrics["bench"]["questions"] > 60
    assert not metrics["bench"]["goals"]["all"]
    assert metrics["bench"]["goals"]["other_image"]
