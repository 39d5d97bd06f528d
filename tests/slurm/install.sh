#!/usr/bin/env bash
# Installs Debian's Slurm for the tests, unless it is there. Where that cannot be done on this machine at all, says why
# and ends well: the tests then skip. An installation that starts and fails is an error.
set -euo pipefail
packages=(slurm-wlm munge)
options=(--quiet --quiet -o Acquire::Retries=3 -o Acquire::http::Timeout=20 -o DPkg::Lock::Timeout=120)
export DEBIAN_FRONTEND=noninteractive

skip() {
    echo "test-slurm: Slurm is not installed, and cannot be: $1" >&2
    exit 0
}

if command -v slurmctld slurmd sbatch munged >/dev/null; then exit 0; fi
((EUID == 0)) || skip "that takes root (apt-get install ${packages[*]})"
command -v apt-get >/dev/null || skip "there is no apt-get; install Slurm and MUNGE by hand"
mirrors=unreached
for attempt in 1 2 3; do
    if timeout 180 apt-get "${options[@]}" --error-on=any update; then
        mirrors=reached
        break
    fi
    echo "test-slurm: apt-get update failed, try $attempt of 3" >&2
    sleep $((attempt * 5))
done
apt-cache show "${packages[@]}" >/dev/null 2>&1 || skip "apt-get knows no ${packages[*]} (mirrors $mirrors)"

# The tests start daemons of their own; the packages' services shall not run.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
for attempt in 1 2 3; do
    if timeout 300 apt-get "${options[@]}" --yes install --no-install-recommends "${packages[@]}" >/dev/null; then exit 0; fi
    echo "test-slurm: apt-get install ${packages[*]} failed, try $attempt of 3" >&2
    sleep $((attempt * 5))
done
[[ $mirrors == reached ]] || skip "apt-get reaches not all of its mirrors"
exit 1
