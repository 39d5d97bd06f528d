#!/usr/bin/env bash
# nf-test over tests/nf, in the containers of a profile (docker, apptainer) if one is named. Two halves at once: a test
# by itself leaves a core idle for half of its time.
# It runs where nf-test is installed, which is in no registry that the Makefile installs from.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v nf-test >/dev/null; then
    echo "nf-test is not on the PATH: tests/nf/*.nf.test were not run"
    exit 0
fi
rm -rf .nf-test
mkdir -p .nf-test/copy
trap 'rm -rf .nf-test/copy' EXIT
# In a copy: at its end nf-test deletes the scripts of all tests, those under way in the other half too.
tar -c --exclude './.*' --exclude './work' --exclude './results*' . | tar -x -C .nf-test/copy
for each in .venv .models .nextflow-dist; do [[ ! -e $each ]] || ln -s "$PWD/$each" .nf-test/copy/; done
half='NFT_WORKDIR=.nf-test/$half nf-test test tests/nf --shard "$half/2" --log ".nf-test/$half.log" "$@"'
python tests/nf/with_hub.py bash -c "
    (half=2; cd .nf-test/copy; mkdir .nf-test; $half) >.nf-test/second 2>&1 & second=\$!
    code=0; half=1; $half || code=\$?
    wait \$second || code=\$?
    cat .nf-test/second
    exit \$code" halves ${1:+--profile "$1"}
