"""The deployment shard-dataset/local, as README and its own docstring have it."""

import numpy as np
from PIL import Image

from components.files import read_json
from flows import services
from tests.flows.conftest import run_deployment


def test_a_folder_is_packed(running, tmp_path):
    services.up(running)
    random = np.random.default_rng(3)
    (tmp_path / "photos").mkdir()
    for index in range(3):
        pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    said = run_deployment(running, "shard-dataset/local", source=str(tmp_path / "photos"), out=str(tmp_path / "shards"))
    assert "Completed" in said
    manifest = read_json(tmp_path / "shards/manifest.json")
    assert manifest["images"] == 3
    assert all((tmp_path / "shards" / shard["file"]).exists() for shard in manifest["shards"])
