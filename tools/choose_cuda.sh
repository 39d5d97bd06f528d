#!/usr/bin/env bash
# Prints which CUDA the packages are to be built for, 12 or 13, and on stderr why:
#   tools/choose_cuda.sh [12|13]
# A driver runs the CUDA of its own major version or an older one, and CUDA 13 has no code for cards before Turing.
set -euo pipefail

say() {
    echo "PyTorch for CUDA $1: $2" >&2
    echo "$1"
    exit 0
}

case ${1:-} in
12 | 13) say "$1" "asked for by CUDA=$1" ;;
'') ;;
*) echo "CUDA=$1: must be 12 or 13" >&2 && exit 2 ;;
esac
# Where there is no driver, or it does not answer, nvidia-smi says so on its standard output.
driver=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version *: *\([0-9][0-9]*\.[0-9]*\).*/\1/p' | head -n 1 || true)
[[ -n $driver ]] || say 13 "no NVIDIA driver here; CUDA=12 chooses for machines with a driver older than 580"
[[ ${driver%%.*} -ge 13 ]] || say 12 "this machine's driver supports CUDA $driver; update it to 580 or later for CUDA 13"
oldest=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -V | head -n 1 || true)
[[ ! $oldest =~ ^[0-6]\.|^7\.[0-4]$ ]] || say 12 "CUDA 13 has no code for this machine's GPU of compute capability $oldest"
say 13 "this machine's driver supports CUDA $driver"
