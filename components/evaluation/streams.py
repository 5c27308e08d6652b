"""The files that went over the wire, kept in one zip: METHOD/QUALITY/STYLE/IMAGE.cotam, .jpg or .webp.

Rates are measured on these files and scores on what is decoded from them; nothing else passes from the encoding step to
the evaluation. The zip stores them as they are, with no dates, so that equal files make equal archives.
"""

import zipfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from components.errors import CotamError
from components.files import atomic_file

COTAM = "cotam"
JPEG, WEBP = "jpeg", "webp"
SUFFIXES = {JPEG: "jpg", WEBP: "webp"}


@dataclass(frozen=True, order=True)
class Setting:
    """A method (`clean`, the codec's name, `cotam`, `jpeg`, `webp`) at a quality, as both are written in results."""

    method: str
    quality: str


CLEAN = Setting("clean", "-")

Files = dict[str, bytes]
"""Image name -> file."""


def write_streams(path: Path, coded: Iterable[tuple[Setting, str, Files]]) -> None:
    """Write (setting, style, files) to a zip."""
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for setting, style, files in coded:
            suffix = SUFFIXES.get(setting.method, "cotam")
            for image, content in files.items():
                name = f"{setting.method}/{setting.quality}/{style}/{image}.{suffix}"
                archive.writestr(zipfile.ZipInfo(name), content)


class Streams:
    """Reads what `write_streams` wrote."""

    def __init__(self, path: Path):
        """Raises CotamError: the file is missing or is no zip of streams."""
        self.path = path
        self._names: dict[tuple[Setting, str], dict[str, str]] = defaultdict(dict)
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    method, quality, style, file = name.split("/")
                    self._names[Setting(method, quality), style][Path(file).stem] = name
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise CotamError(f"{path} holds no coded benchmarks ({error}); run `dvc repro rate`.") from None

    @property
    def settings(self) -> list[Setting]:
        """What was coded, in the order in which it was written."""
        return list(dict.fromkeys(setting for setting, _ in self._names))

    def files(self, setting: Setting, style: str) -> Files:
        """Every image of a style as it was coded by a setting."""
        with zipfile.ZipFile(self.path) as archive:
            return {image: archive.read(name) for image, name in self._names[setting, style].items()}
