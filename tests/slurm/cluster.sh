#!/usr/bin/env bash
# A Slurm cluster of one node with pretend GPUs, for tests, as root and without systemd.
#   cluster.sh start DIR GPUS constrained|open    writes DIR/slurm.conf, starts the daemons, waits until the node is idle
#   cluster.sh stop DIR
# constrained: cgroups keep a job to its devices and memory. open: they do not, and only CUDA_VISIBLE_DEVICES tells.
set -euo pipefail
action=$1 directory=$2
export SLURM_CONF=$directory/slurm.conf
host=$(hostname -s)

configure() {
    local gpus=$1 confinement=$2 process_tracking=proctrack/linuxproc task_plugin=task/none
    if [[ $confinement == constrained ]]; then
        process_tracking=proctrack/cgroup task_plugin=task/cgroup
    fi
    mkdir -p "$directory"/{state,spool,log}
    for ((index = 0; index < gpus; index++)); do
        [[ -c $directory/nvidia$index ]] || mknod -m 666 "$directory/nvidia$index" c 195 "$index"
    done
    cat >"$directory/gres.conf" <<END
AutoDetect=off
NodeName=$host Name=gpu File=$directory/nvidia[0-$((gpus - 1))]
END
    cat >"$directory/cgroup.conf" <<END
CgroupAutomount=no
CgroupMountpoint=/sys/fs/cgroup
ConstrainRAMSpace=yes
ConstrainDevices=yes
END
    cat >"$SLURM_CONF" <<END
ClusterName=virnucpro-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd.pid
SlurmctldLogFile=$directory/log/slurmctld.log
SlurmdLogFile=$directory/log/slurmd.log
ProctrackType=$process_tracking
TaskPlugin=$task_plugin
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
DefMemPerCPU=500
GresTypes=gpu
SlurmdParameters=config_overrides
KillWait=30
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 Gres=gpu:$gpus State=UNKNOWN
PartitionName=gpu Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=10
END
}

wait_for() {
    local seconds=$1 what=$2
    shift 2
    for ((tenth = 0; tenth < seconds * 10; tenth++)); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    echo "$what did not come up within $seconds s; see $directory/log" >&2
    tail -n 20 "$directory"/log/*.log >&2 || true
    exit 1
}

node_is_idle() {
    [[ $(sinfo --noheader --format %T --partition gpu) == idle ]]
}

start() {
    configure "$@"
    if ! munge -n >/dev/null 2>&1; then
        install -d -o munge -g munge -m 755 /run/munge
        # Its own session, and no pipe of ours kept open: a test runner waits for the end of output.
        setsid runuser -u munge -- /usr/sbin/munged </dev/null >/dev/null 2>&1
        wait_for 10 munged munge -n
        : >"$directory/munged-is-ours"
    fi
    slurmctld </dev/null >/dev/null 2>&1
    slurmd </dev/null >/dev/null 2>&1
    wait_for 30 "the Slurm node" node_is_idle
}

stop() {
    scancel --quiet --partition gpu,urgent --user root 2>/dev/null || true
    for daemon in slurmd slurmctld; do
        if [[ -s $directory/$daemon.pid ]]; then
            pid=$(<"$directory/$daemon.pid")
            kill "$pid" 2>/dev/null || true
            for ((tenth = 0; tenth < 100; tenth++)); do
                kill -0 "$pid" 2>/dev/null || break
                sleep 0.1
            done
        fi
    done
    if [[ -e $directory/munged-is-ours ]]; then
        kill "$(</run/munge/munged.pid)" 2>/dev/null || true
    fi
}

shift 2
case $action in
    start) start "$@" ;;
    stop) stop ;;
    *) echo "unknown action $action: start or stop" >&2; exit 2 ;;
esac
