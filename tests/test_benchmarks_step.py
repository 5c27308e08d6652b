"""The benchmarks over scenes: balanced, true, in their formats, and the same every time."""

import json
from collections import Counter

import pytest
from PIL import Image

from components.evaluation.benchmarks import BENCHMARKS, CATEGORIES, SECOND_PASS, benchmark_scenes
from components.evaluation.step_benchmarks import write_benchmarks
from components.files import sha256_tree
from components.scenes.questions import LETTERS, vocabulary

IMAGES = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks") / "bench"
    write_benchmarks(folder, IMAGES, "bench", seed=3, side=128)
    return folder


@pytest.fixture(scope="module")
def documents(folder):
    return {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()] for name in BENCHMARKS
    }


def test_every_image_is_there_and_shows_text(folder, documents):
    images = sorted((folder / "images").glob("*.png"))
    assert [path.stem for path in images] == [f"{number:06d}" for number in range(IMAGES)]
    assert Image.open(images[0]).size == (128, 128)
    assert [document["image"] for document in documents["textvqa"]] == [path.stem for path in images]


def test_benchmarks_of_high_resolution_are_asked_in_the_same_way(tmp_path):
    write_benchmarks(tmp_path / "bench", 6, "bench", seed=3, side=256, detail=2)
    assert Image.open(tmp_path / "bench/images/000000.png").size == (256, 256)
    for name in BENCHMARKS:
        lines = (tmp_path / "bench" / f"{name}.jsonl").read_text().splitlines()
        for document in map(json.loads, lines):
            assert set(document["prompt"].split()) <= set(vocabulary())
    scenes = list(benchmark_scenes(6, "bench", 3, 256, 2))
    assert max(len(scene.objects) for scene in scenes) > 6  # more than an ordinary scene holds


def test_same_seed_same_bytes_and_another_seed_others(folder, tmp_path):
    write_benchmarks(tmp_path / "again", 6, "bench", seed=3, side=128)
    write_benchmarks(tmp_path / "third", 6, "bench", seed=3, side=128)
    write_benchmarks(tmp_path / "other", 6, "bench", seed=4, side=128)
    assert sha256_tree(tmp_path / "again") == sha256_tree(tmp_path / "third")
    assert sha256_tree(tmp_path / "again") != sha256_tree(tmp_path / "other")
    first = (folder / "images/000000.png").read_bytes()
    assert first == (tmp_path / "again/images/000000.png").read_bytes()


def test_prompts_are_in_the_words_that_the_mllm_knows(documents):
    known = set(vocabulary())
    for name, asked in documents.items():
        for document in asked:
            assert not set(document["prompt"].split()) - known, (name, document)


def test_mme_and_pope_ask_in_pairs_of_yes_and_no(documents):
    for name in ("mme", "pope"):
        answers = Counter(document["answer"].lower() for document in documents[name])
        assert answers["yes"] == answers["no"] == len(documents[name]) / 2
    pairs = Counter(document["question_id"] for document in documents["mme"])
    assert set(pairs.values()) == {2}
    assert len(documents["mme"]) == 2 * IMAGES


def test_categories_are_asked_equally_often(documents):
    for name in ("mme", "seedbench", "vqav2"):
        asked = Counter(document["category"] for document in documents[name])
        assert asked.keys() == CATEGORIES[name].keys()
        assert max(asked.values()) - min(asked.values()) <= 2, (name, asked)


def test_choices_hold_the_answer_and_letters_are_balanced(documents):
    for document in documents["seedbench"]:
        assert document[f"choice_{document['answer'].lower()}"] in document["prompt"]
    letters = Counter(document["answer"] for document in documents["seedbench"] + documents["mmbench"])
    assert letters.keys() == set(LETTERS)
    assert max(letters.values()) < len(documents["seedbench"] + documents["mmbench"]) / 2


def test_mmbench_asks_twice_with_the_options_shifted(documents):
    asked = {document["index"]: document for document in documents["mmbench"]}
    first = [index for index in asked if index < SECOND_PASS]
    assert len(asked) == 2 * len(first) == 4 * IMAGES
    for index in first:
        one, two = asked[index], asked[index + SECOND_PASS]
        assert one["id"] == two["id"]
        assert one[one["answer"]] == two[two["answer"]]
        assert one["answer"] != two["answer"]
        assert [two[letter] for letter in LETTERS if two[letter]] == [
            *[one[letter] for letter in LETTERS[1:] if one[letter]],
            one["A"],
        ]


def test_scenes_of_the_two_styles_and_of_training_are_others():
    bench = next(benchmark_scenes(1, "bench", 7, 128))
    train = next(benchmark_scenes(1, "train", 7, 128))
    assert bench.split == train.split == "test"
    assert bench.objects != train.objects
