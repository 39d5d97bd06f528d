#!/usr/bin/env bash
# Stands before the real embed_shard.py in the PATH of the Slurm tests: notes which device the job holds, and lets the
# first try of a shard meet what befalls jobs on clusters. Shards are told apart by their numbers.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../runtimes/stand_in.sh"

# The scheduler's own name of the device. A lock of the kernel's tells whether another running task holds it too.
exec {holder}<>"$VIRNUCPRO_TEST_DIRECTORY/holder-${SLURM_JOB_GPUS:-none}"
flock --nonblock "$holder" || echo "two tasks on device ${SLURM_JOB_GPUS:-none}" >>"$VIRNUCPRO_TEST_DIRECTORY/violations"

allowed=()
for node in "$VIRNUCPRO_TEST_DIRECTORY"/cluster/nvidia*; do
    # No driver answers behind the pretend devices; what counts is whether the job may ask.
    if ! message=$( (exec 3<"$node") 2>&1) && [[ $message == *'not permitted'* ]]; then continue; fi
    allowed+=("${node##*nvidia}")
done
job=${SLURM_ARRAY_JOB_ID:+array:}$SLURM_JOB_ID
echo "$job device=${SLURM_JOB_GPUS:-} visible=${CUDA_VISIBLE_DEVICES:-} allowed=$(IFS=,; echo "${allowed[*]}")" \
    >>"$VIRNUCPRO_TEST_DIRECTORY/devices"


only_job_running() { [[ $(squeue --noheader --states running,completing --format %i | wc -l) == 1 ]]; }

if [[ ${VIRNUCPRO_TEST_FAULTS:-} && $attempt == 1 ]]; then
    case $shard in
        shard-00000) # cancelled by hand
            scancel "$SLURM_JOB_ID"
            sleep 60
            ;;
        shard-00001) sleep 300 ;; # over its time limit
        shard-00002)              # the node dies: nothing of the job is left to write an exit code
            mapfile -t others < <(grep --files-with-matches --null-data --no-messages \
                "^SLURM_JOB_ID=$SLURM_JOB_ID\$" /proc/[0-9]*/environ | cut -d / -f 3 | grep --invert-match --line-regexp $$)
            kill -STOP "${others[@]}" # or one may see another die, and write that down
            kill -KILL "${others[@]}" $$
            ;;
        shard-00004) # preempted, alone, by a job of a better partition that wants every device
            until only_job_running; do sleep 0.5; done
            sbatch --quiet --partition urgent --gres "gpu:$VIRNUCPRO_TEST_GPUS" --output /dev/null --wrap 'sleep 1'
            sleep 60
            ;;
    esac
fi
if [[ ${VIRNUCPRO_TEST_FAULTS:-} && $shard == shard-00003 ]]; then
    # More memory than the first try may use, less than the second.
    python3 -c 'print(len(b"x" * 1_400_000_000))' >/dev/null
    # Nothing enforces a limit without cgroups: what the kernel would do to the task, by hand.
    if [[ $VIRNUCPRO_TEST_FAULTS == open && $attempt == 1 ]]; then kill -KILL "$PPID"; exit 1; fi
fi

exec "$real" "${arguments[@]}"
