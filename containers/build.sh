#!/usr/bin/env bash
# Builds the two images under the names that the profiles look for; with `sif` their Apptainer files too, with `push`
# they go to the registry that REGISTRY names (ghcr.io/OWNER), which --container_registry then takes.
#   containers/build.sh [sif | push]
# CUDA=12 builds the embed image for drivers older than 580, under the same name: the profiles know no other. ENGINE
# (docker or podman) builds; BASE names another Debian base, such as a mirror's copy; MKSQUASHFS_ARGS goes to apptainer:
# "-comp zstd -Xcompression-level 1" is three times as fast where every host's kernel reads it.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-docker}
case ${CUDA:-13} in
12) lock=requirements-cu12.lock ;;
13) lock=requirements.lock ;;
*) echo "CUDA=$CUDA: must be 12 or 13" >&2 && exit 2 ;;
esac
[[ ${1:-} != push || -n ${REGISTRY:-} ]] || { echo "push: REGISTRY must name a registry, as ghcr.io/OWNER" >&2 && exit 2; }
version=$(sed -n "s/^ *version = '\(.*\)'/\1/p" nextflow.config | head -n 1)
archive=$(mktemp --suffix .tar)
trap 'rm -f "$archive"' EXIT
for name in tools embed; do
    image=virnucpro-$name:$version
    choice=()
    if [[ $name == embed ]]; then choice=(--build-arg "LOCK=$lock"); fi
    "$engine" build --build-arg "BASE=${BASE:-debian:bookworm-slim}" --build-arg "VERSION=$version" \
        ${choice[@]+"${choice[@]}"} --file "containers/$name.Dockerfile" --tag "$image" .
    if [[ ${1:-} == push ]]; then
        "$engine" tag "$image" "$REGISTRY/$image"
        "$engine" push "$REGISTRY/$image"
    elif [[ ${1:-} == sif ]]; then
        "$engine" save --output "$archive" "$image"
        apptainer build --force ${MKSQUASHFS_ARGS:+--mksquashfs-args "$MKSQUASHFS_ARGS"} \
            "containers/${image/:/-}.img" "docker-archive:$archive"
    fi
done
