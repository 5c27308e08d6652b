"""A copy of the checkout to run other settings in, while the checkout itself stays as it is.

It holds HEAD plus every edit and new file of the working tree, shares the DVC cache (so that only stages which the
changed settings touch are run), and is kept until its run has finished: the same command after a kill goes on in it.
"""

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components import config
from components.config import override, read_yaml
from components.errors import CotamError
from components.evaluation.task_results import DATA
from components.files import atomic_dir, read_json, write_json


@dataclass(frozen=True)
class Source:
    """What a run is made from.

    Attributes:
        revision: the commit that is checked out, "" outside git.
        patch: what differs from it, as `git diff --binary` (new files included); empty when nothing does.
    """

    revision: str
    patch: bytes

    @property
    def dirty(self) -> bool:
        """Whether anything differs from the revision."""
        return bool(self.patch)


def source_of(project: Path) -> Source:
    """The revision of a checkout, and what was edited or added since."""
    if not (project / ".git").exists():
        return Source("", b"")
    patch = _git(project, "diff", "--binary", "HEAD")
    new = _git(project, "ls-files", "--others", "--exclude-standard", "-z").decode().split("\0")
    for name in filter(None, new):
        # git says 1 when the files differ, which an existing file and nothing always do
        patch += _git(project, "diff", "--binary", "--no-index", "--", "/dev/null", name, ok=(0, 1))
    return Source(_git(project, "rev-parse", "HEAD").decode().strip(), patch)


def refuse_edits(project: Path) -> None:
    """Make sure that machines which have the commit have all that a run is made of.

    Raises:
        CotamError: settings, pipelines or code differ from the commit.
    """
    if not (project / ".git").exists():
        return
    made_of = ("params.yaml", "dvc.yaml", ".dvc/config", "data", "pipelines", "components", "pretrained")
    edited = _git(project, "status", "--porcelain", "--", *made_of, ":(exclude)*dvc.lock").decode().splitlines()
    if edited:
        more = f" and {len(edited) - 1} more are" if len(edited) > 1 else " is"
        raise CotamError(
            f"Other machines have what is committed, which {edited[0][3:]}{more} not: commit, and bring all of them to "
            "that commit."
        )


def changed_settings(project: Path, profile: str | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `project` with a profile's values and single values put in.

    Args:
        project: has params.yaml and profiles/<profile>.yaml.
        profile: its values replace those of the same keys; variants that it names stand in place of all others.
        overrides: dotted key -> value; text is read as it would be in params.yaml.

    Raises:
        CotamError: there is no such profile or key.
    """
    settings = read_yaml(project / "params.yaml")
    if profile:
        path = project / "profiles" / f"{profile}.yaml"
        if not path.exists():
            raise CotamError(f"There is no profile {profile}: {path} does not exist.")
        values = read_yaml(path)
        if values.get("variants"):
            settings["variants"] = {}
        _merge(settings, values)
    for key, value in overrides.items():
        override(settings, key, value if isinstance(value, str) else json.dumps(value))
    return settings


def settings_with(project: Path, profile: str | None) -> config.Settings:
    """The checked settings of `project`, or those of a run of it with a profile.

    Raises:
        CotamError: there is no such profile, or a setting is out of range.
    """
    if not profile:
        return config.load(project / "params.yaml")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{profile}.yaml"  # which a wrong setting is said to be in
        path.write_text(yaml.safe_dump(changed_settings(project, profile, {}), sort_keys=False))
        return config.load(path)


def run_name(profile: str | None, overrides: Mapping[str, Any]) -> str:
    """A file name that says what was changed."""
    words = [profile] if profile else []
    words += [f"{key.rpartition('.')[2]}={value}" for key, value in sorted(overrides.items())]
    said = ",".join(words)
    name = "".join(c if c.isalnum() or c in "=.,_-" else "-" for c in said)
    if name == said and len(name) <= 60:
        return name
    tail = hashlib.sha256(repr(sorted(overrides.items())).encode()).hexdigest()[:6]
    return f"{name[:50]}-{tail}"


def check_name(name: str) -> str:
    """The name of a run, which its results' folder has too.

    Raises:
        CotamError: no folder can have it here.
    """
    if "/" in name or name.startswith("."):
        raise CotamError(f"A run cannot be called {name}: a folder has that name too, so no slash and no dot in front.")
    return name


def open_changed(project: Path, name: str, profile: str | None, overrides: Mapping[str, Any]) -> Path:
    """Where a run with these changes takes place: a workspace called `name`, or without changes `project` itself.

    Raises:
        CotamError: as `changed_settings` and `open_workspace` do.
    """
    if not (profile or overrides):
        return project
    return open_workspace(project, name, changed_settings(project, profile, overrides))


def open_workspace(project: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """Make (or, after a kill, find again) the copy of `project` for the run `name`, with these settings.

    Raises:
        CotamError: the project is not a git checkout, or a setting is out of range.
    """
    if not (project / ".git").exists():
        raise CotamError(f"{project} is not a git checkout, which a run with other settings is copied from.")
    source, folder = source_of(project), project / ".cotam" / "workspaces" / name
    text = yaml.safe_dump(dict(settings), sort_keys=False)
    made_of = {
        "revision": source.revision,
        "content": hashlib.sha256(source.patch + text.encode()).hexdigest(),
    }
    stamp = folder / ".cotam" / "workspace.json"
    if not (stamp.exists() and read_json(stamp) == made_of):
        with atomic_dir(folder) as copy:
            _git(project, "clone", "--quiet", "--shared", "--no-checkout", str(project), str(copy))
            _git(copy, "checkout", "--quiet", "--detach", source.revision)
            if source.patch:
                _git(copy, "apply", "--binary", "--whitespace=nowarn", "-", stdin=source.patch)
            (copy / "params.yaml").write_text(text)
            if (copy / "components" / "config.py").exists():
                config.load(copy / "params.yaml")
            _share_cache(project, copy)
            write_json(copy / ".cotam" / "workspace.json", made_of)
    _share_benchmarks(project, folder)
    return folder


def copy_back(workspace: Path, project: Path, name: str) -> Path:
    """Copy the workspace's results and settings to `results/runs/<name>` of the project, and remove the workspace."""
    target = project / "results" / "runs" / name
    with atomic_dir(target) as copy:
        if (workspace / "results").is_dir():
            shutil.copytree(workspace / "results", copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs"))
        shutil.copy2(workspace / "params.yaml", copy / "params.yaml")
    shutil.rmtree(workspace)
    return target


def _share_cache(project: Path, copy: Path) -> None:
    from dvc.repo import Repo

    local = project / ".dvc" / "config.local"
    if local.exists():
        shutil.copy2(local, copy / ".dvc" / "config.local")
    with Repo(str(project)) as repo:
        cache = repo.cache.legacy.path.removesuffix("/files/md5")
    with Repo(str(copy)) as repo, repo.config.edit("local") as config:
        config["cache"]["dir"] = str(Path(cache))


def _share_benchmarks(project: Path, copy: Path) -> None:
    """lmms-eval's data is read where it lies: it is no part of the source, nor in the DVC cache."""
    if (project / DATA).is_dir() and not (copy / DATA).exists():
        (copy / DATA).parent.mkdir(exist_ok=True)
        (copy / DATA).symlink_to(project / DATA)


def _merge(settings: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(settings.get(key), dict):
            _merge(settings[key], value)
        else:
            settings[key] = value


def _git(folder: Path, *arguments: str, stdin: bytes | None = None, ok: tuple[int, ...] = (0,)) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=folder, input=stdin, capture_output=True)
    if done.returncode not in ok:
        said = done.stderr.decode(errors="replace").strip()
        raise CotamError(f"git {arguments[0]} failed in {folder}: {said}")
    return done.stdout
