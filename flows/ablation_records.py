"""What the flow `ablations` tells MLflow: a run per variant and seed below the flow's own, and the stages' below those.

In the compare view the variants' runs share the names of their metrics: `bd_rate/mean`, and `score/mean` over
thousandths of a bit per pixel, so that curves overlay. Tags say what they are (`variant`, `method`, ...).
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from prefect.states import State

from components.config import Settings
from components.files import atomic_write
from components.reporting.ablation_summary import CELLS, cells, worded
from components.reporting.claim_figures import claim_figures, standalone
from components.tracking.client import TrackingClient, metric_point
from components.tracking.stage_run import flatten
from components.variants import Run, settings_of
from flows.records import end_parent

logger = logging.getLogger(__name__)


class VariantRecords:
    """The MLflow runs of the variants that were asked for."""

    def __init__(self, uri: str, parent: str, settings: Settings, runs: Sequence[Run]):
        """Start them.

        Raises:
            httpx.HTTPError: MLflow cannot be reached.
        """
        self.uri, self.parent, self.runs = uri, parent, list(runs)
        client = TrackingClient(uri)
        experiment = client.get_run(parent)["info"]["experiment_id"]
        self.ids: dict[str, str] = {}
        for run in runs:
            changes = settings.variants[run.variant].model_dump(mode="json", exclude_defaults=True)
            about = {key: getattr(run, key) for key in ("variant", "method", "receive", "codec", "mllm")}
            tags = {"mlflow.parentRunId": parent, "kind": "variant", "train_seed": run.seed, **about}
            tags |= {"changes": json.dumps(changes), "adapter_from": run.trained_by or run.model}
            self.ids[run.name] = client.create_run(experiment, run.name, tags)
            client.log_batch(self.ids[run.name], params=flatten(settings_of(settings, run)))

    def run_of(self, stage: str) -> str | None:
        """The MLflow run that a stage belongs to; None for a stage of the main pipeline, or of nobody's here."""
        return self.ids.get(stage.rpartition("@")[2])

    def add_verdicts(self, found: Mapping[str, Any], ended: set[str]) -> None:
        """Log what the variants came to on the runs that `ended` well, and the verdicts as tags of the flow's run."""
        client = TrackingClient(self.uri)
        try:
            client.log_batch(self.parent, tags={f"claim.{claim['id']}": worded(claim) for claim in found["claims"]})
            for run in (run for run in self.runs if run.name in ended):
                entry = found["variants"][run.variant]
                points = list(_points(entry.get("by_seed", {}).get(str(run.seed), entry)))
                client.log_batch(self.ids[run.name], metrics=points)
        except httpx.HTTPError as error:
            logger.warning("MLflow at %s did not take the verdicts: %s", self.uri, error)

    def end(self, states: Mapping[str, State]) -> None:
        """End them: FINISHED where the evaluation ended well."""
        done = ended_well(states)
        for name, run_id in self.ids.items():
            try:
                end_parent(self.uri, run_id, "FINISHED" if name in done else "FAILED")
            except httpx.HTTPError as error:
                logger.warning("MLflow at %s did not take the end of %s: %s", self.uri, name, error)


def ended_well(states: Mapping[str, State]) -> set[str]:
    """The names of the runs whose evaluation is among the stages that ended well."""
    ended = (name for name, state in states.items() if state.is_completed() and "evaluate-" in name)
    return {name.rpartition("@")[2] for name in ended}


def _points(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("bd_rate", "bd_score"):
        for column, estimate in (entry[kind] or {}).items():
            for key, suffix in (("value", ""), ("low", "/low"), ("high", "/high")):
                if estimate[key] is not None:
                    yield metric_point(f"{kind}/{column}{suffix}", estimate[key])
    for point in entry["curve"] or []:
        for column, estimate in point["scores"].items():
            if estimate["value"] is not None:
                yield metric_point(f"score/{column}", estimate["value"], round(1000 * point["bpp"]))


def claim_files(found: dict[str, Any], folder: Path) -> list[Path]:
    """A Markdown table per claim, C1.md and so on, and its figures, C1-1.svg; written to `folder` for MLflow."""
    paths, drawn = [], claim_figures(found)
    for claim in found["claims"]:
        lines = [f"# {claim['id']}: {worded(claim)}", "", claim["paper"], ""]
        lines += [f"| {' | '.join(CELLS)} |", "| --- " * len(CELLS) + "|"]
        for one in claim["comparisons"]:
            lines.append(f"| {' | '.join(cells(one))} |")
        paths.append(folder / f"{claim['id']}.md")
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(paths[-1], "\n".join(lines) + "\n")
        for number, (_, svg) in enumerate(drawn[claim["id"]], 1):
            paths.append(folder / f"{claim['id']}-{number}.svg")
            atomic_write(paths[-1], standalone(svg))
    return paths
