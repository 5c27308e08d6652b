"""Moving scenes: true, the same every time, and not to be answered from one frame."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from components.scenes import render, sample_scene
from components.scenes.moving import DIRECTIONS, FAMILIES, LEVELS, ask, facts, moving_vocabulary, sample_clip

CLIPS = [sample_clip(seed, "test", "bench") for seed in range(200)]


def test_a_clip_is_a_function_of_its_seed():
    again = sample_clip(3, "test", "bench")
    assert again == CLIPS[3]
    assert again != sample_clip(3, "train", "bench")
    assert again != sample_clip(3, "test", "train")
    first, second = (render(clip.frames(4)[2]) for clip in (again, CLIPS[3]))
    assert np.array_equal(first, second)
    for wrong in [(-1, "test", "bench", 128), (1, "nowhere", "bench", 128), (1, "test", "bench", 600)]:
        with pytest.raises(ValueError, match=r"clip"):
            sample_clip(*wrong)


def test_the_scenes_that_were_there_have_not_changed():
    digest = hashlib.sha256()
    for seed in range(3):
        for style in ("train", "bench"):
            digest.update(json.dumps(sample_scene(seed, "test", style).to_json()).encode())
    assert digest.hexdigest()[:16] == "54d03c5170f3b5e8"


def test_shapes_stay_inside_and_apart_and_move_as_they_say():
    for clip in CLIPS:
        frames = clip.frames(16)
        assert len(frames) == 16
        for scene in frames:
            for number, obj in enumerate(scene.objects):
                half = obj.diameter / 2
                assert half <= obj.cx <= scene.side - half
                assert half <= obj.cy <= scene.side - half
                for other in scene.objects[:number]:
                    apart = max(abs(obj.cx - other.cx), abs(obj.cy - other.cy))
                    assert apart > (obj.diameter + other.diameter) / 2 - 4
        for mover in clip.moving:
            start, end = mover.at(0), mover.at(1)
            way = {"left": start.cx - end.cx, "right": end.cx - start.cx}
            way |= {"up": start.cy - end.cy, "down": end.cy - start.cy}
            assert max(way, key=way.get) == mover.direction
            assert way[mover.direction] >= 0.35 * clip.scene.side
        if clip.motion == "arrival":
            counts = [len(scene.objects) for scene in frames]
            assert counts == sorted(counts)
            assert counts[-1] == len(clip.movers)
            assert len({mover.comes for mover in clip.movers}) == len(clip.movers)


def test_questions_are_true_and_in_known_words():
    rng, known = np.random.default_rng(0), set(moving_vocabulary())
    seen = Counter()
    for clip in CLIPS:
        for fact in facts(clip):
            seen[fact.family] += 1
            assert fact.value in fact.values
            for form in ("short", "yesno", *(["choice"] if fact.values != ("yes", "no") else [])):
                question = ask(fact, form, rng)
                assert question.family == fact.family
                assert question.level == LEVELS[fact.family]
                assert set(question.prompt.split()) <= known
            if fact.family == "first":
                [first] = next(scene.objects for scene in clip.frames(16) if scene.objects)
                assert fact.value == first.shape
    assert set(seen) == set(FAMILIES)
    values = Counter(fact.value for clip in CLIPS for fact in facts(clip) if fact.family == "direction")
    assert set(values) == set(DIRECTIONS)
    assert max(values.values()) < 1.6 * min(values.values())


def test_one_frame_does_not_tell():
    """The start of a `motion` clip is that of one in which nothing moves."""
    clip = next(clip for clip in CLIPS if len(clip.moving) > 1)
    still = [mover.obj for mover in clip.movers]
    assert list(clip.frames(16)[0].objects) == still
    moved = np.abs(render(clip.frames(16)[0]).astype(int) - render(clip.frames(16)[-1])).max()
    assert moved > 50
