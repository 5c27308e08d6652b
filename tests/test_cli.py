"""The command line as a shell sees it: exit codes, one-sentence errors, and help that answers at once."""

import os
import subprocess
import sys

import pytest

from components import cli
from components.errors import CotamError
from components.paths import ROOT

HEAVY = ("torch", "transformers", "lmms_eval", "mlflow", "compressai", "prefect", "dvc", "matplotlib", "scipy")


def shell(*arguments, cwd=ROOT, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "components.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, **options)


@pytest.fixture
def command(monkeypatch):
    """Replace what `cotam inspect` does."""

    def replace(function):
        module = type(sys)("stand_in")
        module.add_parser = lambda sub: sub.add_parser("inspect").add_argument("file")
        module.run = function
        monkeypatch.setitem(sys.modules, "components.commands.inspect", module)

    return replace


def raising(error):
    def run(args):
        raise error

    return run


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom components import cli\n"
        "for arguments in (['--help'], ['step', '--help']):\n"
        "    try: cli.main(arguments)\n"
        "    except SystemExit as end: assert end.code == 0\n"
        f"print('heavy:', sorted(set(sys.modules) & set({HEAVY})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: []\n")
    assert all(name in done.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "example" in out
    assert f"cotam {name}" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "cotam: the following arguments are required: COMMAND; see cotam --help\n"),
        (["step"], "cotam step: the following arguments are required: STEP; see cotam step --help\n"),
        (["step", "render", "--fast"], "cotam: unrecognized arguments: --fast; see cotam --help\n"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exits_with_2(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err == sentence


def test_an_unknown_command(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["encod", "photo.jpg"])
    assert end.value.code == 2
    assert "invalid choice: 'encod'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (CotamError("The file is damaged; send it again."), 1, "cotam: The file is damaged; send it again.\n"),
        (OSError(28, "No space left on device", "out.png"), 1, "cotam: out.png: No space left on device.\n"),
        (FileNotFoundError(2, "No such file", "a.cotam"), 1, "cotam: a.cotam: No such file.\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
    ],
)
def test_errors_are_one_sentence_and_an_exit_code(command, capsys, error, code, sentence):
    command(raising(error))
    assert cli.main(["inspect", "a.cotam"]) == code
    assert capsys.readouterr().err == sentence


def test_a_bug_keeps_its_traceback(command):
    command(raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["inspect", "a.cotam"])


def test_a_reader_that_goes_away_is_no_error():
    # More than a pipe holds, so that writing goes on after `head` has ended.
    code = (
        "import sys, types\nmodule = types.ModuleType('m')\n"
        "module.add_parser = lambda sub: sub.add_parser('inspect')\n"
        "module.run = lambda args: [print('x' * 80) for _ in range(10000)] and 0\n"
        "sys.modules['components.commands.inspect'] = module\n"
        "from components.cli import main\nsys.exit(main(['inspect']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_a_step_runs_the_code_of_the_checkout_it_is_started_in(checkout):
    done = shell("step", "render", cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert '"render"' in (checkout / "data/scenes/manifest.json").read_text()  # the stand-in's words


def test_a_misspelt_setting_stops_a_step(checkout):
    params = checkout / "params.yaml"
    params.write_text(params.read_text().replace("lambda_high", "lamda_high"))
    done = shell("step", "render", cwd=checkout)
    assert done.returncode == 1
    assert done.stderr == (
        "cotam: params.yaml: adapter.lamda_high is not a setting; did you mean adapter.lambda_high?\n"
    )
