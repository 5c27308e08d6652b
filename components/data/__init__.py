"""Image sources (a folder, S3) -> checked images -> WebDataset shards -> training images in a reproducible order.

Names are imported when they are first used: `cotam encode` needs the image checks and none of the rest.
"""

from importlib import import_module

_HOMES = {"ShardReader": "reader", "open_image": "images", "shard_folder": "sharding"}  # components/closure.py reads it
__all__ = ["ShardReader", "open_image", "shard_folder"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
