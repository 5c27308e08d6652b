"""The requests of a task, asked about what one method at one quality makes of their pictures, and what that takes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.evaluation.asking import Asker
from components.evaluation.coding import Coder, header_bits
from components.evaluation.streams import CLEAN, COTAM, Setting

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance

    from components.adapter import LatentAdapter
    from components.evaluation.visuals import Shown
    from components.mllm import Mllm
    from components.mllm.showing import Picture

FRAMES = 16
"""Of a video (paper, appendix A.7)."""


@dataclass
class Answered:
    """What a setting gave.

    Attributes:
        answers: to the requests, in their order.
        units: what each request shows: a name that equal pictures share.
        sizes: name -> pixels, bits of the files, and bits of their headers, of all pictures or frames together; of
            clean ones no bits.
    """

    answers: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)


class TaskAsker(Asker):
    """A codec, an MLLM and the adapter between them, at any setting."""

    scenes = Path()

    def __init__(self, coder: Coder, mllm: "Mllm", adapter: "LatentAdapter", task_dict: dict[str, Any]):
        """`adapter` is of the coder's codec and of the MLLM; `task_dict` as `Asker` has it."""
        self.coder = coder
        self.mllm = mllm
        self.task_dict = task_dict
        self.frames = FRAMES
        self._adapter = adapter
        self._setting = CLEAN
        self._sizes: dict[str, tuple[int, int, int]] = {}

    @property
    def adapter(self) -> "LatentAdapter | None":
        """It speaks for cotam alone."""
        return self._adapter if self._setting.method == COTAM else None

    def answer(self, requests: "Sequence[Instance]", setting: Setting) -> Answered:
        """Ask everything.

        Raises:
            CotamError: as `Asker.ask`.
        """
        self._setting, self._sizes = setting, {}
        found = Answered(sizes=self._sizes)
        for _, shown, answer in self.ask(requests):
            found.answers.append(answer)
            found.units.append(_name(shown))
        return found

    def received(self, shown: "Sequence[Shown]") -> "list[list[Picture]]":
        """Pictures as the setting brings them; what their files weigh is noted."""
        groups = [list(one.pictures) for one in shown]
        if self._setting == CLEAN:
            for one in shown:
                self._sizes[_name(one)] = one.pixels, 0, 0
            return groups
        pictures = dict(enumerate(picture for group in groups for picture in group))
        files = self.coder.encode(self._setting, {str(place): picture for place, picture in pictures.items()})
        for_cotam = self._setting.method == COTAM
        decoded = self.coder.decode(files) if for_cotam else self.coder.pictures(self._setting, files)
        places = iter(map(str, pictures))
        received = []
        for one in shown:
            names = [next(places) for _ in one.pictures]
            bits = 8 * sum(len(files[name]) for name in names)
            heads = sum(header_bits(self._setting, files[name]) for name in names)
            self._sizes[_name(one)] = one.pixels, bits, heads
            received.append([decoded[name] for name in names])
        return received


def _name(shown: "Shown") -> str:
    return hashlib.sha256(repr(shown.key).encode()).hexdigest()[:16]
