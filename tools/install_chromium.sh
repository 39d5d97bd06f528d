#!/usr/bin/env bash
# Chromium and its driver for the test that looks at the report; where they cannot be had, that test is skipped.
set -euo pipefail
command -v chromium >/dev/null && command -v chromedriver >/dev/null && exit 0
exec "$(dirname "$0")/apt_install.sh" Chromium 'the browser test of the report' chromium chromium-driver
