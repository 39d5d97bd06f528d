#!/usr/bin/env bash
# libfaketime for the test whose clock jumps; where it cannot be had, that test is skipped.
set -euo pipefail
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null && exit 0
exec "$(dirname "$0")/../../tools/apt_install.sh" libfaketime 'the test of a jumping clock' libfaketime
