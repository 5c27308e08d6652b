"""`cotam evaluate`: score an MLLM on what a codec left of the benchmarks, with and without an adapter."""

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.commands.options import add_dtype
from components.paths import CODING_CACHE, PRETRAINED, ROOT, Paths

if TYPE_CHECKING:
    from components.config import Settings
    from components.evaluation.compare import Contest

CODEC = PRETRAINED / "codec/elic-micro"
MLLM = PRETRAINED / "mllm/micro-llava"
ADAPTER = Paths().joint("elic", "micro-llava") / "adapter"


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "evaluate",
        help="score an MLLM on what codecs left of the benchmarks",
        description="Encode the embedded benchmarks, and ask a multimodal LLM about the clean images, about what the "
        "codec alone leaves of them and, with an adapter, about CoTAM: guided streams (params.yaml's `guidance`) seen "
        "with the adapter's help. Prints scores and rates, and the BD-rate of CoTAM against the codec alone.",
        epilog="examples:\n"
        "  cotam evaluate --qualities 0 2 4 --images 30\n"
        "  cotam evaluate --codec my-codec --mllm my-llava --adapter my-adapter -o my-evaluation",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--codec", metavar="PATH", default=str(CODEC), help="pretrained/codec/elic-micro by default")
    parser.add_argument(
        "--mllm",
        metavar="PATH-OR-NAME",
        default=str(MLLM),
        help="a folder or a Hugging Face name; pretrained/mllm/micro-llava by default",
    )
    add_dtype(parser)
    parser.add_argument(
        "--adapter",
        metavar="PATH",
        help="an adapter's folder, or models:/NAME@champion; by default the last run's, if there is one and codec and "
        "MLLM are the default ones too",
    )
    parser.add_argument(
        "--qualities",
        metavar="Q",
        type=int,
        nargs="+",
        help="of the codec, 0 (fewest bits) to 9 (default: `evaluation.qualities` of params.yaml)",
    )
    parser.add_argument(
        "--benchmarks",
        metavar="FOLDER",
        type=Path,
        default=Paths().benchmarks,
        help="what `dvc repro benchmarks` wrote (default: data/benchmarks)",
    )
    parser.add_argument("--images", metavar="N", type=_positive, help="ask about the first N images only")
    parser.add_argument(
        "-o", "--out", metavar="FOLDER", type=Path, help="keep the streams, the answers and summary.json in this folder"
    )
    parser.add_argument(
        "--cache",
        metavar="FOLDER",
        type=Path,
        default=CODING_CACHE,
        help="where streams are kept, so that another MLLM on the same images costs no encoding (default: "
        ".cotam/cache/streams)",
    )
    parser.add_argument("--no-cache", action="store_true", help="encode everything, and keep nothing")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON (docs/summary-schema.md)")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print, and keep everything if asked to."""
    from components import config
    from components.environment import use_threads
    from components.files import atomic_dir, write_json

    settings = config.load(ROOT / "params.yaml")
    _check_folders(args)
    contest = _contest(args, settings)
    use_threads(1)  # a job has one thread, whatever the number of processes
    from components.evaluation.compare import compare, first_images

    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cotam-evaluate-")))
        out = work / "out"
        if args.out:
            out = stack.enter_context(atomic_dir(args.out))
        benchmarks = args.benchmarks
        if args.images:
            benchmarks = first_images(benchmarks, args.images, work / "benchmarks")
        evaluation = settings.evaluation
        summary = compare(
            contest,
            benchmarks,
            work / "answers",
            out,
            workers=settings.threads,
            replicates=evaluation.bootstrap,
            seed=settings.seed,
        )
        taking_part = {name: getattr(args, name) for name in ("codec", "mllm", "dtype")}
        taking_part |= {"adapter": contest.adapter and str(contest.adapter)}
        summary |= {"inputs": taking_part | {"images": len(list((benchmarks / "bench/images").iterdir()))}}
        write_json(out / "summary.json", summary)
    if args.json:
        print(json.dumps(summary, indent=2, sort_keys=True))
    else:
        _print(summary)
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def _check_folders(args: argparse.Namespace) -> None:
    """Before anything slow: the benchmarks are there, and nothing but an earlier evaluation would be replaced."""
    from components.errors import CotamError
    from components.evaluation.benchmarks import BENCHMARKS

    needed = ["images", *(f"{name}.jsonl" for name in BENCHMARKS)]
    if not all((args.benchmarks / "bench" / name).exists() for name in needed):
        raise CotamError(f"{args.benchmarks} holds no benchmarks; make them with `dvc repro benchmarks`.")
    out = args.out
    if out and out.exists():
        written = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
        if written and not {"streams.zip", "samples", "summary.json"} <= written:
            raise CotamError(f"{out} was not written by cotam evaluate; choose another folder or remove it.")


def _contest(args: argparse.Namespace, settings: "Settings") -> "Contest":
    from components.evaluation.compare import Contest
    from components.weights import resolve

    codec, mllm, adapter = resolve(args.codec), resolve(args.mllm), args.adapter
    if adapter is None and ADAPTER.is_dir() and (codec.resolve(), mllm.resolve()) == (CODEC, MLLM):
        adapter = ADAPTER
    contest = Contest(
        codec=codec,
        mllm=mllm,
        mllm_name=Path(args.mllm).name,
        adapter=None if adapter is None else resolve(adapter),
        tower=resolve(settings.guidance.tower),
        guidance=settings.guidance.model_dump(exclude={"tower"}),
        qualities=sorted(set(args.qualities or settings.evaluation.qualities)),
        cache=None if args.no_cache else args.cache,
        dtype=args.dtype,
    )
    contest.check_qualities()
    return contest


def _print(summary: dict[str, Any]) -> None:
    from rich.console import Console

    from components.reporting.methods import bd_rate_of, method_look
    from components.reporting.table import interval_text

    ((codec, methods),) = summary["codecs"].items()
    ((mllm, _),) = methods[codec].items()
    results = {method: by_mllm[mllm] for method, by_mllm in methods.items()}
    console = Console()
    console.print(_table(summary, results, codec, mllm))
    coding = summary["coding"]
    print(f"\n{coding['encoded']} images encoded, {coding['from_cache']} found in the cache.")
    if "cotam" in results:
        base, found = method_look(codec, codec).label, interval_text(bd_rate_of(results["cotam"], "mean"))
        print(f"BD-rate of CoTAM against {base}, mean score, 95 % interval: {found}; below zero saves bits.")


def _table(summary: dict[str, Any], results: dict[str, Any], codec: str, mllm: str):
    from rich import box
    from rich.table import Table

    from components.reporting.methods import bd_rate_of, benchmark_label, method_look, method_order
    from components.reporting.numbers import number

    columns = [*summary["benchmarks"], "mean"]
    images = summary["inputs"]["images"]
    table = Table(
        title=f"Scores of {mllm} and bits per pixel, {images} image{'s' if images > 1 else ''}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for name in ("q", "bpp", *map(benchmark_label, columns[:-1]), "Mean"):
        table.add_column(name, justify="right", no_wrap=True)
    for method in ("clean", *method_order(set(results) - {"clean"}, codec)):
        curve = results[method]["curve"]
        for place, point in enumerate(curve):
            label = "clean" if method == "clean" else method_look(method, codec).label
            table.add_row(
                label if place == 0 else "",
                "" if point["quality"] is None else str(point["quality"]),
                "" if point["bpp"] is None else f"{point['bpp']:.3f}",
                *(number(point["scores"][name]) for name in columns),
                style="bold" if method == "cotam" else None,
                end_section=place == len(curve) - 1,
            )
    if "cotam" in results:
        saved = (bd_rate_of(results["cotam"], name)["value"] for name in columns)
        table.add_row("BD-rate %", "", "", *(number(value, sign=True) for value in saved))
    return table
