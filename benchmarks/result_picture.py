"""Draws docs/images/result.png, the picture on README's first screen, from a finished run.

    .venv/bin/python -m benchmarks.result_picture

Left, the mean score over rate; right, one image at about equal rate through the codec alone and through CoTAM, with the
question that tells them apart. The image is the first of the report's examples, which a rule chooses.
"""

from pathlib import Path

from components import config
from components.files import atomic_file, read_json
from components.paths import ROOT, Paths
from components.reporting.collect import CodedFiles, Example, find_examples, matched_settings
from components.reporting.examples import read_answers
from components.reporting.methods import CLEAN, method_look, method_order
from components.reporting.numbers import per_cent
from components.reporting.scores import method_of

TARGET = ROOT / "docs/images/result.png"
INK, FAINT, RULE = "#1b1f24", "#5b6470", "#e3e5e8"
GOOD, BAD = "#00704f", "#b3261e"


def draw(summary: dict, codec: str, mllm: str, example: Example, target: Path) -> None:
    """Write the picture: 1600 x 640 pixels, PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK}):
        figure = plt.figure(figsize=(12.8, 5.12), dpi=125, facecolor="white")
        grid = figure.add_gridspec(
            1, 3, width_ratios=(1.75, 1, 1), left=0.05, right=0.985, top=0.84, bottom=0.12, wspace=0.09
        )
        _curves(figure.add_subplot(grid[0]), summary, codec, mllm)
        question = example.questions[0]  # those that tell the two apart come first
        for place, (method, coded) in enumerate(((codec, example.base), ("cotam", example.cotam)), 1):
            axis = figure.add_subplot(grid[place])
            if place == 1:
                axis.text(
                    0, 1.13, _readable(question[codec].prompt), transform=axis.transAxes, fontsize=13, weight="bold"
                )
            _picture(axis, method_look(method, codec), coded, question[method])
        with atomic_file(target) as temporary:
            figure.savefig(temporary, format="png")
        plt.close(figure)


def _curves(axis, summary: dict, codec: str, mllm: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    results = {method: by_mllm[mllm] for method, by_mllm in summary["codecs"][codec].items() if mllm in by_mllm}
    clean = results.pop("clean", None)
    if clean:
        score = clean["curve"][0]["scores"]["mean"]
        axis.axhline(score, color=CLEAN.light, lw=1.2, dashes=CLEAN.dash)
        axis.text(0.005, score, "clean images", transform=axis.get_yaxis_transform(), fontsize=9, va="bottom")
    for method in reversed(method_order(results, codec)):
        look, curve = method_look(method, codec), results[method]["curve"]
        rates, scores = [point["bpp"] for point in curve], [point["scores"]["mean"] for point in curve]
        style = {"dashes": look.dash} if look.dash else {}
        bands = [point["intervals"]["mean"] for point in curve]
        if method in ("cotam", codec) and all(bands):
            low, high = zip(*bands, strict=True)
            axis.fill_between(rates, low, high, color=look.light, alpha=0.13, lw=0)
        axis.plot(rates, scores, color=look.light, lw=look.width, marker=look.marker, ms=6, label=look.label, **style)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("bits per pixel, whole files", color=FAINT)
    axis.grid(color=RULE, lw=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors=FAINT, length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], frameon=False, loc="lower right", fontsize=10)
    saving = results["cotam"]["bd_rate"]["mean"]["value"]
    headline = f"{per_cent(saving)} bits at equal score" if saving is not None else "BD-rate not defined"
    axis.text(0, 1.125, headline, transform=axis.transAxes, fontsize=15, fontweight="bold")
    base = method_look(codec, codec).label
    axis.text(
        0,
        1.055,
        f"mean score of {mllm} over six benchmarks; CoTAM against {base}",
        transform=axis.transAxes,
        color=FAINT,
    )


def _picture(axis, look, coded, answer) -> None:
    axis.imshow(coded.image_HWC, interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(look.label, loc="left", fontweight="bold", color=look.light, fontsize=12)
    axis.set_title(coded.note, loc="right", color=FAINT, fontsize=9.5)
    mark, colour = ("✓", GOOD) if answer.right else ("✗", BAD)
    axis.text(
        0,
        -0.035,
        f"{mark} {answer.text}",
        transform=axis.transAxes,
        va="top",
        fontsize=14,
        fontweight="bold",
        color=colour,
    )


def _readable(prompt: str) -> str:
    """The question without its instruction, as a person would write it."""
    question, mark, _ = prompt.partition("?")
    return (question.strip() + mark).capitalize()


def main() -> None:
    """Draw the first pair of codec and MLLM of the last run."""
    settings, paths = config.load(), Paths()
    codec, mllm = settings.codecs[0], settings.mllms[0]
    summary = read_json(paths.report / "summary.json")
    curves = {method: method_of(summary, codec, method, mllm)["curve"] for method in (codec, "cotam")}
    at = matched_settings(curves, codec)
    coded_files = CodedFiles(paths, codec, ROOT / settings.codec[codec].weights)
    answers = read_answers(paths.scores(codec, mllm) / "samples", {"clean": "-", **at})
    draw(summary, codec, mllm, find_examples(coded_files, answers, at)[0], TARGET)
    print(TARGET.relative_to(ROOT))


if __name__ == "__main__":
    main()
