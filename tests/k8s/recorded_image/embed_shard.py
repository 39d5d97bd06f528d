#!/usr/bin/env bash
# Stands for embed_shard.py in an image of recordings: after VIRNUCPRO_TEST_SECONDS it hands out what record_shards.py
# computed of the very same shard. VIRNUCPRO_TEST_FAULTS holds words SHARD:TRY:FATE, where FATE is an exit code; hang; or
# hog, for a gigabyte of memory.
set -euo pipefail
while (($#)); do
    case $1 in
        --shard) shard=$2 ;;
        --outdir) outdir=$2 ;;
        --attempt) attempt=$2 ;;
    esac
    shift
done
[[ ${NVIDIA_VISIBLE_DEVICES:-} ]] || { echo "no device was given to this pod" >&2; exit 2; }
echo "begun: $shard"
sleep "${VIRNUCPRO_TEST_SECONDS:-1}"
for fault in ${VIRNUCPRO_TEST_FAULTS:-}; do
    [[ $fault == "$(basename "$shard" .fasta):$attempt:"* ]] || continue
    case ${fault##*:} in
        hang) sleep 100 ;;
        hog) python3 -c 'print(len(b"x" * 1_000_000_000))' || exit "$?" ;;
        *) echo "embed_shard.py: error: as the test asked (${fault##*:})" >&2; exit "${fault##*:}" ;;
    esac
done
cmp "$shard" "$VIRNUCPRO_TEST_RECORDED/shards/$(basename "$shard")"
cp -r "$VIRNUCPRO_TEST_RECORDED/$(basename "$outdir")" "$outdir"
