"""Ask the MLLM about a variant's files: scores.json, which holds settings and rates too, and metrics.json.

Only what the variant itself brings is asked about: clean images, the codec alone and the yardsticks are the main
pipeline's.
"""

from components.evaluation.evaluate import evaluate, scores_json
from components.evaluation.metrics import points_of
from components.evaluation.rate import BENCH
from components.evaluation.scores import COLUMNS, LEVELS
from components.evaluation.streams import Setting
from components.evaluation.variant_receive import VariantModels
from components.evaluation.variant_record import made_of, variant_record
from components.files import read_json, write_json
from components.step_inputs import StepInputs


def run(inputs: StepInputs) -> None:
    """Evaluate one run of a variant on the benchmarks' style."""
    variant, paths = inputs.run, inputs.paths
    coded = paths.root / variant.streams
    model = paths.root / variant.model if variant.model else None
    models = VariantModels(
        method=variant.method,
        receive=variant.receive,
        codec=model / "codec" if variant.own_codec else inputs.codec_weights,
        mllm=inputs.mllm_weights,
        model=model,
        benchmarks=paths.benchmarks,
        streams=coded / "streams.zip",
    )
    wanted = inputs.params.evaluation["avif_qualities" if variant.coded_as == "avif" else "qualities"]
    settings = [Setting(variant.coded_as, str(quality)) for quality in wanted]
    outcomes = evaluate(models, [BENCH], inputs.work, inputs.params.threads, settings)
    found = scores_json(variant.codec, variant.mllm, outcomes, models)["styles"][BENCH]
    rates = read_json(coded / "rates.json")["styles"][BENCH]
    files = {quality: rates["methods"][variant.coded_as][quality] for quality in map(str, wanted)}
    write_json(
        inputs.out / "scores.json",
        {
            **variant_record(variant, inputs.params.as_dict()),
            "made_of": made_of(variant, paths.root),
            "rates": {"images": rates["images"], "pixels": rates["pixels"], "files": files},
            "questions": found["questions"],
            "scores": found["scores"][variant.coded_as],
        },
    )
    metrics: dict[str, float] = {}
    for point in points_of(found):
        quality = point.setting.quality
        metrics[f"bpp.{quality}"] = point.bpp
        metrics |= {f"score.{quality}.{name}": point.scores[name] for name in (*COLUMNS, *LEVELS)}
        step = round(1000 * point.bpp)
        inputs.log.metrics({f"score/{name}": point.scores[name] for name in (*COLUMNS, *LEVELS)}, step)
    write_json(inputs.out / "metrics.json", metrics)
