# Leaves nothing of a task on this host. Sourced by a local task's beforeScript, before anything of it starts:
#   . conf/task_guard.sh
# A process beside the task watches its wrapper and the Nextflow that started it. When either is gone, however it went,
# it tells everything that the wrapper started to end, and three seconds later kills what is still there. On Linux all
# of that carries VIRNUCPRO_TASK in its environment; elsewhere it is what descended from the wrapper a second before.

virnucpro_guard_task() {
    export VIRNUCPRO_TASK
    VIRNUCPRO_TASK="$$-$RANDOM-$RANDOM-$RANDOM-$(date +%s)."
    # As a group's signals, of a terminal for instance, would end it with the task, it ignores them.
    (
        trap '' HUP INT QUIT TERM USR1 USR2
        set +eu
        virnucpro_end_task "$VIRNUCPRO_TASK" "$$" "$PPID" "$(sh -c 'echo $PPID')"
    ) </dev/null >/dev/null 2>&1 &
}

virnucpro_end_task() {
    local task=$1 wrapper=$2 launcher=$3 guard=$4 family='' signal
    unset VIRNUCPRO_TASK
    while virnucpro_at_work "$wrapper" "$launcher"; do
        [[ -r /proc/self/environ ]] || family=$(virnucpro_descendants "$guard" "$wrapper" $family)
        sleep 1
    done
    for signal in TERM TERM TERM KILL KILL KILL; do
        if [[ -r /proc/self/environ ]]; then
            family=$(grep -lsF "VIRNUCPRO_TASK=$task" /proc/[0-9]*/environ | grep -o '[0-9][0-9]*')
            # The wrapper ends a container, too.
            kill -0 "$wrapper" && family="$wrapper $family"
        else
            family=$(virnucpro_descendants "$guard" "$wrapper" $family)
        fi
        [[ $family ]] || return 0
        kill -"$signal" $family
        sleep 1
    done
}

# Whether the wrapper lives, as a child of the Nextflow that started it: an orphan has another parent.
virnucpro_at_work() {
    local state parent
    read -r state parent < <(ps -o stat= -o ppid= -p "$1") && [[ $state != Z* && $parent == "$2" ]]
}

# Of the processes named after the first, those that live, and all that they started but the first.
virnucpro_descendants() {
    local guard=$1
    shift
    ps -A -o pid= -o ppid= -o stat= | awk -v guard="$guard" -v roots="$*" '
        BEGIN { split(roots, named, " "); for (i in named) root[named[i]] }
        $3 !~ /^Z/ { parent[$1] = $2 }
        END {
            for (pid in parent) {
                for (at = pid; at in parent && at != guard && !(at in root);) at = parent[at]
                if (at in parent && at in root) print pid
            }
        }'
}

virnucpro_guard_task
