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


def write_official(root: Path, images: int = 2, without: str | None = None) -> None:
    """MME, POPE, MMMU and Video-MME below `root`, with two questions an image; MME without a column, if named."""
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageColumn

    pictures = [Image.fromarray(render(sample_scene(seed, "test", "bench"))) for seed in range(images + 1)]

    def write(name: str, file: str, rows: list[dict]) -> None:
        features = {
            key: ImageColumn() if key.startswith("image") and key != "image_source" else Value("string")
            for key in rows[0]
        }
        features |= {key: List(Value("string")) for key, value in rows[0].items() if isinstance(value, list)}
        (root / "lmms-lab-encoder" / name).mkdir(parents=True, exist_ok=True)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        folder = root / (name if "/" in name else f"lmms-lab-encoder/{name}") / "data"
        folder.mkdir(parents=True)
        Dataset.from_list(rows, Features(features)).to_parquet(folder / file)

    asked = [
        {
            "question_id": f"existence/{n}.png",
            "image": picture,
            "question": f"Is there a {shape} in this image? Please answer yes or no.",
            "answer": answer,
            "category": "existence",
        }
        for n, picture in enumerate(pictures[:images])
        for shape, answer in (("star", "Yes"), ("cross", "No"))
    ]
    mme = [{key: value for key, value in row.items() if key != without} for row in asked]
    write("MME", "test-00000-of-00001.parquet", mme)
    pope = [
        row | {"id": str(n), "image_source": "scenes", "answer": row["answer"].lower(), "category": "random"}
        for n, row in enumerate(asked)
    ]
    write("POPE", "test-00000-of-00001.parquet", pope)
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
    write("MMMU", "validation-00000-of-00001.parquet", mmmu)
    videos = [
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
            "options": ["A. one", "B. two", "C. three", "D. four"],
            "answer": "A",
        }
        for n in range(images)
    ]
    write("lmms-eval/Video-MME", "test-00000-of-00001.parquet", videos)
    folder = root / "home/videomme/data"
    folder.mkdir(parents=True)
    for row in videos:
        write_video(folder / f"{row['videoID']}.mp4", 30, size=(128, 128))


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
