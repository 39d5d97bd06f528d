#!/usr/bin/env bash
# Stands before the real embed_shard.py in an image without a GPU's driver: computes on the CPU what a pod with a GPU is
# told to compute on it. What it saw of its pod is in the task's folder, in pod_facts.
set -euo pipefail
arguments=()
{
    env
    echo "identity=$(id -u):$(id -g)"
    echo "shared=$(df --output=size /dev/shm | tail -n 1)"
    find / -mindepth 1 -maxdepth 1 -printf 'path=%p\n'
    find /var -mindepth 1 -maxdepth 3 -printf 'path=%p\n'
} >pod_facts
[[ ${NVIDIA_VISIBLE_DEVICES:-} ]] || { echo "no device was given to this pod" >&2; exit 2; }
while (($#)); do
    if [[ ${arguments[*]: -1} == --device ]]; then arguments+=(cpu); else arguments+=("$1"); fi
    shift
done
exec "$(type -aP embed_shard.py | sed -n 2p)" "${arguments[@]}"
