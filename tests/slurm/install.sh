#!/usr/bin/env bash
# Installs Debian's Slurm for the tests, unless it is there. Takes root; says what is wrong instead of waiting for ever.
set -euo pipefail
if command -v slurmctld slurmd sbatch munged >/dev/null; then exit 0; fi
if ((EUID != 0)); then
    echo "test-slurm: Slurm is not installed, and installing it takes root: apt-get install slurm-wlm munge" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
options=(-o Acquire::Retries=2 -o Acquire::http::Timeout=20 -o DPkg::Lock::Timeout=60)
if ! timeout 120 apt-get "${options[@]}" --quiet --quiet --error-on=any update; then
    echo "test-slurm: no package lists to be had (apt-get update failed); check the network, or install slurm-wlm and munge" >&2
    exit 1
fi
if ! timeout 300 apt-get "${options[@]}" --quiet --quiet --yes install --no-install-recommends slurm-wlm munge >/dev/null; then
    echo "test-slurm: apt-get could not install slurm-wlm and munge; its words are above" >&2
    exit 1
fi
