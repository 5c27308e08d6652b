"""What the page says beside the scores: photographs, the map's bits, and what the adapter learned.

Each function reads one part of summary.json (docs/summary-schema.md) and gives nothing where the run did not measure
it.
"""

from markupsafe import Markup

from components.paths import instance_name
from components.reporting.claims import loss_at_equal_rate
from components.reporting.figures import LARGE, MEDIUM, Line, Panel, curves
from components.reporting.methods import BASE, COTAM, HIGH, Look, method_look
from components.reporting.numbers import per_cent, signed
from components.reporting.order import pairs_of


def photographs_section(summary: dict, codec: str) -> dict | None:
    """PSNR over rate with and without guidance (paper, Fig. 12)."""
    found = summary.get("photographs", {}).get(codec)
    if not found:
        return None
    base = method_look(codec, codec)
    plain = Look(base.key, f"{base.label} without guidance", base.light, base.dark, base.marker, width=base.width)
    guided = Look(COTAM.key, f"{base.label} with guidance", COTAM.light, COTAM.dark, COTAM.marker, width=COTAM.width)
    lines = [_rd_line(guided, found["guided"]), _rd_line(plain, found["plain"])]
    loss = loss_at_equal_rate(found["plain"], found["guided"])
    if loss is None:
        reading = "The two curves share no range of rates."
    else:
        reading = (
            "Guidance moves bits away from the background. At equal rate that changes the PSNR of photographs "
            f"by {signed(-loss, 2)} dB on average."
        )
    figure = curves(
        f"photographs-{codec}",
        "PSNR over rate on photographs",
        [Panel("PSNR of photographs", lines, "PSNR, dB")],
        size=LARGE,
    )
    return {
        "codec": codec,
        "count": len(found["images"]),
        "looks": [guided, plain],
        "figure": Markup(figure),
        "reading": reading,
    }


def map_sentence(summary: dict, codec: str) -> str:
    """How much of a file the map is (paper, section 3.2)."""
    bits = summary.get("map_bits", {}).get(codec)
    if not bits or not bits["cells"]:
        return ""
    return (
        f"A map of {bits['cells']:g} cells costs {bits['mean']:.1f} bits on average and {bits['max']:.0f} at most: "
        f"{100 * bits['share']:.2f} % of a file, averaged over qualities. The paper's map of 64 cells costs 128."
    )


ADAPTER_LOOKS = (
    Look("cotam", "after the joint stage", COTAM.light, COTAM.dark, "o", width=2.6),
    Look("high", "after warm-up", HIGH.light, HIGH.dark, "^", (4, 2), 1.6),
    Look("base", "without adapter", BASE.light, BASE.dark, "s", width=2.0),
)
ADAPTER_STAGES = ("joint", "warmup", "without")


def adapter_sections(summary: dict) -> list[dict]:
    """Feature losses per quality: without the adapter, after its warm-up, after the joint stage."""
    entries = summary.get("adapter", {})
    names = [instance_name(*pair) for pair in pairs_of(summary)]
    return [_adapter_section(name, entries[name], len(entries) > 1) for name in names if name in entries]


def _adapter_section(name: str, found: dict, named: bool) -> dict:
    titles = {"low": "Low-level loss: patch embeddings", "high": "High-level loss: features"}
    panels = [
        Panel(
            title,
            [
                Line(look, found["qualities"], found[key][stage])
                for look, stage in zip(ADAPTER_LOOKS, ADAPTER_STAGES, strict=True)
            ],
            "mean squared error" if key == "low" else "",
            "quality",
            log_x=False,
            from_zero=True,
        )
        for key, title in titles.items()
    ]
    cut = {key: 100 * (1 - sum(found[key]["joint"]) / sum(found[key]["without"])) for key in titles}
    return {
        "suffix": f"-{name}" if named else "",
        "of": f", {name}" if named else "",
        "looks": ADAPTER_LOOKS,
        "figure": Markup(curves(f"adapter-{name}", "Feature loss per quality", panels, size=MEDIUM)),
        "command": f"dvc repro joint@{name}",
        "reading": (
            "The adapter turns the decoded latent into a correction of the patch embeddings. Over all qualities "
            f"it changes the low-level loss by {per_cent(-cut['low'], 0)} and the high-level one by "
            f"{per_cent(-cut['high'], 0)}."
        ),
    }


def _rd_line(look: Look, points: list[dict]) -> Line:
    points = sorted(points, key=lambda point: point["bpp"])
    return Line(look, [point["bpp"] for point in points], [point["psnr"] for point in points])
