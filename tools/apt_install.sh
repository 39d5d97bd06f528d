#!/usr/bin/env bash
# Debian's packages for a test; where they cannot be had, says which test is skipped, and ends well.
#   apt_install.sh NAME TEST PACKAGE...
set -euo pipefail
name=$1 test=$2
shift 2
if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    if apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null; then exit 0; fi
fi
echo "no $name here, and no right to install it: $test is skipped" >&2
