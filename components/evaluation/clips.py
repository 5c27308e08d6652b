"""The videos of the evaluation, `data/benchmarks/clips`: what is asked about them, and their frames.

The folder holds videomme.parquet, in the format of Video-MME, and videos/clip-NNNNNN.apng. A clip is an animated PNG:
its frames without loss in one file. It is there where the setting `evaluation.clips` wants videos.
"""

from pathlib import Path
from typing import Any

from PIL import Image

from components.data.video import Clip, open_video
from components.errors import CotamError
from components.evaluation.streams import CLIP_BENCHMARK

FRAMES = 16
FILE = f"{CLIP_BENCHMARK}.parquet"

Document = dict[str, Any]


def clip_names(folder: Path) -> list[str]:
    """The names of the clips of a folder.

    Raises:
        CotamError: there are none.
    """
    names = sorted(path.stem for path in (folder / "videos").glob("*.apng"))
    if not names:
        raise CotamError(f"{folder} has no clips; run `dvc repro benchmarks`.")
    return names


def open_clip(folder: Path, name: str) -> Clip:
    """The frames of a clip, and when each is shown.

    Raises:
        CotamError: it is not there, or damaged.
    """
    return open_video(clip_file(folder, name), FRAMES)


def clip_pixels(folder: Path) -> dict[str, int]:
    """Clip -> the pixels together of those frames that `open_clip` gives, read off the files' heads.

    Raises:
        CotamError: there are no clips, or one is damaged.
    """
    found = {}
    for name in clip_names(folder):
        file = clip_file(folder, name)
        try:
            with Image.open(file, formats=["PNG"]) as clip:
                found[name] = min(clip.n_frames, FRAMES) * clip.width * clip.height
        except OSError as error:
            raise CotamError(f"{file} cannot be read ({error}); run `dvc repro benchmarks`.") from None
    return found


def clip_questions(folder: Path) -> list[Document]:
    """The documents of a folder, in their order, as `asked_document` has them.

    Raises:
        CotamError: the file is missing or damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        return [asked_document(row) for row in pyarrow.parquet.read_table(folder / FILE).to_pylist()]
    except (OSError, pyarrow.ArrowException) as error:
        raise CotamError(f"{folder / FILE} cannot be read ({error}); run `dvc repro benchmarks`.") from None


def asked_document(document: Document) -> Document:
    """A document with the fields besides that those of the six benchmarks have: what is resampled is the clip."""
    names = {"id": "question_id", "image": "videoID", "category": "task_type"}
    return document | {name: document[column] for name, column in names.items()}


def clip_file(folder: Path, name: str) -> Path:
    """Where a clip lies."""
    return folder / "videos" / f"{name}.apng"
