#!/usr/bin/env bash
# nf-test over tests/nf, in the containers of a profile (docker, apptainer) if one is named.
# It runs where nf-test is installed, which is in no registry that the Makefile installs from.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v nf-test >/dev/null; then
    echo "nf-test is not on the PATH: tests/nf/*.nf.test were not run"
    exit 0
fi
python tests/nf/with_hub.py nf-test test tests/nf ${1:+--profile "$1"}
