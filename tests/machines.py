"""Machines that share nothing but a network: network namespaces on a switch, each with a folder that no other sees.

A process of a machine has its network alone (`ip netns`), and a mount namespace in which the machine's folder is at
`HOME` and the folders of all others are gone. Needs root and iproute2.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_MOUNT = 'mount --bind "$1" "$2" && mount -t tmpfs none "$3" && cd "$2" && shift 3 && exec "$@"'
_IP = shutil.which("ip") or "/usr/sbin/ip"


@dataclass
class Machine:
    """One of them.

    Attributes:
        name: what it is called.
        address: on the switch, 10.77.0.x.
        namespace: of its network.
        outside: its folder, as whoever tests sees it.
        home: the same, as its own processes see it.
        environment: of all its processes.
    """

    name: str
    address: str
    namespace: str
    outside: Path
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *command: str) -> list[str]:
        """`command`, to be started by the machine."""
        mount = ["unshare", "--mount", "sh", "-ec", _MOUNT, "sh"]
        folders = [str(self.outside), str(self.home), str(self.outside.parent)]
        return [_IP, "netns", "exec", self.namespace, *mount, *folders, *command]

    def run(self, *command: str, timeout: float = 600) -> str:
        """Run something to its end, and return what it prints."""
        done = subprocess.run(
            self.command(*command), env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, f"{self.name}: {' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, log: str, *command: str) -> subprocess.Popen:
        """Start something that stays."""
        with (self.outside / log).open("ab") as output:
            return subprocess.Popen(
                self.command(*command), env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def processes(self) -> list[int]:
        """The numbers of all its processes."""
        done = subprocess.run([_IP, "netns", "pids", self.namespace], capture_output=True, text=True)
        return [int(word) for word in done.stdout.split()]

    def cut_power(self) -> int:
        """SIGKILL to everything that it runs, and its cable pulled; how many processes there were."""
        subprocess.run([_IP, "-n", self.namespace, "link", "set", "eth0", "down"], check=True)
        killed = 0
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
            time.sleep(0.05)
        return killed


@contextmanager
def machines(folder: Path, names: list[str], environment: Mapping[str, str]) -> Iterator[dict[str, Machine]]:
    """Machines of these names, on one switch; they and all that they run are gone when the block ends."""
    _clear_away()
    mark, home = f"cotam{os.getpid()}", folder / "home"
    home.mkdir()
    switch, made = f"{mark}-switch", {}
    _ip("netns", "add", switch)
    try:
        _ip("-n", switch, "link", "add", "switch0", "type", "bridge")
        _ip("-n", switch, "link", "set", "switch0", "up")
        for number, name in enumerate(names, 1):
            namespace = f"{mark}-{name}"
            _ip("netns", "add", namespace)
            made[name] = _machine(name, number, namespace, folder / "machines" / name, home, environment)
            port = f"port{number}"
            _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("-n", switch, "link", "set", port, "master", "switch0", "up")
            for arguments in (("link", "set", "lo", "up"), ("link", "set", "eth0", "up")):
                _ip("-n", namespace, *arguments)
            _ip("-n", namespace, "address", "add", f"{made[name].address}/24", "dev", "eth0")
        yield made
    finally:
        for machine in made.values():
            machine.cut_power()
        for namespace in [*(machine.namespace for machine in made.values()), switch]:
            subprocess.run([_IP, "netns", "delete", namespace], capture_output=True)


def refused() -> str:
    """Why such machines cannot be had here: what the system says; nothing where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = f"cotam{os.getpid()}-probe"
    inside = ["netns", "exec", probe, "unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        _ip("netns", "add", probe)
        _ip("-n", probe, "link", "add", "switch0", "type", "bridge")
        _ip("-n", probe, "link", "add", "port0", "type", "veth", "peer", "name", "eth0")
        _ip(*inside)
    except OSError as error:
        return str(error)
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip() or error}"
    else:
        return ""
    finally:
        subprocess.run([_IP, "netns", "delete", probe], capture_output=True)


def _machine(name: str, number: int, namespace: str, outside: Path, home: Path, environment: Mapping[str, str]):
    outside.mkdir(parents=True)
    own = {"HOME": str(home), "DVC_SITE_CACHE_DIR": str(home / "dvc"), "TMPDIR": str(home / "tmp")}
    (outside / "tmp").mkdir()
    return Machine(name, f"10.77.0.{number}", namespace, outside, home, {**environment, **own})


def _clear_away() -> None:
    """End what a test left that was killed: its process number is in the names of its networks."""
    listed = subprocess.run([_IP, "netns", "list"], capture_output=True, text=True).stdout
    for namespace, pid in re.findall(r"^(cotam(\d+)-\S+)", listed, re.MULTILINE):
        if not Path(f"/proc/{pid}").exists():
            pids = subprocess.run([_IP, "netns", "pids", namespace], capture_output=True, text=True).stdout.split()
            for one in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(one), signal.SIGKILL)
            subprocess.run([_IP, "netns", "delete", namespace], capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run([_IP, *arguments], check=True, capture_output=True, text=True)
