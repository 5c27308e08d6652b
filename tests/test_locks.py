"""Two processes never run one stage, and no stage outlives what started it. Real processes, real kills."""

import os
import signal
import subprocess
import sys

import psutil

from components.paths import ROOT


def start(code: str, **options) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **options)


def read_pid(process: subprocess.Popen) -> psutil.Process:
    return psutil.Process(int(process.stdout.readline()))


def test_the_second_waits_for_the_first_and_a_kill_frees_the_lock(tmp_path):
    code = (
        "from pathlib import Path; from components.locks import stage_lock; from components.paths import Paths\n"
        f"with stage_lock('joint', Paths(Path({str(tmp_path)!r}))):\n"
        "    print('held', flush=True); input()\n"
    )
    first = start(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() == "held\n"
    second = start(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert second.stderr.readline() == "Waiting for another process that is running joint.\n"
    first.kill()
    assert second.stdout.readline() == "held\n"
    second.communicate("\n")
    assert second.returncode == 0
    first.communicate()


CHILD = "from components.locks import die_with_parent; die_with_parent(); import os, time\n"
CHILD += "print(os.getpid(), flush=True); time.sleep(600)"


def test_a_child_dies_with_its_parent():
    parent = start(
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])", stdout=subprocess.PIPE
    )
    child = read_pid(parent)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running()


def test_a_child_dies_with_the_driver_behind_its_shell():
    # "true" after the child keeps the shell from replacing itself with it.
    parent = start(
        "import shlex, subprocess, sys\n"
        f"subprocess.run(shlex.quote(sys.executable) + ' -c ' + shlex.quote({CHILD!r}) + '; true', shell=True)",
        stdout=subprocess.PIPE,
    )
    child = read_pid(parent)
    shell = child.parent()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    psutil.wait_procs([child, shell], timeout=60)
    assert not child.is_running()
