#!/usr/bin/env bash
# The suite's two halves side by side: the flows, which wait for servers and workers most of the time, and everything else,
# which computes on one core. What the flows' half said is printed when both have ended. Arguments go to both.
set -uo pipefail
set -m # each half is a process group of its own, which Ctrl-C reaches through the trap: it stops the services it started
cd "$(dirname "$0")/.."

export OMP_NUM_THREADS=1
log=.cotam/test-flows.log
mkdir -p .cotam
python -m pytest -q -p no:cacheprovider "$@" tests/flows >"$log" 2>&1 </dev/null &
flows=$!
python -m pytest -q "$@" --ignore=tests/flows </dev/null &
rest=$!
trap 'kill -INT -- -"$flows" -"$rest" 2>/dev/null; wait; exit 130' INT TERM
wait "$rest"
of_rest=$?
wait "$flows"
of_flows=$?
echo "== tests/flows"
cat "$log"
exit $((of_rest ? of_rest : of_flows))
