"""In which order codecs and MLLMs are shown: that of the settings, so that whatever is named first is the headline."""


def codecs_of(summary: dict) -> list[str]:
    """The codecs of a summary; by name where it was written before summaries said an order."""
    return _ordered(summary["codecs"], summary.get("order", {}).get("codecs", []))


def mllms_of(summary: dict, codec: str) -> list[str]:
    """The MLLMs that were asked about a codec's images, the same way."""
    asked = {mllm for by_mllm in summary["codecs"].get(codec, {}).values() for mllm in by_mllm}
    return _ordered(asked, summary.get("order", {}).get("mllms", []))


def pairs_of(summary: dict) -> list[tuple[str, str]]:
    """Every (codec, MLLM); the first is what the headline is about."""
    return [(codec, mllm) for codec in codecs_of(summary) for mllm in mllms_of(summary, codec)]


def _ordered(names, order: list[str]) -> list[str]:
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))
