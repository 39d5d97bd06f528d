#!/usr/bin/env bash
# Stands before the real embed_shard.py in the PATH of the retry tests, and ends some tries of some shards:
#   VIRNUCPRO_TEST_FAULTS='shard-00000:1:75 shard-00001:1:KILL ...'   words are SHARD:TRY:FATE
# FATE: an exit code; a signal for the task's shell; `hang`; or `late-` and an exit code, after the real work is done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../stand_in.sh"

for fault in ${VIRNUCPRO_TEST_FAULTS:-}; do
    if [[ $fault == "$shard:$attempt:"* ]]; then
        case ${fault##*:} in
            KILL | TERM) kill "-${fault##*:}" "$PPID"; exit 1 ;;
            hang) exec sleep 60 ;;
            late-*) "$real" "${arguments[@]}"; exit "${fault##*-}" ;;
            *) exit "${fault##*:}" ;;
        esac
    fi
done
exec "$real" "${arguments[@]}"
