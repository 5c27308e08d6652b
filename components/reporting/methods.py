"""How each compared method, level and benchmark is named and drawn, once, so that every figure and table agrees.

Colours are those of Okabe and Ito (2008), told apart by readers with any colour vision, and each method has a marker
and a dash of its own besides. They are CSS variables on the page, so that light and dark are the page's business.
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """Label, colours (light page, dark page), matplotlib marker, dash pattern (points) and line width of a series."""

    key: str
    label: str
    light: str
    dark: str
    marker: str
    dash: tuple[float, ...] = ()
    width: float = 1.8

    @property
    def colour(self) -> str:
        """The CSS expression that the page gives this series."""
        return f"var(--{self.key})"


def _codec_label(codec: str) -> str:
    return {"elic": "ELIC", "dcae": "DCAE"}.get(codec, codec)


COTAM = Look("cotam", "CoTAM", "#0072b2", "#5cb8f0", "o", width=2.6)
BASE = Look("base", "codec alone", "#c44e00", "#f08a3c", "s", width=2.0)
JPEG = Look("jpeg", "JPEG", "#6b6b6b", "#a8a8a8", "^", (4, 2), 1.4)
WEBP = Look("webp", "WebP", "#7d5a9e", "#c29be0", "D", (1.5, 1.5), 1.4)
LOW = Look("low", "low", "#b07400", "#e8a92c", "s")
HIGH = Look("high", "high", "#00785a", "#2fc49a", "^")
CROSS = Look("cross", "cross", "#b4387f", "#ee7fbd", "o", width=2.6)
CLEAN = Look("clean", "clean images", "#444444", "#bbbbbb", "", (5, 3), 1.2)

LOOKS = (COTAM, BASE, JPEG, WEBP, LOW, HIGH, CROSS, CLEAN)
LEVELS = {"low": LOW, "high": HIGH, "cross": CROSS}
BENCHMARKS = {
    "mme": "MME",
    "pope": "POPE",
    "vqav2": "VQAv2",
    "textvqa": "TextVQA",
    "seedbench": "SEED-Bench",
    "mmbench": "MMBench",
    "mean": "Mean score",
    "average": "Average",
}


def benchmark_label(key: str) -> str:
    """`seedbench` -> `SEED-Bench`; an unknown key is its own label."""
    return BENCHMARKS.get(key, key)


def benchmark_order(names: Collection[str]) -> list[str]:
    """Benchmarks in the order of the paper's tables, then whatever else there is."""
    known = [name for name in BENCHMARKS if name in names]
    return [*known, *(name for name in names if name not in known)]


def method_look(method: str, codec: str) -> Look:
    """The look of a method; the codec alone goes by the codec's name."""
    if method == codec:
        return Look(BASE.key, _codec_label(codec), BASE.light, BASE.dark, BASE.marker, BASE.dash, BASE.width)
    known = {"cotam": COTAM, "jpeg": JPEG, "webp": WEBP}
    return known.get(method) or Look(CLEAN.key, method, CLEAN.light, CLEAN.dark, "v")


def method_order(methods, codec: str) -> list[str]:
    """CoTAM first, the codec alone next, then the yardsticks, then whatever else there is by name."""
    ranked = ["cotam", codec, "webp", "jpeg"]
    return sorted(methods, key=lambda method: (ranked.index(method) if method in ranked else len(ranked), method))


def bd_rate_of(result: dict, name: str) -> dict | None:
    """BD-rate of a method on a benchmark, on their mean score ("mean"), or the benchmarks' average ("average")."""
    return result.get("bd_rate_average") if name == "average" else result["bd_rate"].get(name)
