#!/usr/bin/env bash
# Have a headless browser for the report's test, where this machine lets us install one; else that test says it skips.
set -uo pipefail

for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && exit 0
done
command -v apt-get >/dev/null || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || exit 0
    as_root=(sudo -n)
fi
echo "browser: installing Debian's chromium" >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c \
    'apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core' >/dev/null 2>&1 ||
    echo "browser: chromium could not be installed; the browser test will be skipped" >&2
