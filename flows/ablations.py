"""Variants of the main run: chosen by name, run side by side, and held against the paper's claims.

    prefect deployment run ablations/local --watch
    prefect deployment run ablations/local --watch --param 'variants=["no-*", "k-*"]'
    prefect deployment run ablations/local --watch --param 'seeds=[7, 8, 9]'
    prefect deployment run ablations/local --watch --param profile=world
    prefect deployment run ablations/cluster --watch

The main run, the variants that the chosen ones are held against, and what a variant needs of another that it shares an
adapter with, are run too if they are not up to date. A stage that fails is tried again; what does not depend on it goes
on; the verdicts are given on what there is. With a profile all of that happens in a copy (`flows/workspace.py`), and
the results come back under `results/runs/<name>`.
"""

import os
import time
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from components import config
from components.errors import CotamError
from components.files import atomic_write, read_json
from components.locks import die_with_parent
from components.paths import ROOT
from components.reporting.ablation_summary import worded
from components.reporting.partners import with_partners
from components.variant_checks import check_models
from components.variants import Run, choose
from flows import workspace
from flows.ablation_records import VariantRecords, claim_files, ended_well
from flows.dvc_graph import MAIN, Stage, read_graph
from flows.judging import VERDICTS, give_verdicts, judged
from flows.pipeline import Job, PipelineFailed, check, run_stages
from flows.records import end_parent, start_parent
from flows.train_and_eval import end_abandoned, mlflow_answers
from pipelines.generate import ABLATIONS
from pipelines.generate import ablations as ablations_file


@flow(name="ablations")
def ablations(
    variants: list[str] | None = None,
    seeds: list[int] | None = None,
    profile: str | None = None,
    name: str | None = None,
    retries: int = 1,
    project: str | None = None,
    remote: bool = False,
) -> None:
    """Run variants that are not up to date, record all that were asked for, and give the verdicts.

    Args:
        variants: names or patterns (`no-*`) of entries of `variants` in the settings; all of them by default. What they
            are held against is run as well (components/reporting/partners.py).
        seeds: of their trainings, `seed` or of `more_seeds`; `seed` alone by default.
        profile: `profiles/<profile>.yaml`, whose values replace those of params.yaml; its `variants`, if it has any,
            are then the only ones.
        name: of the run in MLflow, and of a profile's results; by default `ablations`, with the profile and what was
            chosen of it.
        retries: how often a stage that failed is tried again.
        project: the checkout to run; the one that this code is in by default.
        remote: stages run on other machines, which share the DVC remote and have this revision checked out; the
            verdicts are given here.

    Raises:
        CotamError: a setting, a variant, a pattern or the name is wrong, or other machines would not know the variants,
            before anything runs; or MLflow does not answer.
        PipelineFailed: a stage failed. All that does not depend on it has run, and the verdicts are there.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        die_with_parent()
    checkout = Path(project or ROOT).resolve()
    name = workspace.check_name(name or _name(profile, variants, seeds))
    if remote and profile:
        raise CotamError("Other machines do not see a profile: commit the changed params.yaml and run that.")
    settings = workspace.settings_with(checkout, profile)
    chosen = _choose(settings, variants or ["*"], seeds or [settings.seed])
    check_models(settings, (run.variant for run in chosen), checkout)
    folder = workspace.open_changed(checkout, name, profile, {})
    _write_pipeline(folder, remote)
    if remote:
        workspace.refuse_edits(checkout)
    stages = needed(read_graph(folder, (MAIN, ABLATIONS)), chosen)
    get_run_logger().info("%d runs of variants, %d stages.", len(chosen), len(stages))
    try:
        _run(folder, settings, chosen, stages, name, retries, remote)
    except PipelineFailed:
        if folder != checkout:
            get_run_logger().warning("What there is lies in %s; the same command goes on there.", folder / "results")
        raise
    results = workspace.copy_back(folder, checkout, name) if folder != checkout else checkout / "results"
    get_run_logger().info("The report is %s.", results / "ablations/index.html")


def _choose(settings: config.Settings, patterns: list[str], seeds: list[int]) -> list[Run]:
    """The runs that were asked for, and those without which there would be no verdict on them.

    Raises:
        CotamError: a pattern fits nothing, or a seed is not in the settings.
    """
    asked = {run.variant for run in choose(settings, patterns, seeds)}
    names = with_partners(settings, asked)
    if added := [name for name in names if name not in asked]:
        get_run_logger().info("Also run, as what was chosen is held against them: %s.", ", ".join(added))
    return choose(settings, names, seeds)


def _name(profile: str | None, variants: list[str] | None, seeds: list[int] | None) -> str:
    """Of a run: with a profile, another choice has results of its own."""
    if not profile:
        return "ablations"
    chosen = {"variants": ",".join(variants or ()), "seeds": ",".join(map(str, seeds or ()))}
    return f"ablations-{workspace.run_name(profile, {key: value for key, value in chosen.items() if value})}"


def needed(graph: list[Stage], chosen: list[Run]) -> list[Stage]:
    """The stages that the chosen runs, and what they are held against, consist of or depend on, in an order in which
    they can run."""
    wanted = judged(Path(), chosen)
    ends = [stage for stage in graph if stage.name in wanted]
    names = {stage.name for stage in ends}.union(*(stage.upstream for stage in ends))
    return [stage for stage in graph if stage.name in names]


def _run(
    checkout: Path,
    settings: config.Settings,
    chosen: list[Run],
    stages: list[Stage],
    name: str,
    retries: int,
    remote: bool,
) -> None:
    uri, begun = os.environ.get("MLFLOW_TRACKING_URI", ""), time.time()
    source = workspace.source_of(checkout)
    tags = {"flow": "ablations", "mlflow.source.git.commit": source.revision, "dirty": str(source.dirty).lower()}
    tags |= {"variants": ", ".join(dict.fromkeys(run.variant for run in chosen)), "prefect_flow_run": flow_run.id}
    with mlflow_answers(uri):
        end_abandoned(uri)
        parent = start_parent(uri, name, checkout, tags)
        records = VariantRecords(uri, parent, settings, chosen)
    status, files, states, results = "FAILED", [], {}, checkout / "results/ablations"
    try:
        states = run_stages(
            stages, lambda stage: Job(checkout, _tracking(uri, records.run_of(stage.name) or parent), remote), retries
        )
        states |= give_verdicts(checkout, chosen, states, _tracking(uri, parent), remote)
        if VERDICTS in states and states[VERDICTS].is_completed():
            found = read_json(results / "verdicts.json")
            _say(found, time.time() - begun)
            files = [results / "verdicts.json", results / "index.html", *claim_files(found, checkout / ".cotam/run")]
            records.add_verdicts(found, ended_well(states))
        try:
            check(states)
        except PipelineFailed as failed:
            raise PipelineFailed(f"{_broken(states, chosen)} {failed}") from None
        status = "FINISHED"
    finally:
        records.end(states)
        end_parent(uri, parent, status, files)


def _tracking(uri: str, mlflow_run: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": uri, "COTAM_PARENT_RUN": mlflow_run}


def _broken(states: dict, chosen: list[Run]) -> str:
    """Which variants have no results of this run, in a sentence."""
    ended = ended_well(states)
    missing = [run.name for run in chosen if run.name not in ended]
    said = f"{len(chosen) - len(missing)} of {len(chosen)} runs ended well"
    return f"{said}; not {', '.join(missing)}." if missing else f"{said}."


def _say(found: dict, seconds: float) -> None:
    logger = get_run_logger()
    for claim in found["claims"]:
        logger.info("%s %s: %s", claim["id"], worded(claim), claim["paper"])
    logger.info("That took %.0f s.", seconds)


def _write_pipeline(checkout: Path, remote: bool) -> None:
    """Bring the ablation pipeline up to date with params.yaml, as `python -m pipelines.generate` does.

    Raises:
        CotamError: it is not, and other machines have it as it was committed.
    """
    path, text = checkout / ABLATIONS, ablations_file(checkout)
    if not path.exists() or path.read_text() != text:
        if remote:
            raise CotamError(
                f"{ABLATIONS} is not what params.yaml and the code say, and the other machines have the committed one: "
                "run `python -m pipelines.generate`, commit, and bring all of them to that commit."
            )
        atomic_write(path, text)
        get_run_logger().info("%s has been written anew, as the variants or their code have changed.", ABLATIONS)
