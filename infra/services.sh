#!/usr/bin/env bash
# Have PostgreSQL, OpenStack Swift (an S3 store) and `ip`, which `cotam services up --postgres --s3` and `make cluster-test` use.
set -uo pipefail

wanted=()
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || wanted+=(postgresql)
[ -e /usr/lib/python3/dist-packages/swift/proxy/server.py ] ||
    wanted+=(swift-proxy swift-account swift-container swift-object)
{ command -v ip || [ -x /usr/sbin/ip ]; } >/dev/null || wanted+=(iproute2)
[ ${#wanted[@]} = 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "services: install ${wanted[*]} (the names are Debian's); without apt-get this script cannot" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || { echo "services: as root, run: apt-get install ${wanted[*]}" >&2; exit 1; }
    as_root=(sudo -n)
fi
echo "services: installing Debian's ${wanted[*]}" >&2
# Debian may start a PostgreSQL of its own on port 5432; ours is another, on another port.
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c \
    "apt-get update -qq && apt-get install -y -qq --no-install-recommends ${wanted[*]}" >/dev/null || {
    echo "services: apt-get install ${wanted[*]} failed" >&2
    exit 1
}
