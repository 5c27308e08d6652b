"""The deployment shard-dataset/local, as README and its own docstring have it."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image

from components.data.parts import folder_of_parts, shard_parts
from components.errors import CotamError
from components.files import read_json, sha256_tree
from flows import services
from flows.shard_dataset import _refuse_other_disks
from tests.flows.conftest import last_words, run_deployment
from tests.pictures import folder_of, noise


def test_a_folder_is_packed_but_for_what_is_poisoned(running, tmp_path, injected):
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
    injected("picture", 2)
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


def packing(out):
    """The processes that pack a part of `out`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if command[1:4] == ["-m", "components.cli", "shard"] and str(out) in command and "--part" in command:
                found.append(process)
    return found


def shards_below(root):
    """Whether any are there, finished or not; folders come and go meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return any(root.rglob("*.tar*"))
    return False


def kill_a_part(project, part):
    part.kill()


def kill_the_worker(project, part):
    worker = psutil.Process(services.status(project)["worker"]["pid"])
    worker.kill()
    worker.wait(30)


@pytest.mark.soak
@pytest.mark.parametrize("kill", [kill_a_part, kill_the_worker])
def test_a_kill_while_parts_are_made_and_the_same_command_again(running, tmp_path, injected, kill):
    services.up(running)
    photos, out = tmp_path / "photos", tmp_path / "shards"
    photos.mkdir()
    for number in range(60):
        noise(number, 900, 700).save(photos / f"{number}.png", compress_level=1)
    options = {"source": str(photos), "out": str(out), "parts": 3}
    root = folder_of_parts(out, 3)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_deployment, running, "shard-dataset/local", **options)
        deadline = time.monotonic() + 120
        while not ((parts := packing(out)) and shards_below(root)):  # one is being written
            assert not run.done() and time.monotonic() < deadline
            time.sleep(0.02)
        kill(running, parts[0])
        injected("sharding")
        services.up(running)  # which calls the runs of a dead worker crashed
        with pytest.raises(AssertionError, match=r"Failed|Crashed"):
            run.result()
    assert not out.exists()
    deadline = time.monotonic() + 60
    while packing(out):  # none outlives its worker
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "Completed" in run_deployment(running, "shard-dataset/local", **options)
    shard_parts(photos, tmp_path / "same", 3)
    assert sha256_tree(out) == sha256_tree(tmp_path / "same")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "same", "shards"]
