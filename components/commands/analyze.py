"""`cotam analyze`: what happens inside a vision tower, and what compression does to it (paper, section 2)."""

import argparse
import json
from pathlib import Path
from typing import Any

from components.commands.options import add_workers, at_least
from components.paths import ROOT

TOWER = "pretrained/clip/micro"
CODECS = ["pretrained/codec/elic-micro", "jpeg"]
COUNT = 1000
WRITTEN = ("stages.json", "summary.json", "page.html")
FIGURES = (".csv", ".png", ".svg")


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "analyze",
        help="look inside a vision tower: information flow, attention distance, token similarity",
        description="Section 2 of the paper, for any CLIP, SigLIP or InternViT and any codec: how far tokens look, "
        "where information comes from and goes to, and how much of each layer's tokens survives compression. Writes "
        "figures (SVG, PNG, and their numbers as CSV), stages.json, summary.json and an interactive page.html.",
        epilog="examples:\n"
        "  cotam analyze -o analysis\n"
        "  cotam analyze photos/ --tower llava-hf/llava-1.5-7b-hf --codec jpeg:5,20,50 webp avif --count 200\n"
        "  cotam analyze photographs --tower pretrained/clip/micro my-siglip --codec pretrained/codec/elic-micro:0,4,9",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "images",
        nargs="?",
        default="scenes",
        metavar="IMAGES",
        help="a folder of images; or `scenes`, drawn for this (default); or `photographs`, eight that come with the "
        "libraries",
    )
    parser.add_argument(
        "--tower",
        nargs="+",
        default=[TOWER],
        metavar="PATH-OR-NAME",
        help="one tower or several; figures of single images are of the first (default: %(default)s)",
    )
    parser.add_argument(
        "--codec",
        nargs="*",
        default=CODECS,
        metavar="NAME[:Q,Q,...]",
        help="jpeg, webp, avif, or codecs of ours by folder or name, each with its own qualities if they follow "
        "a colon; the first is that of Fig. 5 (default: elic-micro and jpeg)",
    )
    parser.add_argument(
        "--qualities",
        nargs="+",
        type=int,
        metavar="Q",
        help="for codecs that name none (default: 0 2 4 of ours, 5 20 50 of JPEG and WebP, 10 30 60 of AVIF)",
    )
    parser.add_argument("--count", type=at_least(1), default=COUNT, metavar="N", help="images (default: %(default)s)")
    parser.add_argument(
        "--examples", type=at_least(1), default=4, metavar="N", help="images shown singly (default: %(default)s)"
    )
    parser.add_argument(
        "--run",
        type=Path,
        metavar="FOLDER",
        help="a checkout with a finished run, whose scores are joined to similarities in the first tower, which should "
        "be its MLLM's (default: this one, if it has a run, for the micro CLIP)",
    )
    parser.add_argument(
        "--batch", type=at_least(1), default=4, metavar="N", help="images at once in the tower (default: %(default)s)"
    )
    add_workers(parser, "processes")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("results/analysis"), metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print summary.json")


def run(args: argparse.Namespace) -> int:
    """Look, write everything, and say what was found."""
    from components.environment import use_threads
    from components.errors import CotamError

    _check_out(args.out)
    use_threads(1)  # a job has one thread, whatever the number of processes
    from components.analysis.compressors import parse_choices
    from components.analysis.images import find_images
    from components.analysis.levels import runs_in
    from components.analysis.report import Plan, write
    from components.analysis.towers import tower_name
    from components.files import atomic_dir

    names = [tower_name(tower) for tower in dict.fromkeys(args.tower)]
    if len(set(names)) < len(names):
        raise CotamError(f"Two towers would both be called {max(names, key=names.count)}; rename one of their folders.")
    if args.run is not None and not runs_in(args.run):
        raise CotamError(f"{args.run} holds no finished run (results/scores/*/scores.json); run `dvc repro` there.")
    # Scores are of an MLLM, and belong to the tower that it sees through: which that of a given run is, the user knows.
    root = args.run or (ROOT if args.tower[0] == TOWER else None)
    plan = Plan(
        towers=tuple(dict.fromkeys(args.tower)),
        images=find_images(args.images, args.count),
        choices=tuple(parse_choices(args.codec, args.qualities)),
        examples=args.examples,
        run=root if root and runs_in(root) else None,
        batch=args.batch,
        workers=args.workers,
    )
    with atomic_dir(args.out) as folder:
        summary = write(plan, folder)
    if args.json:
        print(json.dumps(summary, indent=2, sort_keys=True))
    else:
        for line in said(summary):
            print(line)
        print(f"\nFigures and numbers: {args.out}; the page: {args.out / 'page.html'}")
    return 0


def _check_out(out: Path) -> None:
    """Before anything slow: nothing but an earlier analysis would be replaced."""
    from components.errors import CotamError

    if out.exists():
        there = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
        figures = {name for name in there if f"{Path(name).stem}.csv" in there and Path(name).suffix in FIGURES}
        if there and (not set(WRITTEN) <= there or there - figures - set(WRITTEN)):
            raise CotamError(
                f"{out} was not written by cotam analyze, or not all of it; choose another with -o, or remove it."
            )


def said(summary: dict[str, Any]) -> list[str]:
    """What was found, a line each."""
    lines = []
    words = {True: "yes", False: "no", None: "not settled"}
    for tower, found in summary["towers"].items():
        images = summary["images"]
        lines.append(f"{tower}: {found['layers']} layers, {images['count']} images ({images['source']})")
        stages = found["stages"]
        if stages is None:
            lines.append("  too few layers to find stages in")
        else:
            runs = ", ".join(f"{first}-{last}" for first, last in stages["stages"])
            ends = " and ".join(f"{low} to {high}" for low, high in stages["intervals"])
            lines.append(f"  stages: layers {runs} (boundaries, 95 % interval: {ends})")
            lines += [f"  U-shaped {curve}: {words[holds]}" for curve, holds in stages["u_shaped"].items()]
        for codec, qualities in found["similarity"].items():
            for quality, curve in qualities.items():
                gain = curve["recovery"]
                lines.append(
                    f"  {codec} {quality} ({curve['bpp']:.2f} bpp): similarity lowest after layer "
                    f"{curve['lowest_layer']} ({curve['lowest']:.3f}), last {curve['last']:.3f}; recovers by "
                    f"{gain['value']:.3f} ({gain['low']:.3f} to {gain['high']:.3f})"
                )
    for joined in summary["levels"]:
        lines.append(f"{joined['codec']}, {joined['mllm']}: similarity against loss over {joined['settings']} settings")
        for level, found in joined["correlations"].items():
            best = found["best"]
            if best is None:
                lines.append(f"  {level}: no correlation, as it loses the same in all settings")
                continue
            at = best["layer"] + 1
            lines.append(
                f"  {level}: rho {found['rho']['value'][at]:.2f} after layer {best['layer']} (the lowest; "
                f"{100 * best['agreement']:.0f} % of the resamples name it)"
            )
    return lines
