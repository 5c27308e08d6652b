"""Encode the benchmarks as a variant does, where nobody else does it so: streams.zip, and its sizes in rates.json."""

from components.evaluation.coding import Coder, load_guide
from components.evaluation.pictures import benchmark_pictures
from components.evaluation.rate import BENCH, SCHEMA, Job, code, rates_of_styles
from components.evaluation.streams import AVIF, COTAM, Setting, write_streams
from components.files import write_json
from components.progress import track
from components.step_inputs import StepInputs
from components.workers import run_jobs


def run(inputs: StepInputs) -> None:
    """Code the images of the benchmarks' style at the variant's qualities."""
    params, variant, paths = inputs.params, inputs.run, inputs.paths
    if variant.coded_as == AVIF:
        settings = [Setting(AVIF, str(quality)) for quality in params.evaluation.avif_qualities]
    else:
        settings = [Setting(COTAM, str(quality)) for quality in params.evaluation.qualities]
    pictures = {BENCH: benchmark_pictures(paths.benchmarks / BENCH)}
    jobs = [Job(setting, BENCH) for setting in settings]

    def start():
        coder = _coder(inputs)
        return lambda job: code(coder, job.setting, pictures[BENCH])

    done = dict(track(run_jobs(jobs, start, params.threads), "encoding the benchmarks", len(jobs)))
    coded = {job: done[job] for job in jobs}
    write_streams(inputs.out / "streams.zip", ((job.setting, BENCH, coded[job].files) for job in jobs))
    rates = {"schema": SCHEMA, "codec": inputs.codec, "styles": rates_of_styles(pictures, coded)}
    write_json(inputs.out / "rates.json", rates)


def _coder(inputs: StepInputs) -> Coder:
    from components.codec import Codec

    if inputs.run.coded_as == AVIF:
        return Coder(None)
    own = inputs.paths.root / inputs.run.model / "codec"
    guide = load_guide(**inputs.params.guidance.as_dict() | {"tower": inputs.tower_weights})
    return Coder(Codec.from_pretrained(own if inputs.run.own_codec else inputs.codec_weights), guide)
