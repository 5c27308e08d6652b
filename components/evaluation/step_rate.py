"""Encode the benchmarks with every method at every quality: streams.zip, and what it weighs in rates.json.

Videos too, where the step `benchmarks` wrote any.
"""

import torch

from components.codec import Codec
from components.evaluation.benchmarks import STYLES
from components.evaluation.clip_coding import clip_jobs, code_clips
from components.evaluation.clips import clip_pixels
from components.evaluation.coding import Coder, Guide, load_guide
from components.evaluation.known_maps import KnownMaps
from components.evaluation.pictures import benchmark_pictures, photographs
from components.evaluation.rate import (
    PHOTOGRAPHS,
    Coded,
    Job,
    code,
    jobs_of,
    map_costs,
    rates,
    rates_of_style,
    settings_of,
)
from components.evaluation.streams import CLIPS, write_streams
from components.files import write_json
from components.placing import best_device
from components.progress import track
from components.step_inputs import StepInputs
from components.workers import run_jobs


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
    jobs, of_clips = jobs_of(settings_of(name, qualities), STYLES, photographs=True), []
    folder = inputs.paths.benchmarks / CLIPS
    if folder.is_dir():
        of_clips = clip_jobs(settings_of(name, qualities), name)

    def start():
        coder = Coder(Codec.from_pretrained(inputs.codec_weights, best_device()), KnownMaps(_guide(inputs)))

        def do(job: Job) -> Coded:
            if job.pictures == CLIPS:
                return code_clips(coder, job.setting, folder)
            return code(coder, job.setting, pictures[job.pictures])

        return do

    # The longest first, so that no worker is left with one at the end.
    waiting = of_clips + sorted(
        jobs, key=lambda job: (job.setting.method in ("jpeg", "webp"), job.pictures != PHOTOGRAPHS)
    )
    done = dict(track(run_jobs(waiting, start, params.threads), "encoding the benchmarks", len(waiting)))
    coded = {job: done[job] for job in jobs}

    torch.set_num_threads(1)  # as the images were coded, so that these are the maps in their files
    found = rates(name, pictures, coded, map_costs(_guide(inputs), pictures["bench"]))

    if of_clips:
        found["styles"][CLIPS] = rates_of_style(clip_pixels(folder), ((job.setting, done[job]) for job in of_clips))

    kept = [job for job in (*jobs, *of_clips) if job.pictures != PHOTOGRAPHS]
    files = ((job.setting, job.pictures, done[job].files) for job in kept)
    write_streams(inputs.out / "streams.zip", files)
    write_json(inputs.out / "rates.json", found)
    for method, points in found["styles"]["bench"]["methods"].items():
        pixels = sum(found["styles"]["bench"]["pixels"])
        for values in points.values():
            bpp = sum(values["bits"]) / pixels
            inputs.log.metric(f"psnr.{method}", sum(values["psnr"]) / len(values["psnr"]), round(1000 * bpp))


def _guide(inputs: StepInputs) -> Guide:
    guidance = inputs.params.guidance
    return load_guide(**guidance.as_dict() | {"tower": inputs.tower_weights}, device=best_device())
