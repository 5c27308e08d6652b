"""`lmms-eval --model cotam`: an MLLM that sees the pictures and videos of any task through a codec.

    lmms-eval --model cotam --model_args mllm=llava-hf/llava-1.5-7b-hf,codec=...,adapter=...,quality=4 --tasks mme,pope

Registered by the entry point group `lmms_eval.models` (`lmms_plugin.py`). Every picture is coded once
(`coding_cache.py`), however many questions, tasks and MLLMs ask about it.
"""

import hashlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
from accelerate import Accelerator
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.utils import simple_parse_args_string
from numpy.typing import NDArray

from components.errors import CotamError
from components.evaluation.asking import Asker
from components.evaluation.coded import Coded, gather_coded, summed
from components.evaluation.coding import load_guide
from components.evaluation.coding_cache import CodingCache
from components.evaluation.layouts import CheckedTasks
from components.evaluation.lmms_failures import exits, fails, watch
from components.files import write_json
from components.paths import CODING_CACHE, PRETRAINED, Paths
from components.placing import check_device

if TYPE_CHECKING:
    from components.evaluation.visuals import Shown
    from components.mllm.showing import Picture

NONE = "none"


class _Tasks(CheckedTasks):
    __setitem__ = exits(CheckedTasks.__setitem__)


class CotamModel(Asker, lmms):
    """lmms-eval's model interface around a codec, an MLLM and, if there is one, an adapter.

    Args (of --model_args):
        mllm: a folder or a Hugging Face name.
        codec: a folder, or models:/NAME@champion; `none`: the pictures as they are.
        adapter: of this codec and this MLLM; without one the MLLM sees decoded pixels alone.
        quality: 0 (fewest bits) to 9.
        guidance: whether a CLIP guides the codec (`guidance` in params.yaml); by default with an adapter only.
        frames: taken of a video, spread evenly.
        cache: the folder where streams are kept; `none`: everything is coded.
        scenes: where the tasks over scenes find the pictures and clips that they name.
        report: a JSON file for what all processes coded: bits, pixels, pictures encoded and found in the cache.
        dtype, device_map: of the MLLM, as `load_mllm` takes them.
        batch_size: questions at a time; lmms-eval's own option --batch_size.
        device, max_batch_size: lmms-eval's options; the former places codec, guide and adapter.

    Exits with one sentence where something is missing, damaged, or does not fit.
    """

    @exits
    def __init__(
        self,
        mllm: str = str(PRETRAINED / "mllm/micro-llava"),
        codec: str = str(PRETRAINED / "codec/elic-micro"),
        adapter: str | None = None,
        quality: int = 4,
        guidance: bool | None = None,
        frames: int = 16,
        cache: str = str(CODING_CACHE),
        scenes: str = str(Paths().benchmarks),
        report: str | None = None,
        dtype: str | None = None,
        device_map: str | None = None,
        batch_size: int | str = 64,
        device: str | None = None,
        max_batch_size: int | None = None,
        **unknown: Any,
    ):
        super().__init__()
        if unknown:
            raise CotamError(f"There is no model argument {next(iter(unknown))!r}; see docs/lmms-eval.md.")
        self.task_dict = _Tasks()
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device  # lmms-eval counts the processes' requests there
        self.quality, self.frames = _number("quality", quality, 0), _number("frames", frames, 1)
        self.scenes, self.report = Path(scenes), report
        if guidance is not None and type(guidance) is not bool:  # 1 is in (True, False)
            raise CotamError(f"guidance is {guidance!r}; write guidance=True or guidance=False.")
        self.codec = self.adapter = self.guide = self.cache = None
        if codec == NONE and adapter:
            raise CotamError("An adapter reads a decoded latent; name a codec, or leave out the adapter.")
        from components.mllm import load_mllm

        if self._world_size > 1 and device_map is None and self.accelerator.device.type == "cuda":
            device_map = {"": self.accelerator.local_process_index}  # every process has a card of its own
        if device is not None:
            check_device(device, "--device")
        self.mllm = load_mllm(mllm, _batch(batch_size), dtype=dtype, device_map=device_map)
        if codec != NONE:
            self._load(codec, adapter, guidance, cache, device)
        self.coded: Coded = {}

    @classmethod
    @partial(fails, ours=lambda _: True)
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Self:
        """How lmms-eval's commands make the model, before they load the tasks."""
        watch(cls)
        try:
            chosen = simple_parse_args_string(arg_string)
        except ValueError:
            raise CotamError(f"--model_args is {arg_string!r}; write NAME=VALUE,NAME=VALUE.") from None
        for name, value in (additional_config or {}).items():
            if name in chosen and value is not None:
                raise CotamError(f"There is no model argument {name!r}; use lmms-eval's own option --{name}.")
        return super().create_from_arg_string(arg_string, additional_config)

    def _load(self, codec: str, adapter: str | None, guidance: bool | None, cache: str, device: str | None) -> None:
        """Everything that stands between a picture and the MLLM."""
        from components import config
        from components.adapter import LatentAdapter
        from components.codec import Codec
        from components.mllm.showing import check_fit
        from components.weights import resolve

        self.codec = Codec.from_pretrained(codec, device=device or self.accelerator.device)
        if not 0 <= self.quality < self.codec.config.qualities:
            raise CotamError(
                f"There is no quality {self.quality}; choose 0 (fewest bits) to {self.codec.config.qualities - 1}."
            )
        if adapter:
            self.adapter = LatentAdapter.load(resolve(adapter)).to(self.codec.device)
            check_fit(self.adapter, self.mllm.tower, self.codec.config.latent_channels, self.codec.model_id)
        if guidance if guidance is not None else bool(adapter):
            self.guide = load_guide(**config.load().guidance.model_dump(), device=self.codec.device)
        self.cache = None if cache == NONE else CodingCache(cache)

    @exits
    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer every request, greedily; requests about one picture or video see it once."""
        answers: list[str] = []
        for request, _, answer in self.ask(requests):
            self.cache_hook.add_partial("generate_until", request.args[:2], answer)
            answers.append(answer)
        return answers

    @exits
    def clean(self) -> None:
        """Say what was coded, before lmms-eval frees the models; it calls this once, in every process."""
        if self.codec is not None:
            self._say()
        super().clean()

    def received(self, shown: "Sequence[Shown]") -> "list[list[Picture]]":
        """Their pictures, encoded and decoded."""
        pictures = [one for group in shown for one in group.pictures]
        received = iter(pictures if self.codec is None else self.codec.decode(self._encode(pictures)))
        return [[next(received) for _ in group.pictures] for group in shown]

    def _encode(self, pictures: list[NDArray[np.uint8]]) -> list[bytes]:
        if self.cache is None:
            levels = None if self.guide is None else self.guide(pictures)
            streams = self.codec.encode(pictures, self.quality, levels)
        else:
            streams = self.cache.encode(self.codec, pictures, self.quality, self.guide)
        for picture, stream in zip(pictures, streams, strict=True):
            name = hashlib.sha256(stream).digest()
            self.coded[name] = 8 * len(stream), picture.shape[0] * picture.shape[1]
        return streams

    def _say(self) -> None:
        """What all processes have coded, on standard error and in the report."""
        coded, counts = gather_coded(self.coded, self.device), ""
        if not coded:
            return
        bits, pixels = map(sum, zip(*coded.values(), strict=True))
        found = {"pictures": len(coded), "bits": bits, "pixels": pixels, "bpp": bits / pixels}
        if self.cache:
            found["encoded"], found["from_cache"] = summed([self.cache.encoded, self.cache.found], self.device)
            counts = f"; {found['encoded']} encoded, {found['from_cache']} found in the cache"
        if self.rank:
            return
        said = f"cotam: {len(coded)} distinct streams at quality {self.quality}, {found['bpp']:.4f} bits per pixel"
        print(said + counts, file=sys.stderr)
        if self.report:
            try:
                write_json(self.report, found)
            except OSError as error:
                raise CotamError(f"The report {self.report} cannot be written ({error.strerror}).") from error

    @exits
    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Not a way in which this model is asked."""
        raise CotamError("cotam generates answers; choose tasks whose output_type is generate_until.")

    @exits
    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        """Not a way in which this model is asked."""
        raise CotamError("cotam answers in one round; choose tasks whose output_type is generate_until.")


def _number(name: str, said: Any, least: int) -> int:
    """A whole number of the model arguments, which lmms-eval hands over as text where it does not look like one."""
    if type(said) is not int or said < least:
        raise CotamError(f"{name} is {said!r}; give a whole number from {least} on.")
    return said


def _batch(size: int | str) -> int:
    """Of --batch_size, which lmms-eval hands over as it was written."""
    if str(size).startswith("auto"):
        return 64
    if not str(size).isdecimal() or int(size) < 1:
        raise CotamError(f"--batch_size is {size!r}; give auto, or a whole number from 1 on.")
    return int(size)
