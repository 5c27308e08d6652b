"""The shipped weights are what the docs say they are: their sizes, their scores, and that they can be remade."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open

from components.files import read_json
from components.mllm import load_mllm
from components.paths import PRETRAINED, ROOT
from components.scenes import sample_scene
from components.scenes.world import STYLES
from components.vision import load_tower
from pipelines.pretrain.document import PAGE, page, scores
from pipelines.pretrain.evaluate_mllm import MARGIN, QuestionOnly, accuracies, ask_all, attention_auc, examine, reached

MEGABYTES = {"clip": 7, "mllm": 10, "codec": 3.1}
"""At most, per folder, headers of the files included (docs/models.md)."""
MLLM = PRETRAINED / "mllm/micro-llava"
SHIPPED = sorted(file.parent.name for file in PRETRAINED.glob("mllm/*/model.safetensors"))


def metrics_of(name: str) -> Path:
    return PRETRAINED / f"mllm/{name}.metrics.json"


def folders() -> list[Path]:
    return sorted(file.parent for file in PRETRAINED.glob("*/*/model.safetensors"))


def test_what_ships_is_small_and_plain():
    sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders()}
    assert {folder.parent.name for folder in sizes} == set(MEGABYTES)
    assert sum(sizes.values()) < 40e6
    for folder, size in sizes.items():
        assert size <= MEGABYTES[folder.parent.name] * 1e6, folder
        assert {file.suffix for file in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}
        with safe_open(folder / "model.safetensors", framework="np") as weights:
            assert {weights.get_slice(name).get_dtype() for name in weights.keys()} <= {"F16", "I64"}  # noqa: SIM118


def test_every_shipped_folder_has_a_recipe():
    stages = yaml.safe_load((ROOT / "pipelines/pretrain/dvc.yaml").read_text())["stages"]
    commands = " ".join(stage["cmd"] for stage in stages.values())
    assert all(f"pipelines.pretrain.train_{kind}" in commands for kind in MEGABYTES)


def test_the_page_says_what_the_folders_hold():
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "run `python -m pipelines.pretrain.document`"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_page_owns_up_to_every_goal_that_is_missed(name):
    metrics = read_json(metrics_of(name))
    text = "\n".join(scores(name, metrics))
    assert text in PAGE.read_text(encoding="utf-8")
    found = {"": metrics} | {f" at {128 * int(d)} pixels": table for d, table in metrics.get("detail", {}).items()}
    found |= {" of clips": metrics["clips"]} if "clips" in metrics else {}
    for where, table in found.items():
        for style in STYLES:
            assert table[style]["goals"] == reached(table[style])
            for goal, met in table[style]["goals"].items():
                said = any(f"`{goal}` in {style} style{where}{end}" in text for end in (",", "."))
                assert met != said, (goal, style, where)


@pytest.mark.parametrize(
    ("name", "style", "detail", "count"),
    [("micro-llava", "train", 1, 60), ("micro-llava", "bench", 1, 60), ("micro-internvl", "bench", 2, 24)],
)
def test_it_still_sees(name, style, detail, count):
    """A sample of fresh scenes, so that the file beside the weights is not all there is to believe."""
    said = read_json(metrics_of(name))
    said = (said if detail == 1 else said["detail"][str(detail)])[style]
    fit = (sample_scene(seed, "train", style, 128 * detail, detail) for seed in range(800))
    predictor = QuestionOnly(question for scene in fit for question in ask_all(scene))
    seeds = range(100_000, 100_000 + count)
    scenes = [sample_scene(seed, "validation", style, 128 * detail, detail) for seed in seeds]
    found = accuracies(examine(load_mllm(PRETRAINED / "mllm" / name), scenes, predictor))
    noise = 3 * np.sqrt(0.25 / found["questions"])  # three deviations of a share, at the worst
    assert found["all"] == pytest.approx(said["all"], abs=noise)
    assert found["other_image"] <= found["question_only"] + MARGIN + 2 * noise
    if detail == 1:
        guide = load_tower(PRETRAINED / "clip/micro")
        assert attention_auc(guide, scenes) == pytest.approx(said["attention_auc"], abs=0.03)


def test_the_guide_is_the_tower_of_the_mllm():
    guide, seen = load_tower(PRETRAINED / "clip/micro"), load_tower(MLLM)
    pixels = guide.geometry.pixels([np.full((128, 128, 3), 90, np.uint8)])
    assert np.allclose(guide.patch_embed(pixels).detach(), seen.patch_embed(pixels).detach(), atol=1e-4)
