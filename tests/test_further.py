"""MMMU and Video-MME over scenes: in the originals' columns, balanced, and scored by lmms-eval's own functions."""

import ast
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.data.video import open_video
from components.evaluation.clip_benchmark import videomme_documents
from components.evaluation.clips import FRAMES
from components.evaluation.further import FIRST_SCENE, mmmu_documents, vocabulary, write_further
from components.evaluation.layouts import OFFICIAL, SCENES
from components.files import sha256_tree
from components.scenes import render, sample_scene

COUNT = 40


@pytest.fixture(scope="module")
def several():
    return list(mmmu_documents(COUNT, "bench", 2, 128))


@pytest.fixture(scope="module")
def clips():
    return list(videomme_documents(COUNT, "bench", 2, 128))


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in {"a": 2, "b": 2, "c": 3}.items():
        write_further(tmp_path / name, 2, "bench", seed, 64)
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b") != sha256_tree(tmp_path / "c")
    for file, name in (("mmmu", "mmmu_val"), ("videomme", "videomme")):
        columns = set(pq.read_schema(tmp_path / f"a/{file}.parquet").names)
        assert columns >= {*OFFICIAL[name], *SCENES[file], "prompt"}


def test_a_clip_is_kept_without_loss(tmp_path):
    write_further(tmp_path / "out", 2, "bench", 2, 64)
    for document, clip in videomme_documents(2, "bench", 2, 64):
        found = open_video(tmp_path / f"out/videos/{document['videoID']}.apng", 32)
        assert found.total == FRAMES
        for frame, scene in zip(found.frames, clip.frames(FRAMES), strict=True):
            assert np.array_equal(frame, render(scene))


def test_several_pictures_are_needed_and_answers_are_true(several):
    number = 2_000_000 + FIRST_SCENE
    for document in several:
        shown = sum(document[f"image_{k}"] is not None for k in range(1, 8))
        scenes = [sample_scene(number + k, "test", "bench") for k in range(shown)]
        number += shown
        assert shown in (2, 3)
        assert document["question"].count("<image ") == shown
        answer = document["answer"]
        if document["question_type"] == "multiple-choice":
            answer = ast.literal_eval(document["options"])["ABCD".index(answer)]
        counts = [len(scene.objects) for scene in scenes]
        if document["family"] == "total":
            assert answer == str(sum(counts))
        if document["family"] == "which_more":
            assert counts[("first", "second", "third").index(answer)] == max(counts)
        if document["family"] == "same_background":
            assert answer == ("yes" if len({scene.tint for scene in scenes}) == 1 else "no")


def test_families_are_asked_about_equally_often(several, clips):
    for families in (
        Counter(document["family"] for document in several),
        Counter(document["family"] for document, _ in clips),
    ):
        assert len(families) >= 5
        assert max(families.values()) <= 3 * min(families.values())
    letters = Counter(document["answer"] for document, _ in clips)
    assert max(letters.values()) < 0.65 * letters.total()
    assert {document["videoID"] for document, _ in clips} == {f"clip-{n:06d}" for n in range(COUNT)}


def test_prompts_are_in_known_words(several, clips):
    known = set(vocabulary())
    for document in [*several, *(document for document, _ in clips)]:
        assert not set(document["prompt"].split()) - known


def test_lmms_evals_own_functions_score_them(several, clips):
    from lmms_eval.tasks.mmmu.utils import mmmu_aggregate_results, mmmu_process_results
    from lmms_eval.tasks.videomme.utils import videomme_aggregate_results, videomme_process_results

    def mmmu(answers):
        scored = zip(several, answers, strict=True)
        return mmmu_aggregate_results([mmmu_process_results(doc, [answer])["mmmu_acc"] for doc, answer in scored])

    right = [document["answer"] for document in several]
    assert mmmu(right) == 1
    assert mmmu(["nothing of the kind"] * COUNT) < 0.6
    assert mmmu([*right[: COUNT // 2], *["zebra"] * (COUNT - COUNT // 2)]) < 1

    def videomme(answers):
        scored = zip(clips, answers, strict=True)
        results = [videomme_process_results(doc, [answer]) for (doc, _), answer in scored]
        return videomme_aggregate_results([result["videomme_perception_score"] for result in results])

    assert videomme([document["answer"] for document, _ in clips]) == 100
    assert videomme(["Z"] * len(clips)) < 100
