"""A real headless Chromium, so that a test sees what a reader sees. Nothing but the browser itself is needed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no name resolves: neither the page nor the browser reaches a network
)
PATIENCE = 600
"""Seconds; a loaded machine with two cores takes a minute to start a browser."""


def find() -> str | None:
    """The path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


needed = pytest.mark.skipif(find() is None, reason=f"none of {', '.join(NAMES)} is installed: apt-get install chromium")
"""Marks tests that open a page; `make test` installs a browser."""


def run(page: Path, profile: Path, *flags: str) -> tuple[str, str]:
    """Open a file with extra flags; return what Chromium wrote to stdout and to stderr."""
    command = [find(), *FLAGS, f"--user-data-dir={profile}", *flags, page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout, done.stderr


def rendered(page: Path, folder: Path) -> tuple[str, str, list[str]]:
    """The DOM after the page has loaded as HTML, the browser's log, and the addresses that the page asked for."""
    network = folder / "network.json"
    dom, log = run(page, folder / "profile", "--dump-dom", f"--log-net-log={network}")
    return dom, log, _asked_by_page(network.read_text(encoding="utf-8"))


def screenshot(page: Path, target: Path, folder: Path, width: int = 1440, height: int = 1200) -> None:
    """A PNG of the page's first `height` pixels."""
    run(page, folder / "profile", f"--screenshot={target}", f"--window-size={width},{height}")


def _asked_by_page(log: str) -> list[str]:
    """Addresses in a network log, without those that the browser asks for on its own account."""
    log = log.rstrip()
    events = json.loads(log.rstrip(",") + "]}" if log.endswith(",") else log)["events"]  # cut short or not
    requests = [event["params"] for event in events if "initiator" in event.get("params", {})]
    return [request["url"] for request in requests if request["initiator"] != "not an origin"]
