"""Where codec, guide and adapter are run: on the GPU where there is one, which is only pretended here."""

from functools import partial

import numpy as np
import pytest
import torch

from components.adapter import AdapterConfig, LatentAdapter
from components.codec import Codec
from components.evaluation import coding, compare, evaluate, step_rate, step_task
from components.evaluation.known_maps import KnownMaps
from components.mllm.showing import in_parts
from components.paths import PRETRAINED
from components.placing import best_device
from components.step_inputs import Params, StepInputs
from components.training import adapter_stage
from components.vision import Geometry
from components.vision.tiling import Mosaic

CODEC = PRETRAINED / "codec/elic-micro"
MLLM = PRETRAINED / "mllm/micro-llava"


@pytest.mark.parametrize(("there", "expected"), [(False, "cpu"), (True, "cuda")])
def test_the_best_device_is_a_gpu_where_there_is_one(monkeypatch, there, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert best_device() == torch.device(expected)


class Placed(Exception):
    """Raised in place of loading, with the device that was asked for."""


def load(_, device="cpu", **others):
    raise Placed(str(device))


@pytest.mark.parametrize(
    ("module", "start"),
    [
        (evaluate, lambda inputs: evaluate.Models(CODEC, MLLM, None, CODEC, CODEC).receiver()),
        (step_task, lambda inputs: step_task._asker(inputs, {})),
        (compare, lambda inputs: compare.Contest(CODEC, MLLM, "one", None, CODEC, {}, [0]).coder()),
        (adapter_stage, adapter_stage.AdapterStage),
    ],
)
def test_a_codec_is_placed(monkeypatch, tmp_path, module, start):
    monkeypatch.setattr(Codec, "from_pretrained", load)
    monkeypatch.setattr(module, "best_device", lambda: torch.device("cuda"))
    models = {"codec": {"elic": {"weights": str(CODEC)}}, "mllm": {"one": {"weights": str(MLLM)}}}
    inputs = StepInputs(params=Params(models), work=tmp_path, out=tmp_path, codec="elic", mllm="one")
    with pytest.raises(Placed, match="cuda"):
        start(inputs)


def test_the_guide_of_the_stage_rate_is_placed(monkeypatch, tmp_path):
    monkeypatch.setattr(step_rate, "best_device", lambda: torch.device("cuda:1"))
    settings = {"tower": str(PRETRAINED / "clip/micro"), "layers": [0], "grid": 4, "k": 0.5, "levels": 3}
    inputs = StepInputs(params=Params({"guidance": settings}), work=tmp_path, out=tmp_path)
    guide = step_rate._guide(inputs)
    assert guide._device == "cuda:1"
    known = {key: value for key, value in settings.items() if key != "tower"}
    on_cpu, other = (coding.load_guide(settings["tower"], **known, device=device) for device in ("cpu", "cuda"))
    assert guide.identity == other.identity != on_cpu.identity


def test_maps_are_made_once_for_all_qualities(monkeypatch):
    seen = []

    def made(tower, pictures, **_):
        seen.append(len(pictures))
        return [np.full((4, 4), int(picture.flat[0]) % 3 - 1, np.int8) for picture in pictures]

    monkeypatch.setattr("components.codec.guidance.guide", made)
    plain = coding.load_guide(PRETRAINED / "clip/micro", layers=[0], grid=4, k=0.5)
    guide = KnownMaps(plain)
    assert guide.identity == plain.identity
    pictures = [np.full((32, 32, 3), value, np.uint8) for value in range(4)]
    first = guide(pictures[:3])
    assert all(map(np.array_equal, guide(pictures[:3]), first))
    assert all(map(np.array_equal, guide(pictures[2::-1]), first[::-1]))
    assert seen == [3]
    guide(pictures)
    assert seen == [3, 4]


def test_an_adapter_says_the_same_in_parts():
    torch.manual_seed(2)
    adapter = LatentAdapter(AdapterConfig(latent_channels=6, feature_dim=8, grid=(4, 4), width=16), silent=False).eval()
    framing = Mosaic(Geometry((0.5,) * 3, (0.5,) * 3, exact_size=(32, 32)), 1, 4).frame((64, 64))
    latents, qualities = torch.randn(5, 6, 4, 4), torch.randint(0, 10, (5, 4, 4))
    sample = partial(framing.sample_latent, image_size=(64, 64), grid=(4, 4))
    with torch.inference_mode():
        whole, parts = (in_parts(adapter, latents, qualities, sample, at_once) for at_once in (5, 2))
        alone = adapter(latents[3:4], qualities[3:4], sample)
    assert whole.shape == (5, len(framing.windows), 16, 8) and len(framing.windows) > 1
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(whole[3], alone)
