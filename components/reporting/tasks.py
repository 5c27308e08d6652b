"""What the page and the terminal say about lmms-eval's own tasks: `tasks` in summary.json, where any were asked."""

from components.reporting.figures import Interval, Level, Panel, curves, forest
from components.reporting.methods import method_look
from components.reporting.numbers import DASH, number, per_cent, signed
from components.reporting.scores import part_by_method, score_line

LABELS = {
    "mme": "MME",
    "textvqa_val": "TextVQA",
    "pope": "POPE",
    "seedbench": "SEED-Bench",
    "vqav2_val": "VQAv2",
    "mmmu_val": "MMMU",
    "mmbench_en_dev_static": "MMBench",
    "videomme": "Video-MME",
}
"""The paper's benchmarks, in the order of its tables."""


def tasks_of(summary: dict, codec: str, mllm: str) -> dict[str, dict]:
    """Method -> task -> what it did there, in the order of a table; empty where none were asked."""
    return part_by_method(summary, codec, mllm, "tasks")


def tasks_section(summary: dict, codec: str, mllm: str) -> dict | None:
    """What the template shows of one codec and MLLM; None where no tasks were asked."""
    found = tasks_of(summary, codec, mllm)
    if not found:
        return None
    names = [task for task in LABELS if task in found["clean"]]
    looks = {method: method_look(method, codec) for method in found if method != "clean"}
    panels = []
    for index, task in enumerate(names):
        asked = [method for method in looks if task in found[method]]
        lines = [score_line(looks[method], found[method][task]["curve"], task) for method in asked]
        clean = Level(found["clean"][task]["curve"][0]["scores"][task], "clean")
        panels.append(Panel(LABELS[task], lines, "points" if index % 3 == 0 else "", levels=[clean]))
    slug = f"{codec}-{mllm}"
    saved = {task: found["cotam"][task]["bd_rate"][task] for task in names}
    marks = [
        Interval(LABELS[task], looks["cotam"], *(saved[task][key] for key in ("value", "low", "high")))
        for task in names
    ]
    return {
        "names": names,
        "looks": list(looks.values()),
        "figure": curves(f"tasks-{slug}", "Score over rate per benchmark of lmms-eval", panels),
        "forest": forest(
            f"tasks-bd-{slug}",
            "BD-rate per benchmark of lmms-eval",
            marks,
            xlabel="BD-rate in per cent (left of zero saves bits)",
        ),
        "reading": average_reading(summary, codec, mllm),
        "columns": [*(looks[method].label for method in _compared(found, codec)), "CoTAM, points at equal rate"],
        "bd_rows": [
            {
                "label": LABELS[task],
                "images": found["clean"][task]["images"],
                "rates": [_saved(found[method], task) for method in _compared(found, codec)],
                "gain": found["cotam"][task]["bd_score"][task],
            }
            for task in names
        ],
        "rows": [row for task in names for row in rows(found, codec, task)],
    }


def _compared(found: dict[str, dict], codec: str) -> list[str]:
    return [method for method in found if method not in ("clean", codec)]


def _saved(by_task: dict[str, dict], task: str) -> dict | None:
    """A method's BD-rate; None where it was not asked, as JPEG about videos."""
    return by_task[task]["bd_rate"][task] if task in by_task else None


def rows(found: dict[str, dict], codec: str, task: str) -> list[dict]:
    """Every method and quality on one task: rate, and score with its interval."""
    shown = []
    for method, by_task in found.items():
        for point in by_task[task]["curve"] if task in by_task else ():
            low, high = point["intervals"][task] or (None, None)
            shown.append(
                {
                    "task": LABELS[task],
                    "method": "clean images" if method == "clean" else method_look(method, codec).label,
                    "quality": DASH if point["quality"] is None else point["quality"],
                    "bpp": point["bpp"],
                    "bare": point["bpp_without_header"],
                    "score": {"value": point["scores"][task], "low": low, "high": high},
                }
            )
    return shown


def average_reading(summary: dict, codec: str, mllm: str) -> str:
    """CoTAM's BD-rates, averaged over those of the paper's six benchmarks (its Table 2) that were asked."""
    value = summary["codecs"][codec]["cotam"][mllm].get("tasks_average")
    if value is None:
        return ""
    base, over = method_look(codec, codec).label, ", ".join(LABELS[task] for task in value["tasks"])
    if value["value"] is None:
        return f"The average of CoTAM's BD-rates against {base} is not defined: somewhere the curves share no scores."
    said = f"CoTAM's BD-rates against {base} average {per_cent(value['value'])} over {over}"
    if value["low"] is None:
        return f"{said}; the interval is not defined."
    return f"{said}, 95 % interval {per_cent(value['low'])} to {per_cent(value['high'])}."


def print_tasks(console, summary: dict, codec: str, mllm: str) -> None:
    """The same in a terminal, where any were asked."""
    from rich import box
    from rich.table import Table

    found = tasks_of(summary, codec, mllm)
    if not found:
        return
    console.print()
    console.print(f"lmms-eval's own tasks, asked of {mllm}. {average_reading(summary, codec, mllm)}")
    names, compared = [task for task in LABELS if task in found["clean"]], _compared(found, codec)
    saved, table = (Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)) for _ in range(2))
    for name in ("BD-rate, %", *(method_look(method, codec).label for method in compared)):
        saved.add_column(name, justify="right" if saved.columns else "left")
    for task in names:
        saved.add_row(LABELS[task], *(_estimate(_saved(found[method], task)) for method in compared))
    console.print(saved)
    for name in ("", "", "q", "bpp", "score", "low", "high"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for task in names:
        shown = rows(found, codec, task)
        for index, row in enumerate(shown):
            score = (number(row["score"][key]) for key in ("value", "low", "high"))
            bpp = "" if row["bpp"] is None else f"{row['bpp']:.3f}"
            label = row["task"] if index == 0 else ""
            table.add_row(label, row["method"], str(row["quality"]), bpp, *score, end_section=index == len(shown) - 1)
    console.print(table)


def _estimate(value: dict | None) -> str:
    if value is None:
        return ""
    if value["value"] is None:
        return "not defined"
    between = "" if value["low"] is None else f" ({signed(value['low'])} to {signed(value['high'])})"
    return signed(value["value"]) + between
