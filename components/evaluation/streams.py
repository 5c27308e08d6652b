"""The files that went over the wire, kept in one zip: METHOD/QUALITY/STYLE/IMAGE.cotam, .jpg or .webp; videos .cotamv.

Rates are measured on these files and scores on what is decoded from them; nothing else passes from the encoding step to
the evaluation. The zip stores them as they are, with no dates, so that equal files make equal archives.
"""

import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from components.errors import CotamError
from components.files import atomic_file

COTAM = "cotam"
JPEG, WEBP, AVIF = "jpeg", "webp", "avif"
SUFFIXES = {JPEG: "jpg", WEBP: "webp", AVIF: "avif"}
CLIPS = "clips"
"""What stands in the place of a style for videos, whose names are those of clips (clips.py)."""
CLIP_BENCHMARK = "videomme"
"""What is asked about them."""


@dataclass(frozen=True, order=True)
class Setting:
    """A method (`clean`, the codec's name, `cotam`, `jpeg`, ...) at a quality, as both are written in results."""

    method: str
    quality: str


CLEAN = Setting("clean", "-")

Files = dict[str, bytes]
"""Name of the image or clip -> file."""


def write_streams(path: Path, coded: Iterable[tuple[Setting, str, Files]]) -> None:
    """Write (setting, style, files) to a zip."""
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for setting, style, files in coded:
            suffix = SUFFIXES.get(setting.method, "cotamv" if style == CLIPS else "cotam")
            for image, content in files.items():
                name = f"{setting.method}/{setting.quality}/{style}/{image}.{suffix}"
                archive.writestr(zipfile.ZipInfo(name), content)


_DAMAGED = (OSError, ValueError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)
"""What zipfile raises on archives that are none, cut short, or have flipped bits."""


class Streams:
    """Reads what `write_streams` wrote."""

    def __init__(self, path: Path):
        """Raises CotamError: the file is missing, damaged, or no zip of streams."""
        self.path = path
        self._names: dict[tuple[Setting, str], dict[str, str]] = defaultdict(dict)
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    method, quality, style, file = name.split("/")
                    self._names[Setting(method, quality), style][Path(file).stem] = name
        except _DAMAGED as error:
            raise self._unusable(f"holds no coded benchmarks ({error})") from None

    def settings(self, style: str) -> list[Setting]:
        """What a style's images were coded by, in the order in which it was written."""
        return [setting for setting, coded in self._names if coded == style]

    def files(self, setting: Setting, style: str) -> Files:
        """Every image of a style as it was coded by a setting.

        Raises:
            CotamError: there are none, or one is damaged.
        """
        names = self._names.get((setting, style))
        if not names:
            raise self._unusable(f"has no images of style {style} coded by {setting.method} at {setting.quality}")
        try:
            with zipfile.ZipFile(self.path) as archive:
                return {image: archive.read(name) for image, name in names.items()}
        except _DAMAGED as error:
            raise self._unusable(f"is damaged ({error})") from None

    def check(self, style: str, images: Iterable[str]) -> None:
        """Make sure that every setting that is not a yardstick coded exactly these images, and no setting some of them.

        Raises:
            CotamError: it did not.
        """
        expected = set(images)
        learned = {setting for setting, _ in self._names if setting.method not in SUFFIXES}
        for setting in learned | set(self.settings(style)):
            if set(self._names.get((setting, style), ())) != expected:
                raise self._unusable(f"does not belong to these benchmarks (style {style})")

    def _unusable(self, what: str) -> CotamError:
        return CotamError(f"{self.path} {what}; run `dvc repro rate`.")
