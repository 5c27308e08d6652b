r"""Train a variable-rate codec at all its rates at once (paper, A.3; design, section 5).

    python -m pipelines.pretrain.train_codec --images scenes.npy --out pretrained/codec/elic-micro --steps 6000
    python -m pipelines.pretrain.train_codec --images scenes.npy --out pretrained/codec/dcae-micro --steps 6000 \
        --architecture dcae

Every image of a batch has a quality of its own, some a map of qualities. The loss at a place is w (D + lambda R), where
w = lambda ** -0.6 only balances the rates against each other: at a given lambda both terms shrink about so.
What happens in step n is a function of the seed and n alone, so that a run resumed from its checkpoint goes on as it
would have.
"""

import argparse
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.codec.architectures import build, read_config
from components.codec.config import LAMBDAS, STRIDE, CodecConfig, DcaeConfig
from components.codec.folder import load_codec, save_codec
from components.codec.gains import spread_map
from components.codec.natural import natural_images
from components.codec.start import start_from_principal_components
from components.codec.transforms import VariableRate
from components.files import atomic_dir, write_json
from pipelines.pretrain.passes import Passes, Step
from pipelines.pretrain.running import add_device

Drawn = TypeVar("Drawn")

BALANCE = 0.6
MICRO = {"elic": CodecConfig, "dcae": DcaeConfig}  # their defaults
AHEAD = 4  # batches that are drawn while others are trained on


class Pictures:
    """Scenes and dead leaves on the training's device, and batches of them.

    Args:
        scenes, leaves: uint8 (N, side, side, 3).
        device: where batches are cut out; what is drawn does not depend on it.
    """

    def __init__(self, scenes: NDArray, leaves: NDArray, device: torch.device):
        self.of_scenes, self.side = (0, len(scenes)), scenes.shape[1]
        self.of_leaves = (len(scenes), len(leaves))  # first, count
        self.all_NHW3 = torch.from_numpy(np.concatenate([scenes, leaves])).to(device)

    def draw(self, rng: np.random.Generator, share: float, batch: int) -> "Places":
        """Scenes and, for `share` of them, dead leaves; flipped and shifted by chance."""
        numbers, rows, columns = [], [], []
        for _ in range(batch):
            first, count = self.of_leaves if rng.random() < share else self.of_scenes
            numbers.append(first + rng.integers(count))
            mirrored, upside_down = rng.random() < 0.5, rng.random() < 0.2
            top, left = rng.integers(0, 17, 2)
            rows.append(_places(self.side, top - 8, upside_down))
            columns.append(_places(self.side, left - 8, mirrored))
        return Places(np.array(numbers)[:, None, None], np.stack(rows)[:, :, None], np.stack(columns)[:, None])

    def cut(self, places: "Places") -> Tensor:
        """(B, 3, H, W) in [0, 1]."""
        device = self.all_NHW3.device
        n_B11, rows_BH1, columns_B1W = (torch.from_numpy(index).to(device) for index in places)
        batch_B3HW = self.all_NHW3[n_B11, rows_BH1, columns_B1W].permute(0, 3, 1, 2).float() / 255
        return batch_B3HW.contiguous(memory_format=torch.channels_last)


class Places(NamedTuple):
    """Which pixels make a batch: numbers (B, 1, 1), rows (B, H, 1) and columns (B, 1, W), int64."""

    numbers: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def _places(side: int, shift: int, flipped: bool) -> NDArray[np.int64]:
    """Rows (or columns) of a picture that was flipped, then shifted with its border reflected."""
    places = np.abs(np.arange(side) + shift)
    places = np.where(places >= side, 2 * (side - 1) - places, places)
    return side - 1 - places if flipped else places


def draw_maps(rng: np.random.Generator, qualities: list[int], batch: int, size: int, share: float) -> Tensor:
    """Qualities (B, size, size) int64: each image at one of `qualities`, evenly; `share` of them vary by +-1 inside."""
    rounds = -(-batch // len(qualities))
    base = np.concatenate([rng.permutation(qualities) for _ in range(rounds)])[:batch]
    maps = np.repeat(base, size * size).reshape(batch, size, size)
    for i in np.flatnonzero(rng.random(batch) < share):
        cells = int(rng.choice([2, 4, 8]))
        levels = rng.choice([-1, 0, 1], (cells, cells), p=[0.25, 0.45, 0.3])
        places = np.arange(size) * cells // size
        maps[i] = np.clip(maps[i] + levels[places][:, places], min(qualities), max(qualities))
    return torch.from_numpy(maps).long()


@cache
def _prices(lambdas: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Every quality's lambda and weight, (Q,) each. Kept: a graph cannot record a copy from the host."""
    lambdas_Q = torch.tensor(lambdas, device=device)
    return lambdas_Q, (lambdas_Q / lambdas_Q[0]) ** -BALANCE


def rate_distortion(model: VariableRate, x_B3HW: Tensor, maps_BHW: Tensor) -> Step:
    """Forward pass and loss."""
    out = model(x_B3HW, maps_BHW)
    lambdas, weight = _prices(tuple(model.config.lambdas), x_B3HW.device)
    pixels = x_B3HW.shape[-2] * x_B3HW.shape[-1]

    error_BHW = (out["x_hat"] - x_B3HW).square().mean(1)
    bits_y = -out["likelihoods"]["y"].log2().sum(1)
    bits_z = -out["likelihoods"]["z"].log2().sum(1)
    maps_z = model.entropy.hyper_map(maps_BHW)
    priced = (weight * lambdas)[maps_BHW].mul(bits_y).sum((1, 2)) + (weight * lambdas)[maps_z].mul(bits_z).sum((1, 2))
    distortion = (spread_map(weight[maps_BHW], STRIDE) * error_BHW).mean((1, 2))
    bpp = (bits_y.sum((1, 2)) + bits_z.sum((1, 2))) / pixels
    return Step((distortion + priced / pixels).mean(), error_BHW.mean((1, 2)).detach(), bpp.detach())


class Run:
    """Weights, their running mean, the optimizer and the clock: all that a checkpoint holds."""

    def __init__(self, model: VariableRate, rate: float):
        self.model, self.step, self.seconds, self.usual_norm = model, 0, 0.0, 0.0
        self.optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        self.mean = {name: p.detach().clone() for name, p in model.named_parameters()}

    def update(self) -> None:
        """One optimizer step. A gradient four times longer than usual is cut: one bad batch once cost 500 steps."""
        limit = 4 * self.usual_norm or 1.0
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        if np.isfinite(norm):
            self.optimizer.step()
            self.usual_norm += (min(norm, limit) - self.usual_norm) * max(0.02, 1 / (self.step + 1))
            self._average()
        self.step += 1

    def _average(self) -> None:
        """Move the running mean towards the weights."""
        keep = min(0.999, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.values()), list(self.model.parameters()), 1 - keep)

    def save(self, folder: Path) -> None:
        """Write everything needed to go on."""
        tensors = {f"mean.{name}": t for name, t in self.mean.items()}
        for name, p in self.model.named_parameters():
            tensors[f"model.{name}"] = p.detach()
            for key in ("exp_avg", "exp_avg_sq"):
                if p in self.optimizer.state:
                    tensors[f"{key}.{name}"] = self.optimizer.state[p][key]
        with atomic_dir(folder) as temporary:
            save_file({name: t.contiguous() for name, t in tensors.items()}, temporary / "state.safetensors")
            config = self.model.config.model_dump(mode="json")
            clock = {"step": self.step, "seconds": self.seconds, "usual_norm": self.usual_norm}
            write_json(temporary / "state.json", clock | {"config": config})

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint of the same architecture."""
        state = json.loads((folder / "state.json").read_text())
        self.step, self.seconds, self.usual_norm = state["step"], state["seconds"], state.get("usual_norm", 0.0)
        tensors = load_file(folder / "state.safetensors")
        for name, p in self.model.named_parameters():
            p.data.copy_(tensors[f"model.{name}"])
            self.mean[name] = tensors[f"mean.{name}"].to(p.device, copy=True)
            if f"exp_avg.{name}" in tensors:
                moments = {key: tensors[f"{key}.{name}"].to(p.device, copy=True) for key in ("exp_avg", "exp_avg_sq")}
                self.optimizer.state[p] = {"step": torch.tensor(float(self.step)), **moments}

    def publish(self, folder: Path) -> None:
        """Write the codec's folder with the running mean of the weights."""
        weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.model.load_state_dict(self.mean, strict=False)
        save_codec(folder, self.model)
        self.model.load_state_dict(weights, strict=False)


class Meter:
    """Running PSNR and rate of every quality, over images of one quality only. Read when it is printed."""

    def __init__(self, qualities: int):
        self.mse, self.bpp, self.unread = [None] * qualities, [None] * qualities, []

    def add(self, maps_BHW: Tensor, step: Step) -> None:
        self.unread.append((maps_BHW, step.mse_B, step.bpp_B))

    def _read(self) -> None:
        for maps_BHW, mse_B, bpp_B in self.unread:
            for quality_map, mse, bpp in zip(maps_BHW, mse_B.tolist(), bpp_B.tolist(), strict=True):
                q = int(quality_map[0, 0])
                if (quality_map == q).all():
                    for store, value in ((self.mse, mse), (self.bpp, bpp)):
                        store[q] = value if store[q] is None else 0.98 * store[q] + 0.02 * value
        self.unread.clear()

    def __str__(self) -> str:
        self._read()
        return "  ".join(
            f"q{q} {-10 * np.log10(mse):.2f}dB@{bpp:.3f}"
            for q, (mse, bpp) in enumerate(zip(self.mse, self.bpp, strict=True))
            if mse is not None and (q % 3 == 0)
        )


def learning_rate(peak: float, progress: float, step: int) -> float:
    """Short warm-up, then half a cosine down to a hundredth."""
    return peak * min(1, (step + 1) / 100) * (0.01 + 0.99 * (1 + np.cos(np.pi * min(progress, 1))) / 2)


def ahead(draw: Callable[[int], Drawn], first: int) -> Iterator[Drawn]:
    """draw(first), draw(first + 1), ... without end, a few of them in a thread before they are asked for."""
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(draw, first + n) for n in range(AHEAD))
        while True:
            first += 1
            waiting.append(thread.submit(draw, first + AHEAD - 1))
            yield waiting.popleft().result()


def starting_model(args: argparse.Namespace, start: Path | None, scenes: NDArray, leaves: NDArray) -> VariableRate:
    """The networks to train: those of a checkpoint (without its weights), of a codec, or a block transform."""
    if start is not None and not (start / "state.json").exists():
        return load_codec(start).train()
    if start is not None:
        return build(read_config(json.loads((start / "state.json").read_text())["config"]))
    model = build(MICRO[args.architecture]())
    sample = np.concatenate([scenes[:: max(1, len(scenes) // 384)][:384], leaves[:128]])
    start_from_principal_components(model, torch.from_numpy(sample).permute(0, 3, 1, 2).float() / 255)
    return model


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # the chain needs all of float32 (`components.codec.transforms`)
    torch.manual_seed(args.seed)
    scenes = np.load(args.images, allow_pickle=False)
    leaves = natural_images(args.leaves, args.seed, scenes.shape[1])
    pictures = Pictures(scenes, leaves, torch.device(args.device))
    qualities = list(range(len(LAMBDAS))) if args.only_quality is None else [args.only_quality]

    checkpoint = args.checkpoint or args.out.with_name(args.out.name + ".checkpoint")
    start = args.start or (checkpoint if (checkpoint / "state.json").exists() else None)
    model = starting_model(args, start, scenes, leaves)
    model.to(args.device, memory_format=torch.channels_last)
    model.fast(not args.float32)
    run = Run(model, args.rate)
    if start is not None and (start / "state.json").exists():
        run.load(start)
        print(f"resumed at step {run.step}", flush=True)

    def draw(step: int) -> tuple[Places, Tensor]:
        rng = np.random.default_rng((args.seed, step))
        places = pictures.draw(rng, args.natural, args.batch)
        return places, draw_maps(rng, qualities, args.batch, pictures.side // STRIDE, args.maps)

    passes = Passes(model, rate_distortion)
    meter, began, before = Meter(len(model.config.lambdas)), time.monotonic(), run.seconds
    for places, drawn_maps_BHW in ahead(draw, run.step):
        progress = run.step / args.steps if args.steps else run.seconds / 60 / args.minutes
        if progress >= 1:
            break
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(args.rate, progress, run.step)
        torch.manual_seed(args.seed * 1_000_003 + run.step)
        x_B3HW, maps_BHW = pictures.cut(places), drawn_maps_BHW.to(args.device)
        step = passes(x_B3HW, maps_BHW)
        run.update()
        run.seconds = before + time.monotonic() - began
        meter.add(drawn_maps_BHW, step)
        if run.step % args.every == 0:
            print(
                f"step {run.step}  {run.seconds / 60:.1f} min  {progress:.0%}  loss {step.loss:.4f}  {meter}",
                flush=True,
            )
        if run.step % 500 == 0:
            run.save(checkpoint)
            run.publish(args.out)
    run.save(checkpoint)
    run.publish(args.out)
    print(f"done at step {run.step}: {args.out}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help=".npy, uint8, (N, side, side, 3)")
    parser.add_argument("--out", type=Path, required=True, help="the codec's folder")
    parser.add_argument("--checkpoint", type=Path, help="default: OUT.checkpoint; a run goes on from it if it exists")
    parser.add_argument("--start", type=Path, help="go on from this checkpoint, or from a codec's weights")
    parser.add_argument("--architecture", choices=MICRO, default="elic", help="of a new codec (default: %(default)s)")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int)
    length.add_argument("--minutes", type=float)
    parser.add_argument("--only-quality", type=int, help="train a single-rate codec, to compare with")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--natural", type=float, default=0.15, help="share of dead leaves in a batch")
    parser.add_argument("--leaves", type=int, default=1500, help="how many of them to make")
    parser.add_argument("--maps", type=float, default=0.3, help="share of images with a map of qualities")
    parser.add_argument("--every", type=int, default=100, help="print a line every so many steps")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 anywhere (for CPUs without it)")
    add_device(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
