"""The embedded world: the same everywhere, never overlapping, and with answers that the scene graph bears out."""

import hashlib
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from components.data.sources import FolderSource
from components.scenes import object_mask, render, sample_scene, step_render
from components.scenes.captions import caption
from components.scenes.companions import scene_from_json
from components.scenes.contact_sheet import contact_sheet
from components.scenes.graph import quarter
from components.scenes.labels import IMAGE_CLASSES, PATCH_CLASSES, image_labels, patch_labels
from components.scenes.questions import choose_fact, facts, phrase, vocabulary
from components.scenes.world import FAMILIES, LEVELS, SPLITS, STYLES
from components.step_inputs import Params, StepInputs

seeds = st.integers(0, 2**40)
scenes = st.builds(sample_scene, seeds, st.sampled_from(SPLITS), st.sampled_from(STYLES))
detailed = st.integers(1, 4).flatmap(
    lambda detail: st.builds(
        sample_scene, seeds, st.sampled_from(SPLITS), st.sampled_from(STYLES), st.just(128 * detail), st.just(detail)
    )
)


def _digest() -> str:
    images = [render(sample_scene(seed, split, style)) for seed in (0, 9) for split in SPLITS for style in STYLES]
    return hashlib.sha256(np.stack(images).tobytes()).hexdigest()


def test_pixels_are_those_of_every_machine():
    assert _digest()[:16] == "d9879b8ba8d7f213"


def test_larger_scenes_and_graphs_are_those_that_were_there():
    """What is drawn without `detail` is what was drawn before it could be asked for: shards keep graph and pixels."""
    digest = hashlib.sha256()
    for number, size in enumerate((64, 128, 200, 256, 512)):
        for style in STYLES:
            scene = sample_scene(number, "train", style, size)
            digest.update(json.dumps(scene.to_json()).encode() + render(scene).tobytes())
    assert digest.hexdigest()[:16] == "bb52b05c539d833a"


def test_pixels_are_those_of_another_process():
    code = "from tests.test_scenes import _digest; print(_digest())"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == _digest()


def test_splits_and_styles_share_no_scene():
    graphs = Counter(
        (scene.background_seed, scene.kind, scene.tint, scene.objects)
        for split in SPLITS
        for style in STYLES
        for scene in (sample_scene(seed, split, style) for seed in range(100))
    )
    assert max(graphs.values()) == 1


@given(detailed)
def test_facts_agree_with_the_graph(scene):
    found = facts(scene)
    for fact in found:
        assert fact.value in fact.values
        words = fact.question.split()
        if fact.family == "count_colour":
            assert int(fact.value) == sum(obj.colour == words[2] for obj in scene.objects)
        if fact.family == "existence":
            assert (fact.value == "yes") == any(obj.shape == words[3] for obj in scene.objects)
        if fact.family == "position":
            assert fact.value == quarter(scene.largest, scene.side)
        if fact.family in ("colour", "size", "texture"):
            (obj,) = [obj for obj in scene.objects if obj.shape == words[-2]]
            assert fact.value == getattr(obj, fact.family)


@given(scenes, st.integers(0, 1000))
def test_a_question_has_one_right_answer_in_every_form(scene, seed):
    rng, words = np.random.default_rng(seed), set(vocabulary())
    for fact in facts(scene):
        assert phrase(fact, "short", rng).answer == fact.value
        assert phrase(fact, "yesno", rng).answer in ("yes", "no")
        if fact.family == "existence":
            with pytest.raises(ValueError, match="never as a choice"):
                phrase(fact, "choice", rng)
            continue
        question = phrase(fact, "choice", rng)
        assert question.options["ABCD".index(question.answer)] == fact.value
        assert len(set(question.options)) == len(question.options) >= 2
        assert set(question.prompt.split()) <= words


@given(detailed)
def test_objects_stand_inside_and_apart(scene):
    for obj in scene.objects:
        assert obj.diameter / 2 <= obj.cx <= scene.side - obj.diameter / 2
        assert obj.diameter / 2 <= obj.cy <= scene.side - obj.diameter / 2
    mask = object_mask(scene)
    assert mask.shape == (scene.side, scene.side)
    assert all(mask[int(obj.cy), int(obj.cx)] for obj in scene.objects)


@given(scenes)
def test_labels_name_what_stands_in_the_patches(scene):
    patches, image = patch_labels(scene, 8), image_labels(scene)
    assert patches.shape == (64, len(PATCH_CLASSES))
    assert (patches < np.asarray(list(PATCH_CLASSES.values()))).all()
    assert (image < np.asarray(list(IMAGE_CLASSES.values()))).all()
    assert (patches[:, 0] > 0).sum() <= len(scene.objects)
    assert ((patches[:, 6] > 0).any()) == (scene.text is not None)


def test_every_family_is_asked_and_answers_are_balanced():
    rng, answers = np.random.default_rng(0), {family: Counter() for family in FAMILIES}
    for seed in range(600):
        found = facts(sample_scene(seed, "validation"))
        for family in FAMILIES:
            of_family = [fact for fact in found if fact.family == family]
            if of_family:
                answers[family][choose_fact(of_family, rng).value] += 1
    assert set(LEVELS.values()) == {"low", "high", "cross"}
    for family, counted in answers.items():
        assert sum(counted.values()) >= 100, family
        if family != "size" and not family.startswith("count"):  # rare answers: the benchmarks balance them
            assert max(counted.values()) <= 0.72 * sum(counted.values()), (family, counted)


def test_captions_speak_the_vocabulary():
    rng = np.random.default_rng(0)
    for seed in range(50):
        assert set(caption(sample_scene(seed), rng).split()) <= set(vocabulary())


def test_larger_scenes_are_drawn_at_their_size():
    assert render(sample_scene(1, size=512)).shape == (512, 512, 3)


@given(detailed)
def test_with_more_detail_things_keep_their_pixels(scene):
    small = [obj for obj in scene.objects if obj.size == "small"]
    assert all(13 <= obj.diameter <= 17 for obj in small)
    assert all(30 <= obj.diameter <= 38 for obj in scene.objects if obj.size == "large")
    assert not scene.text or 22 <= scene.text.height <= 38
    assert len(small) <= 5 * scene.detail
    assert scene_from_json(json.loads(json.dumps(scene.to_json()))) == scene


def test_with_more_detail_there_are_more_small_things():
    def small(detail):
        scenes = [sample_scene(seed, "train", "train", 128 * detail, detail) for seed in range(40)]
        return np.mean([sum(obj.size == "small" for obj in scene.objects) for scene in scenes])

    assert small(2) > 1.7 * small(1)
    assert small(4) > 1.7 * small(2)


def test_with_more_detail_backgrounds_keep_their_grain():
    """Neighbouring pixels differ by as much at 512 pixels of detail 4 as at 128, not by a quarter of that."""
    for style in STYLES:
        steps = []
        for size, detail in ((128, 1), (512, 4)):
            drawn = [render(sample_scene(seed, "test", style, size, detail)).astype(int) for seed in range(25)]
            steps.append(np.mean([np.abs(np.diff(image, axis=0)).mean() for image in drawn]))
        assert steps[1] == pytest.approx(steps[0], rel=0.35)


@pytest.mark.parametrize(
    "wrong",
    [{"split": "holdout"}, {"style": "comic"}, {"size": 16}, {"seed": -1}, {"detail": 0}, {"size": 256, "detail": 5}],
)
def test_unknown_scenes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"no scenes|a scene needs"):
        sample_scene(**{"seed": 0, **wrong})


def test_the_step_writes_images_and_their_graphs_whatever_the_number_of_processes(tmp_path):
    count, written = step_render.PORTION + 1, []  # two jobs
    for threads in (1, 2):
        out = tmp_path / str(threads)
        out.mkdir()
        params = Params({"seed": 7, "scenes": {"images": count, "size": 128}, "threads": threads})
        step_render.run(StepInputs(params, tmp_path, out))
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    one, two = written
    assert sorted(one) == ["00000.tar", "00001.tar"] and one == two
    shards = sorted(str(path) for path in out.iterdir())
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in samples] == [f"{number:06d}" for number in range(count)]
    for number in (0, count - 1):
        scene = sample_scene(7_000_000 + number, "train", "train")
        assert np.array_equal(np.asarray(samples[number]["png"]), render(scene))
        assert samples[number]["json"] == json.loads(json.dumps(scene.to_json()))
    assert len(FolderSource(out).list().items) == count


def test_the_contact_sheet_shows_twelve_scenes():
    assert contact_sheet().size == (1280, 1125)
