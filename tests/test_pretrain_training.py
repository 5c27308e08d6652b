"""The recipe's trainings, each for a moment on a few scenes: what they write opens, and has learned something."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import SiglipVisionModel

from components.codec import Codec
from components.codec.folder import load_codec
from components.evaluation.clips import FRAMES
from components.mllm import load_mllm
from components.paths import PRETRAINED
from pipelines.pretrain import train_codec, train_mllm, train_tower
from pipelines.pretrain.material import Material
from pipelines.pretrain.passes import Passes
from pipelines.pretrain.render_scenes import render_array
from pipelines.pretrain.warm_start import tower_from_clip

CLIP, LLAVA = PRETRAINED / "clip/micro", PRETRAINED / "mllm/micro-llava"
ELIC, DCAE = PRETRAINED / "codec/elic-micro", PRETRAINED / "codec/dcae-micro"
MOMENT = "0.03"  # minutes
ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_A_GPU)])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for style in ("train", "bench"):
        for one in (Material(style), Material(style, 2), Material(style, 4), Material(style, frames=FRAMES)):
            count = 8 if one.views < FRAMES else 2
            render_array(folder / f"{one.name}.npy", style, "train", 0, count, one.size, one.detail, one.frames)
    return folder


@pytest.fixture
def command(monkeypatch):
    """Run a module's main with these arguments."""

    def run(module, *arguments) -> None:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        threads = torch.get_num_threads()
        AcceleratorState._reset_state(reset_partial_state=True)  # one per process, and other tests have other devices
        try:
            module.main()
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)
            torch.set_num_threads(threads)

    return run


@DEVICES
def test_a_siglip_learns_and_a_onevision_learns_behind_it(command, scenes, tmp_path, device):
    tower, mllm = tmp_path / "siglip", tmp_path / "onevision"
    command(train_tower, "siglip", "--clip", CLIP, "--scenes", scenes, "--minutes", MOMENT, "--batch", 4,
            "--device", device, "--output", tower)  # fmt: skip
    learned = SiglipVisionModel.from_pretrained(tower, dtype=torch.float16).state_dict()
    start = tower_from_clip("siglip", CLIP).half().state_dict()
    assert learned.keys() == start.keys() and not same(learned, start)

    command(train_mllm, "onevision", "--tower", tower, "--llava", LLAVA, "--scenes", scenes, "--details", 1, 2, 4,
            "--clips", 2, "--clip-weight", 2, "--minutes", MOMENT, "--batch", 4, "--device", device,
            "--output", mllm)  # fmt: skip
    found, before = (load_mllm(folder).model.model for folder in (mllm, LLAVA))
    assert same(learned, found.vision_tower.state_dict())  # it was frozen
    projector, start = (one.multi_modal_projector.state_dict() for one in (found, before))
    assert projector.keys() == start.keys() and not same(projector, start)


@DEVICES
def test_a_projector_that_knows_nothing_is_aligned_first(command, scenes, tmp_path, device, capsys):
    command(train_mllm, "--tower", CLIP, "--scenes", scenes, "--steps", 2, "--batch", 4, "--align", 3,
            "--device", device, "--output", tmp_path / "llava")  # fmt: skip
    said = capsys.readouterr().out
    assert "align 3/3" in said and [line.split(",")[0] for line in said.splitlines() if "min" in line] == ["step 2"]
    load_mllm(tmp_path / "llava")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name].half(), other[name].half()) for name in one)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("module", [train_tower, train_mllm, train_codec])
def test_a_missing_gpu_is_said_in_a_sentence(command, module, capsys):
    with pytest.raises(SystemExit) as left:
        command(module, "--device", "cuda")
    assert left.value.code == 2 and "there is no GPU that PyTorch can use" in capsys.readouterr().err


@DEVICES
def test_a_codec_goes_on_from_another(command, scenes, tmp_path, device):
    out = tmp_path / "elic"
    command(train_codec, "--images", scenes / "train.npy", "--start", ELIC, "--out", out, "--steps", 2, "--batch", 2,
            "--leaves", 2, "--device", device)  # fmt: skip
    learned, before = load_codec(out).state_dict(), load_codec(ELIC).state_dict()
    assert any(not torch.equal(learned[name], before[name]) for name in before)
    image = np.load(scenes / "bench.npy")[0]
    codec = Codec.from_pretrained(out)
    (decoded,) = codec.decode(codec.encode([image], 4))
    assert decoded.image.shape == image.shape


def drawn(seed: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and maps of qualities; the noise of a pass over them is the seed's too."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x_B3HW = torch.rand(2, 3, 64, 64, generator=generator)
    return x_B3HW.to(device), torch.randint(0, 10, (2, 4, 4), generator=generator).to(device)


def gradients_of(device: str, passes: int, codec: Path = ELIC, fast: bool = False, recorded: bool = True) -> list:
    """Of a codec's loss on some pictures, in the last of several passes."""
    model = load_codec(codec).train().to(device)
    model.fast(fast)
    step = Passes(model, train_codec.rate_distortion)
    step.refused = not recorded
    for seed in range(passes):
        step(*drawn(seed, device))
    assert (step.graph is not None) == (device == "cuda" and recorded)
    return [parameter.grad.cpu().clone() for parameter in model.parameters()]


def test_passes_do_not_add_up():
    """Gradients are those of the last batch alone."""
    model = load_codec(ELIC).train()
    train_codec.rate_distortion(model, *drawn(1, "cpu")).loss.backward()
    for found, parameter in zip(gradients_of("cpu", 2), model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)


@ON_A_GPU
@pytest.mark.parametrize("codec", [ELIC, DCAE])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("passes", [1, 3])
def test_a_graph_gives_the_gradients_of_single_kernels(codec, fast, passes):
    """In its first pass as well, before which it has been warmed up."""
    rtol, atol = (3e-2, 1e-3) if fast else (1e-3, 1e-5)
    recorded = gradients_of("cuda", passes, codec, fast)
    for found, due in zip(recorded, gradients_of("cuda", passes, codec, fast, recorded=False), strict=True):
        torch.testing.assert_close(found, due, rtol=rtol, atol=atol)
