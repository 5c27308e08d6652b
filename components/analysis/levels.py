"""C2 joined to C6: does the similarity of a layer's tokens predict what each level's questions lose in score?

The paper argues this by pictures. Here it is a number: over settings (codecs at their rates), Spearman's rank
correlation between a layer's mean token similarity and the points that a level's questions lose against clean images.
As both follow the rate, a partial correlation, with the rank of the rate taken out, stands beside it: what a layer says
that bits per pixel alone do not. Images are what is resampled, with all their questions and all their files.

The input is a finished run (docs/summary-schema.md). What is looked at is decoded from its own files. CoTAM is left
out: its MLLM sees a latent too, which no image shows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from components import config
from components.analysis.collect import PORTION
from components.analysis.measure import Measure
from components.analysis.towers import open_tower
from components.codec import Codec
from components.errors import CotamError
from components.evaluation.bootstrap import image_weights, interval
from components.evaluation.coding import Coder
from components.evaluation.pictures import benchmark_pictures
from components.evaluation.rate import BENCH
from components.evaluation.scores import LEVELS, Scores
from components.evaluation.streams import CLEAN, COTAM, JPEG, WEBP, Setting, Streams
from components.files import read_json
from components.paths import Paths
from components.progress import track
from components.weights import resolve
from components.workers import run_jobs


@dataclass(frozen=True)
class Joined:
    """Similarity and score of one run.

    Attributes:
        codec, mllm: of the run.
        images: how many.
        settings: S of them.
        bpp_S: of whole files.
        similarity_SL: mean over images and patches, of the states 0 to L.
        loss: by level, points below clean images, (S,).
        correlations: by level: `rho` and `partial`, each `{"value", "low", "high"}` with an entry per state (None where
            not defined), and `best`: the layer with the lowest rho (-1: the encoder's input) and the share of the
            resamples that name it, or None.
    """

    codec: str
    mllm: str
    images: int
    settings: list[Setting]
    bpp_S: np.ndarray
    similarity_SL: np.ndarray
    loss: dict[str, np.ndarray]
    correlations: dict[str, dict[str, Any]]


def runs_in(root: Path) -> list[Path]:
    """The scores.json files of a checkout's last run, by name."""
    return sorted((root / "results/scores").glob("*/scores.json"))


def join(scores_file: Path, root: Path, tower: str, replicates: int, seed: int, workers: int) -> Joined:
    """Join the scores of a run to token similarities.

    Args:
        scores_file: of the run, below `root`/results/scores.
        root: the checkout that holds the run: benchmarks, streams and params.yaml.
        tower: to look into.
        replicates: of the bootstrap.
        seed: of the resamples.
        workers: processes.

    Raises:
        CotamError: something of the run is missing or damaged.
    """
    codec, mllm, scores, streams, folder = open_run(scores_file, root)
    pictures = benchmark_pictures(Paths(root).benchmarks / BENCH)
    settings = [one for one in scores.settings if one.method not in (CLEAN.method, COTAM)]
    similarity_ISL, bits_IS, pixels_I = _similarities(streams, settings, pictures, codec, folder, tower, workers)
    images = list(pictures)
    weights_RI = image_weights(len(images), replicates, seed)
    similarity_RSL = np.einsum("ri,isl->rsl", weights_RI / len(images), similarity_ISL)
    bpp_RS = (weights_RI @ bits_IS) / (weights_RI @ pixels_I)[:, None]
    places = [scores.settings.index(setting) for setting in settings]
    clean = scores.settings.index(CLEAN)
    loss = {
        level: points_RS[:, [clean]] - points_RS[:, places]
        for level, points_RS in scores.levels(images, weights_RI).items()
    }
    return Joined(
        codec=codec,
        mllm=mllm,
        images=len(images),
        settings=settings,
        bpp_S=bpp_RS[0],
        similarity_SL=similarity_RSL[0],
        loss={level: loss[level][0] for level in LEVELS},
        correlations={level: correlations(similarity_RSL, loss[level], bpp_RS) for level in LEVELS},
    )


def open_run(scores_file: Path, root: Path) -> tuple[str, str, Scores, Streams, Path]:
    """Codec, MLLM, scores, streams and the codec's folder of a run.

    Raises:
        CotamError: something of the run is missing or damaged.
    """
    told = read_json(scores_file)
    try:
        style, codec, mllm = told["styles"][BENCH], told["codec"], told["mllm"]
        scores = Scores.from_json(style)
    except (KeyError, TypeError, AttributeError):
        raise CotamError(f"{scores_file} holds no scores of a run; run `dvc repro evaluate`.") from None
    if CLEAN not in scores.settings:
        raise CotamError(f"{scores_file} has no scores of clean images to compare with; run `dvc repro evaluate`.")
    codecs = config.load(root / "params.yaml").codec
    if codec not in codecs:
        raise CotamError(f"{scores_file} is of the codec {codec}, which params.yaml does not have; remove its folder.")
    weights = codecs[codec].weights
    folder = root / weights if (root / weights).is_dir() else resolve(weights)
    return codec, mllm, scores, Streams(Paths(root).rate(codec) / "streams.zip"), folder


def correlations(similarity_RSL: np.ndarray, loss_RS: np.ndarray, bpp_RS: np.ndarray) -> dict[str, Any]:
    """Rank correlations over settings, in every resample; row 0 is the real set. See `Joined`."""
    ranks_RSL, loss_ranks, rate_ranks = (rankdata(one, axis=1) for one in (similarity_RSL, loss_RS, bpp_RS))
    loss_ranks, rate_ranks = loss_ranks[..., None], rate_ranks[..., None]
    rho_RL = _pearson(ranks_RSL, loss_ranks)
    with_rate_RL, loss_with_rate = _pearson(ranks_RSL, rate_ranks), _pearson(loss_ranks, rate_ranks)
    # Where rank and rate are one, nothing is left to correlate.
    rest_RL = (1 - with_rate_RL**2) * (1 - loss_with_rate**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        partial_RL = np.where(rest_RL > 1e-9, (rho_RL - with_rate_RL * loss_with_rate) / np.sqrt(rest_RL), np.nan)
    return {"rho": _summary(rho_RL), "partial": _summary(partial_RL), "best": _best(rho_RL)}


def _best(rho_RL: np.ndarray) -> dict[str, Any] | None:
    """The layer with the lowest rho; None where a level loses the same in all settings, or there is but one."""
    if np.isnan(rho_RL[0]).all():
        return None
    defined = ~np.isnan(rho_RL).all(-1)
    best_R = np.where(np.isnan(rho_RL), np.inf, rho_RL).argmin(-1)
    agreeing = (best_R == best_R[0]) & defined
    return {"layer": int(best_R[0]) - 1, "agreement": float(agreeing[1:].mean()) if len(best_R) > 1 else 1.0}


def _pearson(x_RSL: np.ndarray, y_RSL: np.ndarray) -> np.ndarray:
    """Over settings: (R, L); NaN where one of the two is the same in all settings."""
    x, y = x_RSL - x_RSL.mean(1, keepdims=True), y_RSL - y_RSL.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))


def _summary(values_RL: np.ndarray) -> dict[str, list[float | None]]:
    ends = [interval(values_R) for values_R in values_RL.T]
    return {
        "value": [None if np.isnan(value) else float(value) for value in values_RL[0]],
        "low": [None if end is None else end[0] for end in ends],
        "high": [None if end is None else end[1] for end in ends],
    }


def _similarities(
    streams: Streams, settings: Sequence[Setting], pictures, codec: str, folder: Path, tower: str, workers: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token similarity (I, S, L + 1), bits (I, S) and pixels (I,) of the benchmarks' images."""
    names = list(pictures)
    files = {setting: streams.files(setting, BENCH) for setting in settings}
    for setting, found in files.items():
        if missing := [name for name in names if name not in found]:
            raise CotamError(f"{streams.path} lacks image {missing[0]} as {setting.method}; run `dvc repro rate`.")
    portions = [names[first : first + PORTION] for first in range(0, len(names), PORTION)]

    def start() -> Callable[[list[str]], np.ndarray]:
        opened = open_tower(tower)
        learned = any(setting.method not in (JPEG, WEBP) for setting in settings)
        coder = Coder(Codec.from_pretrained(folder) if learned else None)

        def measure(portion: list[str]) -> np.ndarray:
            decoded = [coder.pictures(one, {name: files[one][name] for name in portion}) for one in settings]
            look, rows = Measure(opened, 1 + len(settings)), []
            for name in portion:
                versions = [pictures[name], *(one[name] for one in decoded)]
                rows.append(look(torch.stack([opened.geometry.pixels(versions)])).similarity_BSL)
            return np.concatenate(rows)

        return measure

    jobs = track(run_jobs(portions, start, workers), f"Joining {codec} to scores", len(portions))
    found = sorted(((portion[0], rows) for portion, rows in jobs), key=lambda item: names.index(item[0]))
    bits_IS = np.array([[8 * len(files[setting][name]) for setting in settings] for name in names])
    pixels_I = np.array([pictures[name].shape[0] * pictures[name].shape[1] for name in names])
    return np.concatenate([rows for _, rows in found]), bits_IS, pixels_I
