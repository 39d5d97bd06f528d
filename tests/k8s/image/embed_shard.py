#!/usr/bin/env bash
# Stands before the real embed_shard.py in an image without a GPU's driver: computes on the CPU what a pod with a GPU is
# told to compute on it. VIRNUCPRO_TEST_FAULTS holds words SHARD:TRY:CODE, tries that end with an exit code; or
# SHARD:TRY:hog, for one that wants more memory than it may have.
set -euo pipefail
arguments=() shard='' attempt=''
[[ ${NVIDIA_VISIBLE_DEVICES:-} ]] || { echo "no device was given to this pod" >&2; exit 2; }
while (($#)); do
    case $1 in
        --shard) shard=$(basename "$2" .fasta) ;;
        --attempt) attempt=$2 ;;
    esac
    if [[ ${arguments[*]: -1} == --device ]]; then arguments+=(cpu); else arguments+=("$1"); fi
    shift
done
for fault in ${VIRNUCPRO_TEST_FAULTS:-}; do
    [[ $fault == "$shard:$attempt:"* ]] || continue
    if [[ ${fault##*:} == hog ]]; then
        python3 -c 'print(len(b"x" * 2_000_000_000))' >/dev/null || exit "$?"
    else
        exit "${fault##*:}"
    fi
done
exec "$(type -aP embed_shard.py | sed -n 2p)" "${arguments[@]}"
