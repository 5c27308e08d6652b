"""The deployment shard-dataset/local, as README and its own docstring have it."""

import numpy as np
from PIL import Image

from components.files import read_json
from flows import services
from tests.flows.conftest import run_deployment


def test_a_folder_is_packed_but_for_what_is_poisoned(running, tmp_path):
    services.up(running)
    random = np.random.default_rng(3)
    (tmp_path / "photos").mkdir()
    for index in range(3):
        pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    whole = (tmp_path / "photos/0.png").read_bytes()
    (tmp_path / "photos/cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos/flipped.png").write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    said = run_deployment(running, "shard-dataset/local", source=str(tmp_path / "photos"), out=str(tmp_path / "shards"))
    assert "Completed" in said
    manifest = read_json(tmp_path / "shards/manifest.json")
    assert manifest["images"] == 3
    assert [skipped["name"] for skipped in manifest["skipped"]] == ["cut.png", "flipped.png"]
    assert all((tmp_path / "shards" / shard["file"]).exists() for shard in manifest["shards"])
