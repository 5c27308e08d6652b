"""Every claim that a run can answer, as the page shows it and summary.json has it."""

from dataclasses import asdict

from components.reporting.claims import Claim, find_claims
from components.reporting.mllm_claims import larger_llava_claim, tiles_claim
from components.reporting.order import pairs_of
from components.reporting.videos import videos_claim


def claims_of(summary: dict) -> list[Claim]:
    """By id. Those about one MLLM are about the first that the settings name, with the first codec."""
    codec, mllm = pairs_of(summary)[0]
    of_several = (larger_llava_claim(summary, codec), tiles_claim(summary, codec), videos_claim(summary, codec))
    found = [*find_claims(summary, codec, mllm), *filter(None, of_several)]
    return sorted(found, key=lambda claim: int(claim.id.removeprefix("C")))


def claims_json(summary: dict) -> dict:
    """The same for summary.json (docs/summary-schema.md)."""
    codec, mllm = pairs_of(summary)[0]
    return {"codec": codec, "mllm": mllm, "found": [asdict(claim) for claim in claims_of(summary)]}
