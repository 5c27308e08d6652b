"""What the variants scored, and how two of them compare, with intervals over images and over training seeds.

Every run of every variant was asked about the same images, and all are resampled together: a difference between two
variants is taken within each resample (a paired bootstrap). Where a variant was trained with several seeds, each
replicate also draws that many seeds with replacement and takes the mean over them; two trained variants are compared
seed by seed. A variant without training (one run) stands beside every seed of the other.

Shapes: R resamples (row 0 is the real set), S seeds.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components.config import Settings
from components.evaluation.bd_rate import bd_rates, bd_scores
from components.evaluation.bootstrap import image_weights, interval
from components.evaluation.curves import Curve, rate_score_curve
from components.evaluation.rate import BENCH
from components.evaluation.scores import Scores
from components.evaluation.streams import CLEAN, Setting
from components.evaluation.variant_record import agree, is_of, made_of, variant_record
from components.files import read_json
from components.paths import instance_name
from components.variants import Run, settings_of

RATE, SCORE = "bd_rate", "bd_score"
OTHER_BENCHMARKS, OTHER_SETTINGS = "made on other benchmarks", "made with other settings"
OTHER_MODELS = "made with other weights"
NO_SETTINGS = "made before results said their settings"


_Models = Mapping[str, Mapping[str, Any]]


class _Stale(Exception):
    """Results that cannot stand beside the rest, and why."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, resamples_R: np.ndarray) -> "Estimate":
        """Of the real set and its resamples."""
        ends = interval(resamples_R)
        if np.isnan(resamples_R[0]):
            return cls(None, None, None)
        return cls(float(resamples_R[0]), *(ends or (None, None)))


@dataclass(frozen=True)
class Measured:
    """One run's curves: scores per benchmark and their mean, and per level; every one of R resamples."""

    benchmarks: Curve
    levels: Curve
    categories: dict[str, np.ndarray]
    """MMBench's categories: right answers in per cent, (R, P)."""


@dataclass
class Ground:
    """What is common to all that is compared for one codec and one MLLM.

    Attributes:
        anchor: the codec alone.
        clean: level, benchmark, category or "mean" -> the score on clean images, (R,).
    """

    anchor: Measured
    clean: dict[str, np.ndarray]


@dataclass
class Results:
    """Every run that there is, and every anchor.

    Attributes:
        runs: variant -> seed -> what it scored.
        grounds: (codec, MLLM) -> what these are held against.
        about: variant -> one of its runs.
        stale: name of a run, or of the main run's codec and MLLM -> why its results are passed over.
        seed: of the bootstrap.
    """

    seed: int
    runs: dict[str, dict[int, Measured]] = field(default_factory=dict)
    grounds: dict[tuple[str, str], Ground] = field(default_factory=dict)
    about: dict[str, Run] = field(default_factory=dict)
    stale: dict[str, str] = field(default_factory=dict)

    def ground(self, variant: str) -> Ground | None:
        """What a variant is held against: its codec alone, with its MLLM."""
        run = self.about[variant]
        return self.grounds.get((run.codec, run.mllm))

    def gain(
        self, test: str, base: str | None = None, on: str = "mean", kind: str = SCORE, of_levels: bool = False
    ) -> np.ndarray:
        """BD-score (or BD-rate) of a variant against another, or against its codec alone: (R,).

        Raises:
            KeyError: one of them has no results, or they share no seed.
        """
        compare = bd_scores if kind == SCORE else bd_rates

        def one(test: Measured, base: Measured) -> np.ndarray:
            sides = [measured.levels if of_levels else measured.benchmarks for measured in (base, test)]
            return compare(*(side.on(on) for side in sides))

        tests = self._of(test)
        if base is None:
            if (ground := self.ground(test)) is None:
                raise KeyError(f"{self.about[test].codec} alone")
            found = [one(measured, ground.anchor) for measured in tests.values()]
        else:
            found = [one(*pair) for pair in self._paired(test, base)]
            if not found:
                raise KeyError(f"a seed that {test} and {base} share")
        return over_seeds(np.stack(found), self.seed)

    def trainings(self, test: str, base: str | None = None) -> dict[str, list[int]]:
        """Of what `gain` compares: variant -> the seeds of its trainings that it rests on; without those that train
        nothing.

        Raises:
            KeyError: one of them has no results.
        """
        seeds = {variant: sorted(self._of(variant)) for variant in (test, base) if variant is not None}
        seeds = {variant: found for variant, found in seeds.items() if self.about[variant].model}
        shared = set.intersection(*map(set, seeds.values())) if seeds else set()
        return {variant: [seed for seed in found if seed in shared] for variant, found in seeds.items()}

    def _of(self, variant: str) -> dict[int, Measured]:
        if variant not in self.runs:
            stale = any(name.rpartition("-")[0] == variant for name in self.stale)
            raise KeyError(f"{variant} (stale)" if stale else variant)
        return self.runs[variant]

    def _paired(self, test: str, base: str) -> list[tuple[Measured, Measured]]:
        tests, bases = self._of(test), self._of(base)
        if not self.about[test].model or not self.about[base].model:
            return list(itertools.product(tests.values(), bases.values()))
        return [(tests[seed], bases[seed]) for seed in tests if seed in bases]


def over_seeds(values_SR: np.ndarray, seed: int) -> np.ndarray:
    """The mean over seeds, (R,); a replicate's over as many seeds, drawn with replacement."""
    seeds, resamples = values_SR.shape
    drawn_RS = np.random.default_rng([seed, seeds, 1]).integers(seeds, size=(resamples, seeds))
    drawn_RS[0] = np.arange(seeds)
    return values_SR[drawn_RS, np.arange(resamples)[:, None]].mean(1)


def _check_qualities(scores: Mapping[str, Any], wanted: Sequence[int]) -> None:
    if set(scores) != set(map(str, wanted)):
        raise _Stale(OTHER_SETTINGS)


def _check_run(content: Mapping[str, Any], run: Run, settings: Settings, root: Path) -> None:
    """Hold what scores.json says of its settings and models against those that it should have."""
    wanted = settings_of(settings, run)
    evaluation = wanted["evaluation"]
    _check_qualities(content["scores"], evaluation["avif_qualities" if run.coded_as == "avif" else "qualities"])
    if "settings" not in content:
        raise _Stale(NO_SETTINGS)
    if not is_of(content, variant_record(run, wanted)):
        raise _Stale(OTHER_SETTINGS)
    if not agree(content.get("made_of", {}), made_of(run, root)):
        raise _Stale(OTHER_MODELS)


def _check_adapter(run: Run, runs: Sequence[Run], settings: Settings, stale: Collection[str], models: _Models) -> None:
    """Hold a run that uses or goes on from what another has trained against that one's results.

    Args:
        run: that has results.
        runs: all of them.
        settings: which say whose adapter it uses.
        stale: runs whose results are.
        models: of every run that has results, what they say it was made of.
    """
    shared = settings.variants[run.variant].adapter_of
    for other in runs:
        sides = models[run.name], models.get(other.name, {})
        shares = other.variant == shared and other.seed == run.seed
        trained = other.model and not settings.variants[other.variant].adapter_of
        goes_on = trained and run.start == f"{other.model}/adapter"
        if (shares or goes_on) and other.name in stale:
            raise _Stale(f"made with the adapter of {other.name}, whose results are stale")
        if shares and other.name not in models:
            raise _Stale(f"made with the adapter of {other.name}, of which there are no results")
        if shares and not agree(*({key: one[key] for key in one.keys() & {"model"}} for one in sides)):
            raise _Stale(f"made with another adapter than {other.name} has by now")


class Reader:
    """Reads results of the main pipeline and of variants, and resamples all of them alike."""

    def __init__(self, replicates: int, seed: int):
        self.replicates, self.seed = replicates, seed
        self.images: list[str] | None = None

    def results(self, root: Path, runs: list[Run], settings: Settings) -> Results:
        """All that is there; results of other benchmarks or settings are passed over, and named.

        Args:
            root: of the checkout.
            runs: those that may be there.
            settings: that the results are to be of.
        """
        found = Results(self.seed)
        for codec, mllm in itertools.product(settings.codecs, settings.mllms):
            rates = root / "results/rate" / codec / "rates.json"
            scores = root / "results/scores" / f"{codec}-{mllm}" / "scores.json"
            if rates.exists() and scores.exists():
                style, files = read_json(scores)["styles"][BENCH], read_json(rates)["styles"][BENCH]
                clean = {CLEAN.method: style["scores"][CLEAN.method]}
                try:
                    _check_qualities(style["scores"].get(codec, {}), settings.evaluation.qualities)
                    anchor = self._measure(codec, files, files["methods"][codec], style)
                except _Stale as why:
                    found.stale[instance_name(codec, mllm)] = str(why)
                    continue
                found.grounds[codec, mllm] = Ground(anchor, self._clean(style | {"scores": clean}))
        models: dict[str, Mapping[str, Any]] = {}
        for run in runs:
            path = root / "results/variants" / run.name / "scores.json"
            if path.exists():
                content = read_json(path)
                models[run.name] = content.get("made_of", {})
                style = {"questions": content["questions"], "scores": {run.variant: content["scores"]}}
                files = content["rates"]
                try:
                    _check_run(content, run, settings, root)
                    measured = self._measure(run.variant, files, files["files"], style)
                except _Stale as why:
                    found.stale[run.name] = str(why)
                    continue
                found.runs.setdefault(run.variant, {})[run.seed] = measured
                found.about[run.variant] = run
        for run in [run for run in runs if run.seed in found.runs.get(run.variant, {})]:
            try:
                _check_adapter(run, runs, settings, found.stale, models)
            except _Stale as why:
                found.stale[run.name] = str(why)
                del found.runs[run.variant][run.seed]
        found.runs = {variant: seeds for variant, seeds in found.runs.items() if seeds}
        found.about = {variant: run for variant, run in found.about.items() if variant in found.runs}
        self._add_other_codecs(found)
        return found

    def _add_other_codecs(self, found: Results) -> None:
        """A codec that the main run does not have is held against a variant that is that codec alone."""
        for variant, run in found.about.items():
            if run.is_codec_alone and (run.codec, run.mllm) not in found.grounds:
                clean = next((ground.clean for (_, mllm), ground in found.grounds.items() if mllm == run.mllm), {})
                [measured] = found.runs[variant].values()
                found.grounds[run.codec, run.mllm] = Ground(measured, clean)

    def _measure(
        self, method: str, files: Mapping[str, Any], of_method: Mapping[str, Any], style: Mapping[str, Any]
    ) -> Measured:
        images = files["images"]
        if not {question["image"] for question in style["questions"]} <= set(images):
            raise _Stale(OTHER_BENCHMARKS)
        if self.images is None:
            self.images = images
            self.weights_RI = image_weights(len(images), self.replicates, self.seed)
            self.questions = [question["id"] for question in style["questions"]]
        if images != self.images or [question["id"] for question in style["questions"]] != self.questions:
            raise _Stale(OTHER_BENCHMARKS)
        scores = Scores.from_json({**style, "scores": {method: style["scores"][method]}})
        pixels_I = np.array(files["pixels"], float)

        def curve(results: Callable[[list[str], np.ndarray], dict[str, np.ndarray]]) -> Curve:
            by_name = results(images, self.weights_RI)
            return rate_score_curve(method, of_method, pixels_I, self.weights_RI, scores, by_name)

        of_categories = scores.categories("mmbench", images, self.weights_RI)
        columns = [scores.settings.index(Setting(method, quality)) for quality in style["scores"][method]]
        categories = {name: values_RS[:, columns] for name, values_RS in of_categories.items()}
        return Measured(curve(scores.benchmarks), curve(scores.levels), categories)

    def _clean(self, style: Mapping[str, Any]) -> dict[str, np.ndarray]:
        scores = Scores.from_json(style)
        found = scores.benchmarks(self.images, self.weights_RI) | scores.levels(self.images, self.weights_RI)
        found |= scores.categories("mmbench", self.images, self.weights_RI)
        return {name: values_RS[:, 0] for name, values_RS in found.items()}
