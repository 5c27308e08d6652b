#!/usr/bin/env bash
# Make .venv as requirements.lock says, with `cotam` of this checkout in it. Does nothing when that is already so.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

# One hash for all that an installation depends on; the checkout's path is part of it, because .venv points to it.
wanted=$( { cat requirements.lock pyproject.toml; pwd; } | sha256sum | cut -d' ' -f1)
stamp=.venv/.cotam-setup

mkdir -p .cotam
exec 9>.cotam/setup.lock
flock 9 # a second `make` waits for the first

[ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

find_uv() {
    if command -v uv >/dev/null; then
        uv=uv
        return
    fi
    uv=.cotam/bootstrap/bin/uv
    [ -x "$uv" ] && return
    if ! command -v python3 >/dev/null; then
        say "python3 is missing; install it (on Debian: apt-get install python3 python3-venv) and run make again."
        exit 1
    fi
    say "installing uv into .cotam/bootstrap"
    rm -rf .cotam/bootstrap
    if python3 -m venv .cotam/bootstrap >/dev/null 2>&1; then
        .cotam/bootstrap/bin/python -m pip install --quiet --disable-pip-version-check uv
    elif python3 -m pip --version >/dev/null 2>&1; then # Debian without python3-venv
        python3 -m pip install --quiet --disable-pip-version-check --target .cotam/bootstrap uv
    else
        say "python3 can neither make a virtual environment nor run pip; on Debian: apt-get install python3-venv."
        exit 1
    fi
}

find_uv
say "installing the pinned libraries into .venv (several GB with CUDA's; the first time takes minutes)"
# numpy 1.26 has no wheels beyond Python 3.12. uv fetches a Python where the machine has none that fits.
"$uv" venv --quiet --allow-existing --python '>=3.11,<3.13' .venv
export VIRTUAL_ENV=$PWD/.venv
# Compiled once here, not by every process: a stage imports for 10 seconds then, otherwise for 30.
"$uv" pip install --compile-bytecode --requirements requirements.lock
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .
echo "$wanted" >"$stamp"
say "done"
