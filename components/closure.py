"""Which project files a module's behaviour comes from: what it imports, and what that imports, in functions too.

A pipeline stage depends on exactly these files, so that a change of code re-runs the stages that the code is part of
and no other. Imports are read from the source; nothing is executed. Files that are not Python (a page's template)
belong to the modules beside them.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from components.paths import ROOT

ONLY_REPORTS = ("components.tracking", "components.progress")
"""Code that says what a step does and cannot change what it does."""
LAZY = "_HOMES"
"""What a package calls its table {name: module of the package} of names that it imports when they are first used."""


def import_closure(module: str, root: Path = ROOT, without: tuple[str, ...] = ONLY_REPORTS) -> list[Path]:
    """The files of the project that `module` consists of, sorted, relative to `root`.

    Imports inside functions count; those under `if TYPE_CHECKING:` do not, because they never run.

    Args:
        module: dotted name, such as "components.training.step_joint".
        root: the checkout.
        without: modules and packages that are left out, with what only they import.

    Raises:
        FileNotFoundError: there is no such module in the project.
    """
    if _file(module, root) is None:
        raise FileNotFoundError(f"there is no module {module} below {root}")
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name, root)
        if path is None and (home := _home(name, root)):
            waiting.append(home)
        left_out = any(name == other or name.startswith(f"{other}.") for other in without)
        if path is None or name in found or left_out:
            continue
        found[name] = path
        parts = name.split(".")
        waiting.extend(".".join(parts[:depth]) for depth in range(1, len(parts)))  # Python runs their __init__ first
        waiting.extend(_imports(name, path))
    files = set(found.values())
    for folder in {path.parent for path in files}:
        files.update(path for path in folder.iterdir() if path.is_file() and path.suffix not in (".py", ".pyc", ".tmp"))
    return sorted(path.relative_to(root) for path in files)


def _file(module: str, root: Path) -> Path | None:
    """The source of a module or package of the project; None for a library, or for a name that is not a module."""
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _home(name: str, root: Path) -> str | None:
    """The module that a package's table of lazy names has for the dotted `name`; None if there is no such table."""
    package, _, last = name.rpartition(".")
    path = _file(package, root) if package else None
    if path is None or path.name != "__init__.py":
        return None
    for node in ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == LAZY:
            home = ast.literal_eval(node.value).get(last)
            return home and f"{package}.{home}"
    return None


def _imports(module: str, path: Path) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _run_time_nodes(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *base.split(".")]).strip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)  # a submodule or a mere name


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from _run_time_nodes(other)
        else:
            yield child
            yield from _run_time_nodes(child)
