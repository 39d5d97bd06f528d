#!/bin/bash
# Says "held" where a run that is still at work holds an --outdir, else nothing. nextflow.config asks, as Nextflow begins
# its trace and graph anew before modules/outdir can refuse; what decides is there.
note="$1/.virnucpro/holder.json"
[ -f "$note" ] || exit 0
host=$(sed -n 's/.*"host":"\([^"]*\)".*/\1/p' "$note")
process=$(sed -n 's/.*"process":\([0-9]*\).*/\1/p' "$note")
case "$host" in
    "$(uname -n)" | "$(uname -n)".* | '') ps -p "${process:-0}" > /dev/null || exit 0 ;;
esac
echo held
