"""Encode the benchmarks with every method at every quality: streams.zip, and what it weighs in rates.json."""

import torch

from components.codec import Codec
from components.evaluation.benchmarks import STYLES
from components.evaluation.coding import Coder, load_guide
from components.evaluation.pictures import benchmark_pictures, photographs
from components.evaluation.rate import PHOTOGRAPHS, code, jobs_of, map_costs, rates, settings_of, time_encoding
from components.evaluation.streams import write_streams
from components.files import write_json
from components.progress import track
from components.step_inputs import StepInputs
from components.workers import run_jobs

TIMED = 16  # images of the benchmarks


def run(inputs: StepInputs) -> None:
    """Code the images of both styles, and with and without guidance the photographs."""
    params, name = inputs.params, inputs.codec
    qualities = {
        "codec": params.evaluation.qualities,
        "jpeg": params.evaluation.jpeg_qualities,
        "webp": params.evaluation.webp_qualities,
    }
    pictures = {style: benchmark_pictures(inputs.paths.benchmarks / style) for style in STYLES}
    pictures[PHOTOGRAPHS] = photographs()
    jobs = jobs_of(settings_of(name, qualities), STYLES, photographs=True)

    def start():
        coder = _coder(inputs)
        return lambda job: code(coder, job.setting, pictures[job.pictures])

    # The longest first, so that no worker is left with one at the end.
    waiting = sorted(jobs, key=lambda job: (job.setting.method in ("jpeg", "webp"), job.pictures != PHOTOGRAPHS))
    done = dict(track(run_jobs(waiting, start, params.threads), "encoding the benchmarks", len(jobs)))
    coded = {job: done[job] for job in jobs}

    torch.set_num_threads(1)
    coder = _coder(inputs)
    timed = {image: pictures["bench"][image] for image in list(pictures["bench"])[:TIMED]}
    encode_ms = time_encoding(coder, name, timed, str(params.evaluation.qualities[0]))
    map_bits = map_costs(coder.guide, pictures["bench"])
    found = rates(name, pictures, coded, map_bits, params.guidance.grid**2, encode_ms)

    files = ((job.setting, job.pictures, coded[job].files) for job in jobs if job.pictures != PHOTOGRAPHS)
    write_streams(inputs.out / "streams.zip", files)
    write_json(inputs.out / "rates.json", found)
    for method, points in found["styles"]["bench"]["methods"].items():
        pixels = sum(found["styles"]["bench"]["pixels"])
        for values in points.values():
            bpp = sum(values["bits"]) / pixels
            inputs.log.metric(f"psnr.{method}", sum(values["psnr"]) / len(values["psnr"]), round(1000 * bpp))


def _coder(inputs: StepInputs) -> Coder:
    guidance = inputs.params.guidance
    guide = load_guide(inputs.tower_weights, layers=guidance.layers, grid=guidance.grid, k=guidance.k)
    return Coder(Codec.from_pretrained(inputs.codec_weights), guide)
