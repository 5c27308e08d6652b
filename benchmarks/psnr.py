"""Rate and PSNR of the learned codecs beside JPEG, WebP and AVIF, from real files; and what guidance costs in PSNR.

    cotam bench psnr [--json]
    python -m benchmarks.psnr --out docs/images --codec pretrained/codec/elic-micro --codec my-codec

One model and its ten rates are a curve (paper, Fig. 15; C18 of the claims). The first codec is drawn with guidance
too (Fig. 12; C15), with the settings of params.yaml. Pictures are photographs that nothing was trained on, and scenes
of the benchmarks' style. Rates are those of whole files, header and map included. Each set of pictures becomes
`psnr-SET` as SVG, PNG and CSV.
"""

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.codec import mean_point
from components import config
from components.analysis.compressors import Compressors, parse_choice
from components.codec import Codec
from components.environment import be_quiet
from components.evaluation.bd_rate import bd_rate, bd_score
from components.evaluation.coding import load_guide
from components.evaluation.pictures import photographs
from components.files import atomic_write
from components.progress import track
from components.reporting.style import pyplot
from components.scenes import render, sample_scene

CODECS = ("pretrained/codec/elic-micro", "pretrained/codec/dcae-micro")
YARDSTICKS = {
    "jpeg": (1, 2, 5, 10, 20, 35, 50, 75, 90),
    "webp": (0, 5, 10, 20, 35, 50, 75, 90),
    "avif": (0, 10, 20, 30, 40, 50, 60, 70, 80, 90),
}
GUIDED = "guided"
LOSS = 0.5  # dB; "little" in the rule for C15 in docs/decisions.md
LOOKS = ("#c44e00", "#00785a", "#b4387f")  # of the codecs; the first one with guidance is blue
GREYS = {"jpeg": ("#6b6b6b", "^"), "webp": ("#7d5a9e", "D"), "avif": ("#b07400", "v")}

Points = list[tuple[float, float]]
"""Mean bits per pixel and mean PSNR in dB, by rising quality."""


def measure(codecs: Sequence[str], scenes: int, settings: config.Settings) -> dict[str, dict[str, Points]]:
    """Curves of every way, by set of pictures."""
    guidance = settings.guidance
    guide = load_guide(guidance.tower, layers=guidance.layers, grid=guidance.grid, k=guidance.k)
    tops = {name: Codec.from_pretrained(name).config.qualities for name in codecs}
    choices = [parse_choice(name, range(top)) for name, top in tops.items()]
    choices += [parse_choice(name, qualities) for name, qualities in YARDSTICKS.items()]
    compressors, first = Compressors(choices), Codec.from_pretrained(codecs[0])
    sets = {
        "photographs": list(photographs().values()),
        "scenes": [render(sample_scene(seed, "validation", "bench")) for seed in range(scenes)],
    }
    found: dict[str, dict[str, Points]] = {}
    for name, pictures in sets.items():
        curves: dict[str, Points] = {}
        for choice in track(choices, f"coding {name}"):
            coded = (compressors.code(setting, pictures) for setting in choice.settings)
            curves[choice.name] = [mean_point(pictures, one.pictures, [b // 8 for b in one.bits]) for one in coded]
        levels = guide(pictures)
        curves[GUIDED] = [_guided(first, pictures, levels, quality) for quality in range(first.config.qualities)]
        found[name] = curves
    return found


def _guided(codec: Codec, pictures: list[np.ndarray], levels: np.ndarray, quality: int) -> tuple[float, float]:
    streams = codec.encode(pictures, quality, levels)
    return mean_point(pictures, [one.image for one in codec.decode(streams)], [len(stream) for stream in streams])


def compare(curves: dict[str, Points]) -> dict[str, dict[str, float | None]]:
    """BD-rate of each codec in per cent against every yardstick, and of guidance against the first codec.

    Negative: bits saved at equal PSNR. `guidance` has the PSNR too, in dB at equal rate.
    """
    arrays = {name: tuple(np.array(points).T) for name, points in curves.items()}
    codecs = learned(curves)
    found: dict[str, dict[str, float | None]] = {}
    for name in codecs:
        others = [other for other in (*YARDSTICKS, codecs[0]) if other != name]
        found[name] = {other: _defined(bd_rate, arrays[other], arrays[name]) for other in others}
    pair = arrays[codecs[0]], arrays[GUIDED]
    return found | {"guidance": {"bd_rate": _defined(bd_rate, *pair), "psnr": _defined(bd_score, *pair)}}


def learned(curves: dict[str, Points]) -> list[str]:
    """The codecs among the methods."""
    return [method for method in curves if method not in YARDSTICKS and method != GUIDED]


def _defined(measure: Callable, anchor: tuple, test: tuple) -> float | None:
    value = measure(anchor, test)
    return None if math.isnan(value) else round(value, 2)


def draw(folder: Path, name: str, curves: dict[str, Points]) -> None:
    """Write `psnr-NAME.svg`, `.png` and `.csv`."""
    plt = pyplot(f"psnr-{name}", "#222222", "#666666")
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    codecs = learned(curves)
    colours = dict(zip(codecs, LOOKS, strict=False))
    for method, points in curves.items():
        rates, scores = zip(*points, strict=True)
        if method in GREYS:
            colour, marker = GREYS[method]
            axis.plot(rates, scores, color=colour, marker=marker, ms=4, lw=1.3, dashes=(4, 2), label=method.upper())
        elif method == GUIDED:
            axis.plot(rates, scores, color="#0072b2", marker="o", ms=4, lw=1.6, label=f"{codecs[0]}, guided")
        else:
            axis.plot(rates, scores, color=colours.get(method, "#222222"), marker="s", ms=4, lw=2, label=method)
    axis.set(xscale="log", xlabel="bits per pixel, whole files", ylabel="PSNR, dB")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_title(name, loc="left", fontweight="bold")
    axis.grid(color="#dddddd", lw=0.7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower right")
    for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=130, facecolor="white", metadata=metadata)
        atomic_write(folder / f"psnr-{name}.{kind}", buffer.getvalue())
    plt.close(figure)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("method", "bits_per_pixel", "psnr_db"))
    writer.writerows((method, f"{r:.5f}", f"{s:.3f}") for method, points in curves.items() for r, s in points)
    atomic_write(folder / f"psnr-{name}.csv", text.getvalue())


def _print(found: dict[str, dict[str, Points]], compared: dict[str, dict]) -> None:
    for name, curves in found.items():
        print(f"{name}: bits per pixel of whole files, PSNR in dB")
        for method, points in curves.items():
            print(f"  {method:14}" + "".join(f"  {rate:.3f} {score:.1f}" for rate, score in points))
        for method, values in compared[name].items():
            if method != "guidance":
                saved = (f"{v:+.1f} % against {other}" for other, v in values.items() if v is not None)
                print(f"  BD-rate of {method}: {', '.join(saved)}")
        guidance = compared[name]["guidance"]
        answer = "unclear" if guidance["psnr"] is None else "holds" if guidance["psnr"] >= -LOSS else "does not hold"
        print(f"  C15, PSNR loses little from guidance: {guidance['psnr']} dB at equal rate: {answer}")
        for method in learned(curves):
            rises = (np.diff(curves[method], axis=0) > 0).all()
            answer = "rates and PSNR rise at each" if rises else "rates or PSNR do not rise at each"
            print(f"  C18, one model, {len(curves[method])} qualities: {method}'s {answer}")


def main() -> int:
    """Measure, draw and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", action="append", metavar="PATH-OR-NAME", help=f"(default: {' and '.join(CODECS)})")
    parser.add_argument("--scenes", type=int, default=32, help="scenes to code")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the pictures and their numbers here")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    found = measure(args.codec or CODECS, args.scenes, config.load())
    compared = {name: compare(curves) for name, curves in found.items()}
    for name, curves in found.items() if args.out else ():
        args.out.mkdir(parents=True, exist_ok=True)
        draw(args.out, name, curves)
    if args.json:
        print(json.dumps({"curves": found, "compared": compared}, indent=2))
    else:
        _print(found, compared)
    return 0


if __name__ == "__main__":
    sys.exit(main())
