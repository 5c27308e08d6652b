"""Benchmark files in the layouts in which their authors publish them, made of scenes, where lmms-eval looks for them.

lmms-eval names a dataset of the Hugging Face hub; `datasets` takes a folder of that name in the working directory
before it asks the hub, and lmms-eval a folder of videos below HF_HOME.
"""

import os
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

from PIL import Image

from components.paths import ROOT
from components.scenes import render, sample_scene
from tests.videos import write_video

TASKS = ("mme", "pope", "textvqa_val", "vqav2_val", "seedbench", "mmbench_en_dev_static", "mmmu_val")
"""Of lmms-eval, whose files `write_official` writes, and `videomme`. (MMBench without its judge, a web API.)"""

FILES = {
    "mme": "lmms-lab-encoder/MME/data/test-00000-of-00001.parquet",
    "pope": "lmms-lab-encoder/POPE/data/test-00000-of-00001.parquet",
    "textvqa_val": "lmms-lab-encoder/textvqa/data/validation-00000-of-00001.parquet",
    "vqav2_val": "lmms-lab-encoder/VQAv2/data/validation-00000-of-00001.parquet",
    "seedbench": "lmms-lab-encoder/SEED-Bench/data/test-00000-of-00001.parquet",
    "mmbench_en_dev_static": "lmms-lab-encoder/MMBench/en/dev-00000-of-00001.parquet",
    "mmmu_val": "lmms-lab-encoder/MMMU/data/validation-00000-of-00001.parquet",
    "videomme": "lmms-eval/Video-MME/data/test-00000-of-00001.parquet",
}
"""Task -> the file that is written."""

_MMBENCH_CARD = """---
configs:
- config_name: en
  data_files:
  - split: dev
    path: en/dev-*
---
"""


def write_official(root: Path, images: int = 2) -> None:
    """All of `FILES` below `root`, about the first `images` pictures; of MMMU one more."""
    pictures = [Image.fromarray(render(sample_scene(seed, "test", "bench"))) for seed in range(images + 1)]
    options = {"A": "one", "B": "two", "C": "three", "D": "four"}
    numbered = list(enumerate(pictures[:images]))

    yesno = [
        {
            "question_id": f"existence/{n}.png",
            "image": picture,
            "question": f"Is there a {shape} in this image? Please answer yes or no.",
            "answer": answer,
            "category": "existence",
        }
        for n, picture in numbered
        for shape, answer in (("star", "Yes"), ("cross", "No"))
    ]
    pope = [
        row | {"id": str(n), "image_source": "scenes", "answer": row["answer"].lower(), "category": "random"}
        for n, row in enumerate(yesno)
    ]
    textvqa = [
        {"question_id": n, "image": picture, "question": "what word is shown?", "answers": ["dog"] * 10}
        for n, picture in numbered
    ]
    vqav2 = [
        {
            "question_id": n,
            "image": picture,
            "question": "What colour is the background?",
            "question_type": "what colour",
            "answer_type": "other",
            "multiple_choice_answer": "blue",
            "answers": [{"answer": "blue", "answer_confidence": "yes", "answer_id": k} for k in range(1, 11)],
            "image_id": n,
        }
        for n, picture in numbered
    ]
    seedbench = [
        {
            "answer": "B",
            **{f"choice_{letter.lower()}": text for letter, text in options.items()},
            "data_id": str(n),
            "data_type": "image",
            "question": "How many circles are there?",
            "question_id": str(n),
            "question_type_id": 5,
            "image": [picture],
            "segment": ["0", "0"],
        }
        for n, picture in numbered
    ]
    mmbench = [
        {
            "index": n,
            "question": "How many circles are there?",
            "hint": "nan",
            "answer": "A",
            **options,
            "category": "object_localization",
            "image": picture,
            "source": "scenes",
            "L2-category": "finegrained_perception (instance-level)",
            "comment": "nan",
            "split": "dev",
        }
        for n, picture in numbered
    ]
    mmmu = [
        {
            "id": f"validation_Art_{n + 1}",
            "question": "<image 1> and <image 2>: which one shows a star?",
            "options": "['the first', 'the second']",
            "explanation": "",
            **{f"image_{k}": pictures[n + k - 1] if k < 3 else None for k in range(1, 8)},
            "img_type": "['Paintings']",
            "answer": "A",
            "topic_difficulty": "Easy",
            "question_type": "multiple-choice",
            "subfield": "Drawing",
        }
        for n in range(images)
    ]
    videomme = [
        {
            "video_id": f"{n:03d}",
            "duration": "short",
            "domain": "Life Record",
            "sub_category": "Daily Life",
            "url": "",
            "videoID": f"clip{n}",
            "question_id": f"{n:03d}-1",
            "task_type": "Counting Problem",
            "question": "How many circles are there?",
            "options": [f"{letter}. {text}" for letter, text in options.items()],
            "answer": "A",
        }
        for n in range(images)
    ]
    for task, rows in {
        "mme": yesno,
        "pope": pope,
        "textvqa_val": textvqa,
        "vqav2_val": vqav2,
        "seedbench": seedbench,
        "mmbench_en_dev_static": mmbench,
        "mmmu_val": mmmu,
        "videomme": videomme,
    }.items():
        _write(root / FILES[task], rows)
    (root / "lmms-lab-encoder/MMBench/README.md").write_text(_MMBENCH_CARD)
    for row in videomme:
        path = root / f"home/videomme/data/{row['videoID']}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, 30, size=(128, 128))


def _write(path: Path, rows: list[dict]) -> None:
    from datasets import Dataset
    from datasets import Image as ImageColumn

    path.parent.mkdir(parents=True)
    data = Dataset.from_list(rows)
    for column in data.column_names:
        if column.startswith("image_") and column.removeprefix("image_").isdigit():  # also where none is there
            data = data.cast_column(column, ImageColumn())
    data.to_parquet(path)


def lmms_eval_environment(root: Path) -> dict[str, str]:
    """For an lmms-eval of its own process: its caches below `root`, and this checkout's entry points.

    `make setup` installs the entry points; where the installed project is older than this checkout, what pyproject.toml
    declares is put on the path, as an installation would.
    """
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    path = [str(ROOT)]
    if {entry.name: entry.value for entry in entry_points(group="lmms_eval.models")}.items() < declared.items():
        package = root / "installed/cotam_checkout-0.dist-info"
        package.mkdir(parents=True, exist_ok=True)
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: cotam-checkout\nVersion: 0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in declared.items())
        (package / "entry_points.txt").write_text(f"[lmms_eval.models]\n{lines}")
        path.append(str(package.parent))
    bin_folder = str(Path(sys.executable).parent)
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
        "HF_HOME": str(root / "home"),
        "HF_DATASETS_CACHE": str(root / "home/datasets"),
        "COLUMNS": "200",
    }
