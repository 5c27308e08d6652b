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
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.speed_cold import cold
from benchmarks.speed_sides import QUALITIES, compressai_ways, prepare
from benchmarks.speed_stages import spend, watch_ours, watch_theirs
from benchmarks.speed_summary import WAYS, middle, summarize
from components import config
from components.cores import cores
from components.environment import be_quiet, use_threads
from components.progress import track

if TYPE_CHECKING:
    from components.codec.codec import Codec

SIZE = (512, 768)
PAPER = {"encode": 2.9, "decode": 5.2}  # per cent that guidance and adapter add to ELIC (Table 2)


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
    guide = load_guide(**guidance.model_dump())
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
    seconds = {name: middle(values) for name, values in found.items()}
    added = {"encode": seconds["guidance"] / seconds["encode"], "decode": seconds["adapter"] / seconds["decode"]}
    return {"seconds": seconds, "percent": {way: round(100 * share, 2) for way, share in added.items()}}


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
            print(f"  {way}, warm: {_ratio(row)}")
            processor = row["times_as_fast_by_processor_time"]
            theirs, ours = row["compressai_processor_s"], row["ours_processor_s"]
            print(f"    by processor time: {theirs:.3f} s -> {ours:.3f} s, {_spread(processor)}")
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
    return f"{row['compressai_s']:.3f} s -> {row['ours_s']:.3f} s, {_spread(row['times_as_fast'])}"


def _spread(ratio: dict) -> str:
    return f"{ratio['median']:.2f} times as fast ({ratio['lower_quartile']:.2f} to {ratio['upper_quartile']:.2f})"


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
    parser.add_argument("--threads", type=int, default=cores(), help="(default: all processors)")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    use_threads(args.threads)
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
