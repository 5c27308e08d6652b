"""Which variants must be there beside the chosen ones, so that these can be judged."""

from collections.abc import Iterable

from components.config import Settings
from components.reporting.ablation_claims import claims
from components.variants import runs

HELD_AGAINST = ("full", "no-guidance")
"""What many are compared with. The other side of a comparison is not added: it may take hours to train, and is named as
missing."""


def with_partners(settings: Settings, chosen: Iterable[str]) -> list[str]:
    """The chosen variants and those that they are held against, in the order of the settings.

    That is `full`; `no-guidance`, where a claim compares with it; the variant whose adapter another uses
    (`adapter_of`), by whose results that one's are judged; and for a codec or MLLM that the main run does not have, the
    variant that is that codec alone.
    """
    wanted = set(chosen)
    compared = [
        {variant for pair in expectation.number.pairs for variant in pair}
        for _, _, expectations in claims(settings)
        for expectation in expectations
    ]
    wanted |= {"full"} | {one for sides in compared if sides & (wanted - {"full"}) for one in sides & {*HELD_AGAINST}}
    of_variant = {run.variant: run for run in runs(settings)}
    main = {(codec, mllm) for codec in settings.codecs for mllm in settings.mllms}
    for variant in wanted & of_variant.keys():
        run = of_variant[variant]
        wanted.add(settings.variants[variant].adapter_of)
        if (run.codec, run.mllm) not in main:
            wanted |= {
                name
                for name, other in of_variant.items()
                if other.is_codec_alone and (other.codec, other.mllm) == (run.codec, run.mllm)
            }
    return [name for name in settings.variants if name in wanted]
