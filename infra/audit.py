"""Compares requirements.lock with the known vulnerabilities (pip-audit, PyPI's advisories), and says what it could not.

    make audit                     fails on a vulnerability, and where not everything could be looked up
    make audit WHERE_REACHABLE=1   as continuous integration runs it: on a vulnerability alone, and loudly otherwise
"""

import argparse
import json
import subprocess
import sys

COMMAND = ("uvx", "--quiet", "pip-audit", "--requirement", "requirements.lock", "--no-deps", "--disable-pip")


def judge(report: str) -> tuple[list[str], list[str], int]:
    """What pip-audit's JSON says: vulnerabilities, packages that it could not look up, and how many it has.

    Raises:
        ValueError: it is no such report.
    """
    try:
        found = json.loads(report)["dependencies"]
    except (TypeError, KeyError) as error:
        raise ValueError(f"no dependencies: {error}") from error
    known = [
        f"{one['name']} {one['version']}: {fault['id']} (mended in {', '.join(fault['fix_versions']) or 'no version'})"
        for one in found
        for fault in one.get("vulns", ())
    ]
    return known, [one["name"] for one in found if "skip_reason" in one], len(found)


def main() -> int:
    """Audit, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--where-reachable", action="store_true", help="pass where advisories cannot be reached")
    lenient = parser.parse_args().where_reachable
    try:
        done = subprocess.run([*COMMAND, "--format", "json"], capture_output=True, text=True, timeout=300, check=False)
        known, skipped, count = judge(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        print(f"NOT AUDITED: pip-audit could not be run ({error}).", file=sys.stderr)
        return 0 if lenient else 1
    for vulnerability in known:
        print(vulnerability, file=sys.stderr)
    if skipped:
        some = ", ".join(skipped[:5])
        print(f"NOT AUDITED: {len(skipped)} of {count} packages, {some} ...: no advisories of them.", file=sys.stderr)
    else:
        print(f"{count} packages, {len(known)} known vulnerabilities.")
    return 1 if known or (skipped and not lenient) else 0


if __name__ == "__main__":
    sys.exit(main())
