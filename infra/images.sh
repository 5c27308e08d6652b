#!/usr/bin/env bash
# Build the images of infra/Dockerfile where there is neither Docker nor a registry: buildah, on a Debian that debootstrap
# makes (on Debian: apt-get install buildah debootstrap). As root, since debootstrap makes devices.
#   infra/images.sh [cpu] [cuda] [kubernetes]
# Each is cotam:NAME in buildah's store. About 8 GB, and as many again while it builds.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "images: $*" >&2; }

for tool in buildah debootstrap; do
    command -v "$tool" >/dev/null || { say "$tool is missing; on Debian: apt-get install buildah debootstrap."; exit 1; }
done
[ "$(id -u)" = 0 ] || { say "run this as root."; exit 1; }

# Without namespaces of its own, so that it works inside a container too.
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
targets=("$@")
[ $# -gt 0 ] || targets=(cpu cuda kubernetes)
base=$(sed -n 's/^FROM \(.*\) AS base$/\1/p' infra/Dockerfile)
release=${base#debian:} release=${release%-slim}

if ! buildah inspect --type image "docker.io/library/$base" >/dev/null 2>&1; then
    say "making $base"
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    debootstrap --variant=minbase --include=ca-certificates "$release" "$folder/root" >&2
    # A proxy's own certificates, as this machine trusts them.
    cp -r /usr/local/share/ca-certificates/. "$folder/root/usr/local/share/ca-certificates/" 2>/dev/null || true
    chroot "$folder/root" update-ca-certificates >&2
    chroot "$folder/root" apt-get clean
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$folder/root" / >/dev/null
    authorities=/etc/ssl/certs/ca-certificates.crt
    buildah config --cmd /bin/bash --env PIP_CERT=$authorities --env SSL_CERT_FILE=$authorities "$container"
    buildah commit --quiet --rm "$container" "docker.io/library/$base" >/dev/null
fi

for target in "${targets[@]}"; do
    say "building cotam:$target"
    buildah bud --pull-never --layers --file infra/Dockerfile --ignorefile infra/Dockerfile.dockerignore \
        --target "$target" --tag "cotam:$target" .
done
