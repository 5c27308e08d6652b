"""The last step of the ablation pipeline: verdicts.json, the page that shows it, and the verdicts on the terminal."""

from rich.console import Console

from components import config
from components.evaluation.variant_results import Reader
from components.files import atomic_write, write_json
from components.reporting.ablation_page import render
from components.reporting.ablation_summary import print_verdicts, summarise
from components.step_inputs import StepInputs
from components.variants import runs


def run(inputs: StepInputs) -> None:
    """Compare all variants that have results; those without, or with stale ones, are named."""
    params = inputs.params
    settings = config.load(inputs.paths.root / "params.yaml")
    results = Reader(params.evaluation.bootstrap, params.seed).results(inputs.paths.root, runs(settings), settings)
    found = summarise(results, settings)
    write_json(inputs.out / "verdicts.json", found)
    atomic_write(inputs.out / "index.html", render(found))
    print_verdicts(found, Console())
    for name, entry in found["variants"].items():
        value = (entry["bd_rate"] or {}).get("mean", {}).get("value")
        if value is not None:
            inputs.log.metric(f"bd_rate/{name}", value)
