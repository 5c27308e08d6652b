"""How long full-width ELIC takes in our hands and in CompressAI's, with the same weights, and where the time goes.

    cotam bench speed [--json]         or: python -m benchmarks.speed --pictures 4 --rounds 3

The trained micro codec, widened to full width without changing its function (benchmarks/widen.py), codes photographs
of 512 x 768 pixels at three rates: with our `encode` and `decode`, transforms fast, and with CompressAI's `compress`
and `decompress` (benchmarks/compressai_elic.py). Both ways of a pair run one after the other on the same picture, and
which goes first alternates; what counts is the ratio within pairs, of seconds and of processor seconds, as the latter
tell less of what else the machine is doing. Cold starts are whole processes: Python, imports, weights, one picture;
what it takes to make CompressAI's model of our weights is not counted.

Guidance and adapter are timed beside them with the tower of params.yaml. The paper has +2.9 % to encode and +5.2 % to
decode for ELIC (Table 2), on a GPU, with CLIP ViT-L.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from components import config
from components.environment import be_quiet, use_threads
from components.paths import ROOT
from components.progress import track

if TYPE_CHECKING:
    from benchmarks.compressai_elic import CompressaiElic
    from components.codec.codec import Codec

QUALITIES = (0, 4, 9)
SIZE = (512, 768)
WAYS = ("encode", "decode")
PAPER = {"encode": 2.9, "decode": 5.2}  # per cent that guidance and adapter add to ELIC (Table 2)
LIMITS = {"between": 45.0, "loss": 0.1, "rate": 0.5}  # dB, dB, per cent

Spent = tuple[float, float]
"""Seconds by the clock, and of the process on all processors."""


def crops(pictures: Sequence[np.ndarray], size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """The middle of each picture, enlarged to cover the size where it is smaller."""
    found = []
    for picture in pictures:
        height, width = picture.shape[:2]
        scale = max(size[0] / height, size[1] / width, 1)
        image = Image.fromarray(picture)
        if scale > 1:
            image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
        left, top = (image.width - size[1]) // 2, (image.height - size[0]) // 2
        found.append(np.array(image.crop((left, top, left + size[1], top + size[0]))))
    return found


def spend(work: Callable[[], object]) -> tuple[Spent, object]:
    """What a piece of work takes, and gives."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    # A clock of coarse ticks may not have moved.
    return (time.perf_counter() - clock, max(time.process_time() - processor, 1e-9)), result


class Stages:
    """Adds up the seconds that methods of some objects take, by stage; calls within calls count once."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = False

    def watch(self, owner: object, name: str, stage: str) -> None:
        """Time this method (or function of a module) of the owner as part of a stage, until the process ends."""
        inner = getattr(owner, name)

        def outer(*args, **kwargs):
            if self._inside:
                return inner(*args, **kwargs)
            self._inside = True
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[stage] += time.perf_counter() - start
                self._inside = False

        setattr(owner, name, outer)

    def take(self, total: float) -> dict[str, float]:
        """The stages since the last call, and what is left of the total."""
        found = dict(self.seconds)
        self.seconds.clear()
        return found | {"other": total - sum(found.values())}


def watch_ours(codec: "Codec") -> Stages:
    """Our codec's stages."""
    from components.codec import wire

    stages, exact = Stages(), codec.wire.exact
    stages.watch(codec.transforms, "analyse", "analysis")
    stages.watch(codec.transforms, "synthesize", "synthesis")
    for owner, name in ((codec.wire, "_hyper_latent"), (exact, "hyper_prior"), (exact, "side")):
        stages.watch(owner, name, "hyperprior")
    for name in ("before", "parameters_of", "units"):
        stages.watch(exact, name, "context")
    stages.watch(wire.Quantizer, "streams", "entropy coding")
    stages.watch(wire.Reader, "symbols", "entropy coding")
    return stages


def watch_theirs(model: "CompressaiElic") -> Stages:
    """CompressAI's transforms; its latent codecs mix networks and coding."""
    stages = Stages()
    stages.watch(model.g_a, "forward", "analysis")
    stages.watch(model.g_s, "forward", "synthesis")
    return stages


def compressai_ways(model: "CompressaiElic") -> tuple[Callable, Callable, Callable]:
    """compress, decompress (both with pixels outside, as ours have them), and the bytes of what lies between."""
    import torch

    def encode(picture: np.ndarray) -> dict:
        x_13HW = torch.from_numpy(picture).permute(2, 0, 1)[None].float().contiguous() / 255
        with torch.inference_mode():
            return model.compress(x_13HW)

    def decode(found: dict) -> np.ndarray:
        with torch.inference_mode():
            x_13HW = model.decompress(strings=found["strings"], shape=found["shape"])["x_hat"]
        return x_13HW[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()

    def size(found: dict) -> int:
        def count(part) -> int:
            return len(part) if isinstance(part, bytes) else sum(map(count, part))

        return count(found["strings"])

    return encode, decode, size


def warm(codec: "Codec", plain: "Codec", models: dict, pictures: Sequence[np.ndarray], rounds: int) -> list[dict]:
    """Pairs of every quality: seconds, stages, bytes, PSNR.

    Args:
        codec: ours.
        plain: the same with its transforms in float32, to say what the fast ones change.
        models: CompressAI's, by quality.
        pictures: what is coded.
        rounds: how often each picture is.
    """
    from components.evaluation.pictures import psnr

    ours, found = watch_ours(codec), []
    for quality, model in models.items():
        theirs = watch_theirs(model)
        compress, decompress, size = compressai_ways(model)
        works = {
            "encode": (compress, lambda picture, quality=quality: codec.encode([picture], quality)[0]),
            "decode": (decompress, lambda stream: codec.decode([stream])[0].image),
        }
        given = (pictures[0], pictures[0])
        for way in WAYS:  # what is only done once is done now
            given = [work(each) for work, each in zip(works[way], given, strict=True)]
        for turn, picture in enumerate(track(list(pictures) * rounds, f"Quality {quality}")):
            pair, given = {"quality": quality}, (picture, picture)
            for way in WAYS:
                ours.take(0), theirs.take(0)
                spent, results = [None, None], [None, None]
                for k in (0, 1) if turn % 2 else (1, 0):
                    spent[k], results[k] = spend(partial(works[way][k], given[k]))
                stages = {"ours": ours.take(spent[1][0]), "compressai": theirs.take(spent[0][0])}
                pair[way] = {"compressai": spent[0], "ours": spent[1], "stages": stages}
                if way == "encode":
                    pair["bytes"] = {"compressai": size(results[0]), "ours": len(results[1])}
                given = results
            images = dict(zip(("compressai", "ours"), given, strict=True))
            pair["psnr"] = {name: psnr(picture, image) for name, image in images.items()}
            pair["between"] = psnr(images["compressai"], images["ours"])
            if turn < len(pictures):
                reference = plain.decode(plain.encode([picture], quality))[0].image
                pair["between_float"] = psnr(reference, images["ours"])
                pair["between_float_and_compressai"] = psnr(reference, images["compressai"])
            found.append(pair)
    return found


def summarize(pairs: Sequence[dict]) -> dict:
    """Medians and quartiles, and whether the limits of quality and rate hold."""
    result: dict = {}
    for way in WAYS:
        clock = [pair[way]["compressai"][0] / pair[way]["ours"][0] for pair in pairs]
        processor = [pair[way]["compressai"][1] / pair[way]["ours"][1] for pair in pairs]
        result[way] = {
            "compressai_s": _middle(pair[way]["compressai"][0] for pair in pairs),
            "ours_s": _middle(pair[way]["ours"][0] for pair in pairs),
            "times_as_fast": _spread(clock),
            "times_as_fast_by_processor_time": _spread(processor),
            "stages": {who: _stages([pair[way]["stages"][who] for pair in pairs]) for who in ("ours", "compressai")},
        }
    ours, theirs = (sum(pair["bytes"][who] for pair in pairs) for who in ("ours", "compressai"))
    result["rate_percent"] = 100 * (ours / theirs - 1)
    result["psnr"] = statistics.fmean(pair["psnr"]["ours"] for pair in pairs)
    result["loss"] = statistics.fmean(pair["psnr"]["compressai"] - pair["psnr"]["ours"] for pair in pairs)
    for name in ("between", "between_float", "between_float_and_compressai"):
        values = [pair[name] for pair in pairs if name in pair]
        result[name] = {"mean": statistics.fmean(values), "least": min(values)}
    result["within_limits"] = bool(
        result["between"]["least"] > LIMITS["between"]
        and result["loss"] < LIMITS["loss"]
        and abs(result["rate_percent"]) < LIMITS["rate"]
    )
    return result


def _middle(values) -> float:
    return round(statistics.median(values), 4)


def _spread(values: list[float]) -> dict:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": round(middle, 3), "lower_quartile": round(low, 3), "upper_quartile": round(high, 3)}


def _stages(found: list[dict]) -> dict:
    names = list(dict.fromkeys(name for one in found for name in one if name != "other"))
    return {name: _middle(one.get(name, 0.0) for one in found) for name in [*names, "other"]}


def additions(codec: "Codec", pictures: Sequence[np.ndarray], quality: int) -> dict:
    """Median seconds of guidance and of the adapter beside our encode and decode, and per cent added.

    Both with what params.yaml names; the adapter with random weights, of its size.
    """
    import torch

    from benchmarks.codec import adapter_between
    from components.evaluation.coding import load_guide
    from components.vision import load_tower

    settings = config.load()
    guidance = settings.guidance
    guide = load_guide(guidance.tower, layers=guidance.layers, grid=guidance.grid, k=guidance.k)
    adapter, _ = adapter_between(codec, load_tower(guidance.tower), settings.adapter, Path("nowhere"))
    found = {name: [] for name in ("guidance", "encode", "adapter", "decode")}
    guide([pictures[0]])
    for picture in pictures:
        spent, levels = spend(lambda picture=picture: guide([picture]))
        found["guidance"].append(spent[0])
        spent, [stream] = spend(lambda picture=picture, levels=levels: codec.encode([picture], quality, levels))
        found["encode"].append(spent[0])
        spent, [decoded] = spend(lambda stream=stream: codec.decode([stream]))
        found["decode"].append(spent[0])
        with torch.inference_mode():
            latent_1CHW, map_1HW = torch.from_numpy(decoded.latent)[None], torch.from_numpy(decoded.level_map)[None]
            adapter(latent_1CHW, map_1HW)
            spent, _ = spend(lambda x=latent_1CHW, q=map_1HW: adapter(x, q))
        found["adapter"].append(spent[0])
    seconds = {name: _middle(values) for name, values in found.items()}
    added = {"encode": seconds["guidance"] / seconds["encode"], "decode": seconds["adapter"] / seconds["decode"]}
    return {"seconds": seconds, "percent": {way: round(100 * share, 2) for way, share in added.items()}}


def cold(folder: Path, quality: int, rounds: int, threads: int) -> dict:
    """Whole processes that code one picture: medians and ratios within pairs.

    Args:
        folder: what `prepare` made.
        quality: one of those prepared.
        rounds: pairs.
        threads: of every process.
    """
    spent: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for turn in track(range(rounds), f"Cold starts, quality {quality}"):
        for way in WAYS:
            pair = [0.0, 0.0]
            for k in (0, 1) if turn % 2 else (1, 0):
                who = ("compressai", "ours")[k]
                pair[k] = _process([who, way, str(folder), str(quality)], threads)
            spent[way].append(pair)
    return {
        way: {
            "compressai_s": _middle(pair[0] for pair in pairs),
            "ours_s": _middle(pair[1] for pair in pairs),
            "times_as_fast": _spread([pair[0] / pair[1] for pair in pairs]),
        }
        for way, pairs in spent.items()
    }


def _process(words: Sequence[str], threads: int) -> float:
    """Seconds of a new process that does one thing (`main` with --once), less those that it says do not count."""
    search = os.pathsep.join(path for path in (str(ROOT), os.environ.get("PYTHONPATH")) if path)
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--threads", str(threads)]
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": search}
    done = subprocess.run([*command, "--once", *words], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - start - float(done.stdout.split()[-1])


def once(who: str, way: str, folder: Path, quality: int) -> float:
    """What a cold process does: load the weights and code the one picture there.

    Returns:
        Seconds spent on what is only done for the comparison.
    """
    picture = np.load(folder / "picture.npy")
    if who == "ours":
        from components.codec.codec import Codec

        codec = Codec.from_pretrained(folder / "codec", fast=True)
        stream = folder / f"{quality}.cotam"
        if way == "encode":
            stream.write_bytes(codec.encode([picture], quality)[0])
        else:
            codec.decode([stream.read_bytes()])
        return 0.0
    import torch

    from benchmarks.compressai_elic import CompressaiElic
    from components.codec.folder import load_codec

    loaded = load_codec(folder / "codec")
    (uncounted, _), model = spend(partial(_compressai, CompressaiElic, loaded, quality))
    encode, decode, _ = compressai_ways(model)
    stream = folder / f"{quality}.strings"
    if way == "encode":
        torch.save(encode(picture), stream)
    else:
        decode(torch.load(stream, weights_only=False))
    return uncounted


def _compressai(kind: type, model, quality: int) -> "CompressaiElic":
    made = kind(model, quality).eval()
    made.update()
    return made


def prepare(folder: Path, codec_name: str, sizes: str | None, picture: np.ndarray) -> tuple["Codec", "Codec", dict]:
    """Both sides' models with one set of weights.

    Args:
        folder: where the weights and the picture go, for cold starts.
        codec_name: the trained codec.
        sizes: "full" to widen it, "as it is" not to.
        picture: what cold starts code.

    Returns:
        Our codec, the same with float32 transforms, and CompressAI's models by quality.
    """
    from benchmarks.compressai_elic import CompressaiElic
    from benchmarks.widen import widen
    from components.codec.codec import Codec
    from components.codec.folder import save_codec

    model = Codec.from_pretrained(codec_name).model
    save_codec(folder / "codec", widen(model) if sizes == "full" else model)
    codec = Codec.from_pretrained(folder / "codec", fast=True)
    plain = Codec.from_pretrained(folder / "codec")
    np.save(folder / "picture.npy", picture)
    return codec, plain, {quality: _compressai(CompressaiElic, plain.model, quality) for quality in QUALITIES}


def measure(args: argparse.Namespace) -> dict:
    """Everything that is reported."""
    from components.evaluation.pictures import photographs

    pictures = crops(list(photographs().values())[: args.pictures], (args.height, args.width))
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(Path(folder), args.codec, args.sizes, pictures[0])
        added = additions(prepared[0], pictures, QUALITIES[1])
        pairs = warm(*prepared, pictures, args.rounds)
        found = {
            str(quality): summarize([pair for pair in pairs if pair["quality"] == quality])
            | {"cold": cold(Path(folder), quality, args.cold, args.threads) if args.cold else None}
            for quality in QUALITIES
        }
    return {
        "processor": _processor(),
        "threads": args.threads,
        "size": [args.height, args.width],
        "pictures": len(pictures),
        "rounds": args.rounds,
        "load_average": os.getloadavg()[0],
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "qualities": found,
        "additions": added,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    wanted = ("avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    return f"{name} ({', '.join(flag for flag in wanted if flag in flags)})"


def _print(result: dict) -> None:
    height, width = result["size"]
    print(f"{result['processor']}, {result['threads']} threads, load {result['load_average']:.1f} at the end")
    print(f"{result['pictures']} photographs, {height} x {width}, {result['rounds']} rounds; medians, ratios of pairs")
    for quality, found in result["qualities"].items():
        print(f"\nquality {quality}: {found['psnr']:.2f} dB, {found['loss']:+.3f} dB lost to CompressAI's", end="")
        print(f", rate {found['rate_percent']:+.2f} %; between both {found['between']['mean']:.1f} dB", end="")
        print(f" (least {found['between']['least']:.1f}), ours fast and in float32", end="")
        print(f" {found['between_float']['mean']:.1f} ({found['between_float']['least']:.1f})")
        for way in WAYS:
            row = found[way]
            processor = row["times_as_fast_by_processor_time"]["median"]
            print(f"  {way}, warm: {_ratio(row)}; {processor:.2f} by processor time")
            for who, stages in row["stages"].items():
                print(f"    {who}: " + ", ".join(f"{stage} {value:.3f} s" for stage, value in stages.items()))
            if found["cold"]:
                print(f"  {way}, cold: {_ratio(found['cold'][way])}")
    print(f"\nwhat CoTAM adds at quality {QUALITIES[1]} (paper, ELIC):")
    seconds = result["additions"]["seconds"]
    for way, name in zip(WAYS, ("guidance", "adapter"), strict=True):
        added = result["additions"]["percent"][way]
        print(f"  {way}: {name} {seconds[name]:.3f} s, {added:+.1f} % ({PAPER[way]:+.1f} %)")


def _ratio(row: dict) -> str:
    ratio = row["times_as_fast"]
    spread = f"{ratio['lower_quartile']:.2f} to {ratio['upper_quartile']:.2f}"
    return f"{row['compressai_s']:.3f} s -> {row['ours_s']:.3f} s, {ratio['median']:.2f} times as fast ({spread})"


def main() -> int:
    """Measure and report."""
    settings = config.load()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", default=settings.codec["elic"].weights, help="(default: params.yaml's)")
    parser.add_argument("--sizes", choices=("full", "as it is"), default="full", help="of the networks")
    parser.add_argument("--height", type=int, default=SIZE[0], help="a multiple of 64")
    parser.add_argument("--width", type=int, default=SIZE[1], help="a multiple of 64")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="how often every picture is timed")
    parser.add_argument("--cold", type=int, default=3, help="pairs of cold starts, each way and quality")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(default: all processors)")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument("--once", nargs=4, metavar="WORD", help=argparse.SUPPRESS)
    args = parser.parse_args()
    be_quiet()
    use_threads(args.threads)
    if args.once:
        who, way, folder, quality = args.once
        print(once(who, way, Path(folder), int(quality)))
        return 0
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
