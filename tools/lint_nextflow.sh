#!/usr/bin/env bash
# nextflow lint over the pipeline and its configuration; a warning fails as an error does.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.nextflow-dist/25.04.4:$PATH"
printed=$(${NEXTFLOW:-nextflow} lint main.nf modules nextflow.config conf 2>&1) || { echo "$printed"; exit 1; }
echo "$printed" | grep -v '^Linting: '
if grep -q '^Warn' <<<"$printed"; then exit 1; fi
