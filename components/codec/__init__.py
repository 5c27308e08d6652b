"""Variable-rate learned image codecs, their guidance, and the `.cotam` bitstream.

Names are imported when they are first used, so that `cotam inspect` reads a container without importing torch.
"""

from importlib import import_module

_HOMES = {"Codec": "codec", "Decoded": "codec", "CodecConfig": "config"}  # components/closure.py reads it
__all__ = ["Codec", "CodecConfig", "Decoded"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
