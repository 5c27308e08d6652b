"""The deployment shard-dataset/local, as README and its own docstring have it."""

import numpy as np
import pytest
from PIL import Image

from components.data.parts import shard_parts
from components.errors import CotamError
from components.files import read_json, sha256_tree
from flows import services
from flows.shard_dataset import _refuse_other_disks
from tests.flows.conftest import last_words, run_deployment
from tests.pictures import folder_of


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


def test_parts_are_shared_among_workers(running, tmp_path):
    services.up(running)
    folder_of(tmp_path / "photos", 9)
    said = run_deployment(
        running, "shard-dataset/local", source=str(tmp_path / "photos"), out=str(tmp_path / "shards"), parts=3
    )
    assert "Completed" in said
    shard_parts(tmp_path / "photos", tmp_path / "same", 3)
    assert sha256_tree(tmp_path / "shards") == sha256_tree(tmp_path / "same")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "same", "shards"]


def test_parts_on_other_disks_are_not_made_again_here(tmp_path):
    with pytest.raises(CotamError, match="Part 1 was made, but is not on this machine's disk"):
        _refuse_other_disks(tmp_path / "shards", 2)
    shard_parts(folder_of(tmp_path / "photos", 3), tmp_path / "shards", 2, 1)
    with pytest.raises(CotamError, match="Part 2 was made"):
        _refuse_other_disks(tmp_path / "shards", 2)


def test_parts_that_failed_are_counted_and_the_first_is_explained(running, tmp_path):
    services.up(running)
    nowhere = str(tmp_path / "none")
    with pytest.raises(AssertionError, match="Failed"):
        run_deployment(running, "shard-dataset/local", source=nowhere, out=str(tmp_path / "shards"), parts=2)
    said = last_words(running, "shard-dataset")
    assert "2 of 2 parts are missing" in said and f"{nowhere} does not exist" in said and "\n" not in said
