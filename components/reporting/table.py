"""What a run found as a table: for the terminal (rich) and for README.md (Markdown), both from summary.json."""

import re
from pathlib import Path

from components.evaluation.streams import CLIP_BENCHMARK
from components.reporting.marks import fill
from components.reporting.methods import bd_rate_of, benchmark_label, benchmark_order, method_look, method_order
from components.reporting.numbers import DASH, MINUS
from components.reporting.order import pairs_of
from components.reporting.tasks import print_tasks
from components.reporting.videos import clips_of

MARK = "RESULTS"


def print_tables(summary: dict, console=None) -> None:
    """Print scores, rates and BD-rates of every codec and MLLM; `console` is a rich Console, by default stdout's."""
    from rich.console import Console

    console = console or Console()
    for codec, mllm in pairs_of(summary):
        results = _results(summary, codec, mllm)
        console.print()
        console.print(_score_table(summary, results, codec, mllm))
        console.print()
        console.print(_bd_table(summary, results, codec))
        if clips := clips_of(summary, codec, mllm):
            console.print()
            _print_clips(console, clips, codec, mllm)
        print_tasks(console, summary, codec, mllm)


def markdown(summary: dict) -> str:
    """The results as Markdown: a sentence, the BD-rates, and mean scores beside rates, per codec and MLLM."""
    return "\n\n".join(
        _markdown_pair(summary, _results(summary, codec, mllm), codec, mllm) for codec, mllm in pairs_of(summary)
    )


def fill_readme(readme: Path, summary: dict) -> None:
    """Replace what stands between the two RESULTS marks of a file by `markdown(summary)`.

    Raises:
        CotamError: the file is missing or does not have both marks.
    """
    fill(readme, {MARK: markdown(summary)})


def interval_text(value: dict | None, unit: str = " %") -> str:
    """`-31.0 % (-37.0 to -24.0)`; "not defined" where the curves do not overlap."""
    if not value or value.get("value") is None:
        return "not defined"
    text = f"{_per_cent(value['value'])}{unit}"
    if value.get("low") is None or value.get("high") is None:
        return text
    return f"{text} ({_per_cent(value['low'])} to {_per_cent(value['high'])})"


def _per_cent(value: float) -> str:
    """A sign, and a decimal only where it means something."""
    return f"{value:+.1f}" if abs(value) < 100 else f"{value:+.0f}"


def _results(summary: dict, codec: str, mllm: str) -> dict:
    return {method: by_mllm[mllm] for method, by_mllm in summary["codecs"][codec].items() if mllm in by_mllm}


def _methods(results: dict, codec: str) -> list[str]:
    return method_order((method for method in results if method != "clean"), codec)


def _compared(results: dict, codec: str) -> list[str]:
    return [method for method in _methods(results, codec) if method != codec and "bd_rate" in results[method]]


def _score_table(summary: dict, results: dict, codec: str, mllm: str):
    from rich import box
    from rich.table import Table

    columns = [*benchmark_order(summary["benchmarks"]), "mean"]
    table = Table(
        title=f"Scores of {mllm} and bits per pixel",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for name in ("q", "bpp", *map(benchmark_label, columns[:-1]), "Mean"):
        table.add_column(name, justify="right", no_wrap=True)
    if "clean" in results:
        scores = results["clean"]["curve"][0]["scores"]
        table.add_row("clean", "", "", *(_points(scores.get(name)) for name in columns), end_section=True)
    for method in _methods(results, codec):
        curve = results[method]["curve"]
        for index, point in enumerate(curve):
            name = method_look(method, codec).label if index == 0 else ""
            table.add_row(
                name,
                str(point["quality"]),
                f"{point['bpp']:.3f}",
                *(_points(point["scores"].get(key)) for key in columns),
                style="bold" if method == "cotam" else None,
                end_section=index == len(curve) - 1,
            )
    return table


def _bd_table(summary: dict, results: dict, codec: str):
    from rich import box
    from rich.table import Table

    base = method_look(codec, codec).label
    table = Table(
        title=f"BD-rate against {base} in per cent (95 % interval); below zero saves bits",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    compared = _compared(results, codec)
    for method in compared:
        table.add_column(method_look(method, codec).label, justify="right")
    names = benchmark_order(summary["benchmarks"])
    for name in (*names, "mean", "average"):
        table.add_row(
            benchmark_label(name),
            *(interval_text(bd_rate_of(results[method], name), unit="") for method in compared),
            style="bold" if name == "mean" else None,
            end_section=name == names[-1],
        )
    return table


def _print_clips(console, clips: dict, codec: str, mllm: str) -> None:
    """The same of videos, where there are any."""
    from rich import box
    from rich.table import Table

    saved = interval_text(clips["cotam"]["bd_rate"][CLIP_BENCHMARK])
    console.print(f"Right answers of {mllm} about videos, in per cent")
    console.print(f"BD-rate of CoTAM against {method_look(codec, codec).label}: {saved}")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for name in ("q", "bpp", "right", "low", "high"):
        table.add_column(name, justify="right", no_wrap=True)
    for method, entry in clips.items():
        for index, point in enumerate(entry["curve"]):
            table.add_row(
                ("clean" if method == "clean" else method_look(method, codec).label) if index == 0 else "",
                "" if point["quality"] is None else str(point["quality"]),
                "" if point["bpp"] is None else f"{point['bpp']:.3f}",
                *map(_points, (point["scores"][CLIP_BENCHMARK], *(point["intervals"][CLIP_BENCHMARK] or (None, None)))),
                style="bold" if method == "cotam" else None,
                end_section=index == len(entry["curve"]) - 1,
            )
    console.print(table)


def _markdown_pair(summary: dict, results: dict, codec: str, mllm: str) -> str:
    base = method_look(codec, codec).label
    compared = _compared(results, codec)
    lines = [f"BD-rate against {base}, `{mllm}`, 95 % intervals; below zero saves bits:", ""]
    lines += _row("Benchmark", *(method_look(method, codec).label for method in compared))
    lines += _row("---", *("---:" for _ in compared))
    for name in (*benchmark_order(summary["benchmarks"]), "mean", "average"):
        cells = [benchmark_label(name), *(interval_text(bd_rate_of(results[method], name)) for method in compared)]
        lines += _row(*(f"**{cell}**" if name == "mean" else cell for cell in cells))
    clean = results.get("clean")
    scored = f" (clean images: {clean['curve'][0]['scores']['mean']:.1f})" if clean else ""
    lines += ["", f"Mean score of `{mllm}`{scored} and bits per pixel of whole files:", ""]
    pair = [method for method in ("cotam", codec) if method in results]
    lines += _row(
        "Quality", *(f"{method_look(method, codec).label} {what}" for method in pair for what in ("bpp", "score"))
    )
    lines += _row("---:", *("---:" for _ in range(2 * len(pair))))
    for points in zip(*(results[method]["curve"] for method in pair), strict=False):
        numbers = [text for point in points for text in (f"{point['bpp']:.3f}", f"{point['scores']['mean']:.1f}")]
        lines += _row(points[0]["quality"], *numbers)
    lines += ["", "Made by `make demo`; `cotam report --readme` writes it here."]
    return re.sub(r"(?<=[|( *])-(?=\d)", MINUS, "\n".join(lines)).replace("to -", f"to {MINUS}")


def _row(*cells) -> list[str]:
    return [f"| {' | '.join(map(str, cells))} |"]


def _points(score: float | None) -> str:
    return DASH if score is None else f"{score:.1f}"
