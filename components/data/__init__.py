"""Image sources (a folder, S3) -> checked images -> WebDataset shards -> training images in a reproducible order.

The names are loaded when they are asked for: `cotam encode` needs the image checks and none of the rest.
"""

from typing import Any

__all__ = ["ShardReader", "open_image", "shard_folder"]


def __getattr__(name: str) -> Any:
    if name == "open_image":
        from components.data.images import open_image

        return open_image
    if name == "ShardReader":
        from components.data.reader import ShardReader

        return ShardReader
    if name == "shard_folder":
        from components.data.sharding import shard_folder

        return shard_folder
    raise AttributeError(f"module {__name__} has no {name}")
