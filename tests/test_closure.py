"""The code that a stage depends on: all that it imports, and nothing that it does not."""

import textwrap

import pytest

from components.closure import LAZY, import_closure
from components.paths import ROOT
from components.steps import STEPS, find


@pytest.fixture
def project(tmp_path):
    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return lambda module: [path.as_posix() for path in import_closure(module, tmp_path, without=("pkg.log",))]

    return write


def test_follows_every_way_to_import(project):
    closure = project(
        {
            "pkg/__init__.py": "",
            "pkg/a.py": """
                import os, numpy
                import pkg.b
                from pkg import c, log
                from pkg.sub import name
                from . import d
                from .sub import e as other

                def later():
                    if os.name:
                        from pkg import f
            """,
            **{f"pkg/{name}.py": "" for name in ("b", "c", "d", "f", "log", "unused")},
            "pkg/sub/__init__.py": "from .inner import name",
            "pkg/sub/inner.py": "from ..g import x",
            "pkg/sub/e.py": "",
            "pkg/g.py": "",
        }
    )
    names = ["a", "b", "c", "d", "f", "g", "sub/__init__", "sub/e", "sub/inner"]
    assert closure("pkg.a") == ["pkg/__init__.py", *(f"pkg/{name}.py" for name in names)]


def test_type_checking_does_not_count_but_its_else_does(project):
    closure = project(
        {
            "pkg/a.py": """
                import typing
                if typing.TYPE_CHECKING:
                    from pkg import b
                else:
                    from pkg import c
            """,
            "pkg/b.py": "",
            "pkg/c.py": "",
        }
    )
    assert closure("pkg.a") == ["pkg/a.py", "pkg/c.py"]


def test_circles_end_and_templates_belong_to_the_modules_beside_them(project):
    closure = project({"pkg/a.py": "import pkg.b", "pkg/b.py": "import pkg.a", "pkg/page.html": "", "pkg/x/y.css": ""})
    assert closure("pkg.a") == ["pkg/a.py", "pkg/b.py", "pkg/page.html"]


def test_a_name_that_a_package_imports_when_it_is_first_used(project):
    lazy = """
        from importlib import import_module
        _HOMES = {"Big": "big", "Small": "small"}
        def __getattr__(name):
            return getattr(import_module(f"pkg.lazy.{_HOMES[name]}"), name)
    """
    files = {"lazy/__init__": lazy, "lazy/big": "from pkg import c", "lazy/small": "", "c": ""}
    files = {f"pkg/{name}.py": text for name, text in files.items()}
    closure = project(files | {"pkg/a.py": "from pkg.lazy import Big", "pkg/b.py": "import pkg.lazy.small"})
    assert closure("pkg.a") == ["pkg/a.py", "pkg/c.py", "pkg/lazy/__init__.py", "pkg/lazy/big.py"]
    assert closure("pkg.b") == ["pkg/b.py", "pkg/lazy/__init__.py", "pkg/lazy/small.py"]


def test_no_package_hides_what_it_imports():
    """A package that imports by name, as text, must say which in a table that the closure reads."""
    for path in ROOT.glob("components/**/__init__.py"):
        assert "import_module" not in path.read_text() or f"{LAZY} = {{" in path.read_text(), path


@pytest.mark.parametrize("name", ["rate", "warmup", "joint", "evaluate"])
def test_what_codes_or_decodes_depends_on_the_codec(name):
    files = {path.as_posix() for path in import_closure(find(name).module)}
    assert {f"components/codec/{part}.py" for part in ("codec", "wire", "exact", "transforms", "fast")} <= files


def test_an_unknown_module(project):
    with pytest.raises(FileNotFoundError, match="no module pkg"):
        project({})("pkg.a")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_no_step_depends_on_the_registry_or_on_the_command_line(step):
    names = {path.as_posix() for path in import_closure(step.module)}
    assert not names & {"components/cli.py", "components/steps.py"}
    assert not [name for name in names if name.startswith(("components/commands", "components/tracking", "flows"))]


def test_a_step_does_not_depend_on_another_step():
    modules = {step.module.replace(".", "/") + ".py" for step in STEPS}
    for step in STEPS:
        names = {path.as_posix() for path in import_closure(step.module)}
        assert names & modules == {step.module.replace(".", "/") + ".py"}
