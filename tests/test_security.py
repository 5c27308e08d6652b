"""What the project must never do, whoever wrote the file that it is given."""

import ast
import io
import os
import struct
import tarfile
import zlib
from pathlib import Path

import pytest

from components import cli
from components.errors import CotamError
from components.paths import ROOT
from tests.pictures import file_bytes, noise

SOURCES = [path for name in ("components", "flows", "pipelines", "benchmarks") for path in (ROOT / name).rglob("*.py")]
PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
KNOWN_AS = {"pickle", "torch", "yaml", "os"}  # under no other name, or what is called of them would not be seen
UNPACKERS = {"extractall", "unpack_archive"}  # trust the names in an archive
WAYS_TO_RUN_TEXT = {"eval", "exec"}


def faults(source: str) -> list[str]:
    """What a program does that it must not: unpickle, unpack where an archive says, run text, build unsafe YAML."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"imports {one.name}" for one in node.names if one.name.split(".")[0] in PICKLERS - {"pickle"}]
            found += [f"hides {one.name} as {one.asname}" for one in node.names if one.asname and one.name in KNOWN_AS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLERS:
            found.append(f"imports from {node.module}")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle":
            if node.attr != "UnpicklingError":  # which torch raises when it refuses
                found.append(f"uses pickle.{node.attr}")
        elif isinstance(node, ast.Call):
            found += _faults_of_call(node)
    return found


def _faults_of_call(call: ast.Call) -> list[str]:
    given = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
    if isinstance(call.func, ast.Name):
        return [f"calls {call.func.id}"] if call.func.id in WAYS_TO_RUN_TEXT else []
    if not isinstance(call.func, ast.Attribute):
        return []
    module = call.func.value.id if isinstance(call.func.value, ast.Name) else ""
    name = f"{module}.{call.func.attr}"
    loader = next((word.value for word in call.keywords if word.arg == "Loader"), None)
    wrong = {
        "torch.load": given.get("weights_only") is not True,
        "torch.save": True,
        "np.load": given.get("allow_pickle", False) is not False,  # NumPy's default refuses
        "pd.read_pickle": True,
        "yaml.load": not (isinstance(loader, ast.Name) and loader.id == "_Loader"),
        "yaml.unsafe_load": True,
        "os.system": True,
    }
    if wrong.get(name) or call.func.attr in UNPACKERS or given.get("shell") is True:
        return [f"calls {name}"]
    return []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_unpacks_or_runs_what_it_is_given(path):
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(b'')",
        "from pickle import loads",
        "import pickle as p\np.loads(b'')",
        "import torch as t\nt.load(path)",
        "import joblib",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.save(model, path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_each_of_these_is_noticed(source):
    assert faults(source)


def test_the_settings_are_read_by_a_safe_loader():
    import yaml

    from components import config

    assert issubclass(config._Loader, yaml.SafeLoader)


def test_no_weights_that_ship_are_a_pickle():
    shipped = [path for path in (ROOT / "pretrained").rglob("*") if path.is_file()]
    assert shipped
    for path in shipped:
        start = path.read_bytes()[:4]
        assert not start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")), path


def test_an_archive_cannot_write_outside_the_folder(tmp_path, capsys, injected):
    source = tmp_path / "a/b/source"
    source.mkdir(parents=True)
    content = file_bytes(noise(1), "PNG")
    with tarfile.open(source / "photos.tar", "w") as tar:
        for name in ("../../evil.png", "/evil.png", str(tmp_path / "evil.png"), "good.png"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../secret.png"
        tar.addfile(link)
    injected("archive", 4)
    before = set(tmp_path.rglob("*"))
    assert cli.main(["shard", str(source), "-o", str(tmp_path / "a/b/out")]) == 0
    written = set(tmp_path.rglob("*")) - before
    assert written and all(path.is_relative_to(tmp_path / "a/b/out") for path in written)
    assert not Path("/evil.png").exists()
    for shard in (tmp_path / "a/b/out").glob("*.tar"):
        with tarfile.open(shard) as tar:
            assert all(member.isfile() and "/" not in member.name and ".." not in member.name for member in tar)
    capsys.readouterr()


def bomb(width: int, height: int) -> bytes:
    """The first bytes of a PNG of that size; what it shows does not follow."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT"


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)])
def test_absurd_dimensions_are_refused_before_anything_is_decoded(width, height):
    from components.data.images import open_image

    with pytest.raises(CotamError, match="has more than 100000000 pixels"):
        open_image(bomb(width, height))  # had it decoded, it would call this damaged


def test_secrets_are_files_of_their_owner_alone(tmp_path):
    from flows import service_options

    service_options.password(tmp_path)
    service_options.write_mlflow_users(tmp_path, "sqlite:///users.db")
    files = list((tmp_path / "secrets").iterdir())
    assert len(files) == 2 and all(path.stat().st_mode & 0o077 == 0 for path in files)
    assert os.stat(tmp_path / "secrets").st_mode & 0o077 == 0


def test_nothing_that_git_keeps_looks_like_a_secret():
    import re
    import subprocess

    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pattern = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----|://[^/\s:@{}$]+:[^/\s:@{}$]{8,}@")
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 1_000_000 and name != "tests/test_security.py":
            assert not pattern.search(path.read_text(errors="replace")), name
