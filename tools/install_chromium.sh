#!/usr/bin/env bash
# Chromium and its driver for the test that looks at the report; where they cannot be had, that test is skipped.
set -euo pipefail
command -v chromium >/dev/null && command -v chromedriver >/dev/null && exit 0
if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    if apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null; then
        exit 0
    fi
fi
echo "no Chromium here, and no right to install it: the browser test of the report is skipped" >&2
