"""How much longer CoTAM takes than the codec alone, and how many bits the codec spends beside JPEG and WebP.

    cotam bench codec [--json]         or: python benchmarks/codec.py --scenes 96 --rounds 5

Time: single pictures, both ways in turns, in alternating order; what counts is the ratio within pairs. Encoding is from
the picture to its file, guidance included; decoding from the file to what the MLLM's tower is shown, adapter included
(paper, Table 2: +2.9 % and +5.2 %, on a GPU and with networks a hundred times larger).
Rate: scenes of both styles that no codec was trained on, and photographs. Headers are left out, as on a small picture
they say nothing about a format's coding: bits per pixel at equal PSNR, and BD-rates by the rules of
components/evaluation/bd_rate.py.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components import config
from components.baselines import conventional
from components.codec.container import header_bytes
from components.environment import be_quiet, use_threads
from components.errors import CotamError
from components.evaluation.bd_rate import Curve, bd_rate
from components.evaluation.coding import Guide, load_guide
from components.evaluation.pictures import Pictures, photographs, psnr
from components.paths import CHECKOUT
from components.progress import track
from components.scenes import render, sample_scene

if TYPE_CHECKING:
    from components.adapter import LatentAdapter
    from components.codec import Codec
    from components.mllm import Mllm
    from components.vision import Tower

QUALITIES = range(10)
TIMED_AT = 4
COMPARED_AT = (0, 2, 4, 6, 8)
JPEG_QUALITIES = (1, 5, 10, 20, 35, 50, 75, 85, 92, 97)
WEBP_QUALITIES = (0, 5, 10, 20, 35, 50, 75, 85, 92, 97)

UNTRAINED = "with random weights, as no run has trained one of this size; its time does not depend on them"
MAXIMUM_OVERHEAD = 10  # per cent; the rule for C16 in docs/decisions.md

Way = tuple[Callable[[np.ndarray], bytes], Callable[[bytes], list]]
"""From a picture to its file, and from the file to the views that an MLLM is shown."""
Pair = tuple[float, float]
"""Seconds of the codec alone and of CoTAM."""


def measure(scenes: int, rounds: int, codec_name: str, mllm_name: str) -> dict:
    """Everything that is reported.

    Args:
        scenes: how many of each style.
        rounds: how often every photograph is timed.
        codec_name: as `Codec.from_pretrained` takes it.
        mllm_name: a folder or a name, as params.yaml gives it.
    """
    from components.codec import Codec
    from components.mllm import load_mllm

    settings = config.load()
    guidance = settings.guidance
    codec, mllm = Codec.from_pretrained(codec_name), load_mllm(mllm_name)
    guide = load_guide(**guidance.model_dump())
    trained = CHECKOUT.joint(settings.codecs[0], settings.mllms[0]) / "adapter"
    adapter, is_trained = adapter_between(codec, mllm.tower, settings.adapter, trained)
    ways = plain(codec, mllm), cotam(codec, mllm, guide, adapter)
    sets = {"photographs": photographs()} | {
        f"scenes, {style}": {str(i): render(sample_scene(i, "validation", style)) for i in range(scenes)}
        for style in ("bench", "train")
    }
    timed = {"photographs": list(sets["photographs"].values()) * rounds}
    timed["scenes, bench"] = list(sets["scenes, bench"].values())[: 8 * rounds]
    spent = {name: times(ways, pictures, name) for name, pictures in timed.items()}
    return {
        "codec": codec.model_id,
        "adapter": str(trained.relative_to(CHECKOUT.root)) if is_trained else None,
        "scenes": scenes,
        "rounds": rounds,
        "time": spent,
        "c16": {name: verdict(found) for name, found in spent.items()},
        "rate": {name: rates(codec, pictures, name) for name, pictures in sets.items()},
    }


def adapter_between(
    codec: "Codec", tower: "Tower", sizes: config.Adapter, trained: Path
) -> tuple["LatentAdapter", bool]:
    """The adapter to time, and whether it is a trained one.

    Args:
        codec, tower: what it stands between.
        sizes: its width and heads.
        trained: a folder whose adapter is taken if it is there, of this version, was trained for these, and has these
            sizes; else one is made up, which takes as long.
    """
    from components.adapter import LatentAdapter
    from components.mllm.showing import check_fit
    from components.training.adapter_stage import adapter_config

    wanted = adapter_config(codec, tower, sizes)
    with contextlib.suppress(CotamError):
        adapter = LatentAdapter.load(trained)
        check_fit(adapter, tower, codec.config.latent_channels, codec.model_id)
        if adapter.config.model_copy(update={"codec": None, "tower": None}) == wanted:
            return adapter, True
    return LatentAdapter(wanted).eval(), False


def plain(codec: "Codec", mllm: "Mllm") -> Way:
    """The codec alone."""

    def encode(picture: np.ndarray) -> bytes:
        return codec.encode([picture], TIMED_AT)[0]

    def decode(stream: bytes) -> list:
        return mllm.views([codec.decode([stream])[0].image])

    return encode, decode


def cotam(codec: "Codec", mllm: "Mllm", guide: Guide, adapter: "LatentAdapter") -> Way:
    """The codec with guidance before it and the adapter behind it."""

    def encode(picture: np.ndarray) -> bytes:
        return codec.encode([picture], TIMED_AT, guide([picture]))[0]

    def decode(stream: bytes) -> list:
        return mllm.decoded_views(codec.decode([stream]), adapter)

    return encode, decode


def times(ways: tuple[Way, Way], pictures: Sequence[np.ndarray], name: str) -> dict:
    """Milliseconds per picture of both ways, and the ratio of the second to the first, to encode and to decode."""
    encoders, decoders = zip(*ways, strict=True)
    for encode, decode in ways:
        decode(encode(pictures[0]))  # what is only done once is done now
    encoding: list[Pair] = []
    decoding: list[Pair] = []
    for turn, picture in enumerate(track(pictures, f"Timing {name}")):
        spent, streams = _in_turns(encoders, (picture, picture), turn)
        encoding.append(spent)
        spent, _ = _in_turns(decoders, streams, turn)
        decoding.append(spent)
    total = [(e[0] + d[0], e[1] + d[1]) for e, d in zip(encoding, decoding, strict=True)]
    return {"encode": _summary(encoding), "decode": _summary(decoding), "total": _summary(total)}


def _in_turns(works: Sequence[Callable], inputs: Sequence, turn: int) -> tuple[Pair, list]:
    """Seconds and results of both works, each on its input; which one goes first alternates."""
    seconds, results = [0.0, 0.0], [None, None]
    for k in (0, 1) if turn % 2 else (1, 0):
        start = time.perf_counter()
        results[k] = works[k](inputs[k])
        seconds[k] = time.perf_counter() - start
    return (seconds[0], seconds[1]), results


def _summary(pairs: list[Pair]) -> dict:
    ratios = [ours / base for base, ours in pairs]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "pairs": len(pairs),
        "plain_ms": round(1000 * statistics.median(base for base, _ in pairs), 2),
        "cotam_ms": round(1000 * statistics.median(ours for _, ours in pairs), 2),
        "ratio": {
            "median": round(statistics.median(ratios), 4),
            "lower_quartile": round(low, 4),
            "upper_quartile": round(high, 4),
        },
    }


def verdict(spent: dict) -> dict:
    """Overheads of the median pair in per cent, and whether the paper's claim on time (C16) holds by our rule."""
    overheads = {way: round(100 * (spent[way]["ratio"]["median"] - 1), 2) for way in ("encode", "decode")}
    return overheads | {"holds": max(overheads.values()) <= MAXIMUM_OVERHEAD}


def rates(codec: "Codec", pictures: Pictures, name: str) -> dict:
    """Curves of the codec and of both yardsticks, what they need at equal PSNR, and BD-rates."""
    originals = list(pictures.values())

    def by_codec(quality: int) -> tuple[float, float]:
        streams = codec.encode(originals, quality)
        decoded = [found.image for found in codec.decode(streams)]
        return mean_point(originals, decoded, [len(stream) - header_bytes(stream) for stream in streams])

    def by(write: Callable) -> Callable[[int], tuple[float, float]]:
        def point(quality: int) -> tuple[float, float]:
            files = [write(picture, quality) for picture in originals]
            decoded = [conventional.decode(file) for file in files]
            return mean_point(originals, decoded, [len(file) - conventional.header_bytes(file) for file in files])

        return point

    curve = [by_codec(quality) for quality in track(QUALITIES, f"Coding {name}")]
    others = {
        "jpeg": [by(conventional.jpeg_encode)(quality) for quality in JPEG_QUALITIES],
        "webp": [by(conventional.webp_encode)(quality) for quality in WEBP_QUALITIES],
    }
    return {
        "pictures": len(originals),
        "curve": [{"quality": q, "bpp": bpp, "psnr": score} for q, (bpp, score) in enumerate(curve)],
        "rate_rises": _rises([bpp for bpp, _ in curve]),
        "psnr_rises": _rises([score for _, score in curve]),
        "bpp_at_equal_psnr": [
            {"quality": q, "psnr": curve[q][1], "codec": curve[q][0]}
            | {other: _bpp_at(points, curve[q][1]) for other, points in others.items()}
            for q in COMPARED_AT
        ],
        "bd_rate": {other: _number(bd_rate(_as_curve(points), _as_curve(curve))) for other, points in others.items()},
    }


def mean_point(originals: list[np.ndarray], decoded: list[np.ndarray], sizes: list[int]) -> tuple[float, float]:
    """Bits per pixel of files of these sizes in bytes, and PSNR in dB; means over the pictures."""
    bpp = [8 * size / (image.shape[0] * image.shape[1]) for size, image in zip(sizes, originals, strict=True)]
    scores = [psnr(image, found) for image, found in zip(originals, decoded, strict=True)]
    return float(np.mean(bpp)), float(np.mean(scores))


def _bpp_at(points: list[tuple[float, float]], score: float) -> float | None:
    """Bits per pixel where a curve reaches a PSNR, linear in log rate; None outside it."""
    bpp, scores = _as_curve(sorted(points, key=lambda point: point[1]))
    return _number(np.exp(np.interp(score, scores, np.log(bpp), left=np.nan, right=np.nan)))


def _as_curve(points: list[tuple[float, float]]) -> Curve:
    bpp, scores = zip(*points, strict=True)
    return np.array(bpp), np.array(scores)


def _rises(values: list[float]) -> bool:
    return bool(np.all(np.diff(values) > 0))


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else float(value)


def _print(result: dict) -> None:
    print(f"codec {result['codec']}, {result['threads']} threads, one picture at a time at quality {TIMED_AT}")
    print(f"adapter {result['adapter'] or UNTRAINED}")
    print(f"\n{'':24}{'plain':>11}{'CoTAM':>11}   CoTAM / plain (median, quartiles of the pairs)")
    for name, ways in result["time"].items():
        for way, found in ways.items():
            ratio = found["ratio"]
            print(
                f"{name + ', ' + way:24}{found['plain_ms']:8.1f} ms{found['cotam_ms']:8.1f} ms   "
                f"{ratio['median']:.3f} ({ratio['lower_quartile']:.3f} to {ratio['upper_quartile']:.3f}, "
                f"{found['pairs']} pairs)"
            )
    print(f"\nC16: encoding with guidance and decoding with the adapter each take at most {MAXIMUM_OVERHEAD} % longer")
    for name, found in result["c16"].items():
        answer = "holds" if found["holds"] else "does not hold"
        print(f"{answer} on {name}: {found['encode']:+.1f} % to encode, {found['decode']:+.1f} % to decode")
    for name, found in result["rate"].items():
        print(f"\n{name}: {found['pictures']} pictures, bits per pixel without headers at equal PSNR")
        print("quality   PSNR    codec     JPEG     WebP")
        for row in found["bpp_at_equal_psnr"]:
            cells = (f"{row[other]:9.4f}" if row[other] else f"{'-':>9}" for other in ("codec", "jpeg", "webp"))
            print(f"{row['quality']:7d}{row['psnr']:7.2f}{''.join(cells)}")
        saved = (f"{value:+.1f} % against {other}" for other, value in found["bd_rate"].items() if value is not None)
        print(f"BD-rate {', '.join(saved)}")
        wobbles = [what for what in ("rate", "psnr") if not found[f"{what}_rises"]]
        print(f"over the ten qualities {' and '.join(wobbles) or 'nothing'} fails to rise")


def main() -> int:
    """Measure and report."""
    settings = config.load()
    codec, mllm = settings.codec[settings.codecs[0]], settings.mllm[settings.mllms[0]]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", metavar="PATH-OR-NAME", default=codec.weights, help="(default: params.yaml's first)")
    parser.add_argument("--mllm", metavar="PATH-OR-NAME", default=mllm.weights, help="(default: params.yaml's first)")
    parser.add_argument("--scenes", type=int, default=32, help="scenes of each style")
    parser.add_argument("--rounds", type=int, default=3, help="how often every photograph is timed")
    parser.add_argument("--threads", type=int, default=settings.threads, help="(default: that of params.yaml)")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    use_threads(args.threads)
    result = {"threads": args.threads} | measure(args.scenes, args.rounds, args.codec, args.mllm)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
