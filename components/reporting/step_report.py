"""The last step: everything that a run found, as summary.json and as a page (index.html).

Both are functions of the other steps' files alone. When the run was, how long the report took and at which Git revision
goes into run.json beside them, outside what DVC caches.
"""

import time
from dataclasses import replace

from components.files import atomic_write, write_json
from components.reporting.collect import CodedFiles, allocation, examples_section, matched_settings
from components.reporting.examples import read_answers
from components.reporting.gather import provenance, summarise_run
from components.reporting.page import Pictures, render
from components.reporting.run_record import write_run_record
from components.reporting.scores import method_of
from components.reporting.verdict_list import claims_json
from components.step_inputs import StepInputs


def run(inputs: StepInputs) -> None:
    """Write summary.json and index.html, and run.json into the report's own folder."""
    started = time.time()
    params, paths = inputs.params, inputs.paths
    pairs = [(codec, mllm) for codec in params.codecs for mllm in params.mllms]
    evaluation = params.evaluation
    summary = summarise_run(paths, pairs, evaluation.bootstrap, params.seed, evaluation.tasks)
    pictures, summary["allocation"] = _pictures(inputs, summary, pairs)
    summary["claims"] = claims_json(summary)
    page = render(summary, params.as_dict(), provenance(paths), pictures)

    write_json(inputs.out / "summary.json", summary)
    atomic_write(inputs.out / "index.html", page)
    write_run_record(paths, started)


def _pictures(inputs: StepInputs, summary: dict, pairs: list[tuple[str, str]]) -> tuple[Pictures, dict]:
    """Pictures of the first codec and MLLM; the changes of allocation of every codec."""
    changes, pictures = {}, Pictures()
    for codec, mllm in pairs:
        if codec in changes:
            continue
        coded_files = CodedFiles(inputs.paths, codec, replace(inputs, codec=codec).codec_weights)
        curves = {method: method_of(summary, codec, method, mllm)["curve"] for method in (codec, "cotam")}
        settings = matched_settings(curves, codec)
        rows, changes[codec] = allocation(coded_files, curves[codec], settings["cotam"])
        if pictures.examples is None:
            answers = read_answers(inputs.paths.scores(codec, mllm) / "samples", {"clean": "-", **settings})
            pictures = Pictures(rows, examples_section(coded_files, answers, curves, mllm))
    return pictures, changes
