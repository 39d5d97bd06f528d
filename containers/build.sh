#!/usr/bin/env bash
# Builds the two images, and with `sif` also their Apptainer files.
#   containers/build.sh [sif]
# ENGINE (docker or podman) builds; BASE names another Debian base, such as a mirror's copy.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-docker}
version=$(sed -n "s/^ *version = '\(.*\)'/\1/p" nextflow.config | head -n 1)
for name in tools embed; do
    "$engine" build --build-arg "BASE=${BASE:-debian:bookworm-slim}" --build-arg "VERSION=$version" \
        --file "containers/$name.Dockerfile" --tag "virnucpro-$name:$version" .
    if [[ ${1:-} == sif ]]; then
        archive=$(mktemp --suffix .tar)
        trap 'rm -f "$archive"' EXIT
        "$engine" save --output "$archive" "virnucpro-$name:$version"
        apptainer build --force "containers/virnucpro-$name-$version.sif" "docker-archive:$archive"
        rm -f "$archive"
    fi
done
