# Gives the task one GPU of its own. Sourced on the host by a GPU task's beforeScript, before any container starts:
#   . conf/gpu_slot.sh EXECUTOR
# A scheduler that chose exactly one device is obeyed. Otherwise a kernel lock on one device's file is taken and held
# by a file descriptor that the task's processes inherit: the kernel frees it when the last of them is gone, however
# it died. Locks are per host, shared by all users and runs, and named by the device's UUID.
# Exports CUDA_VISIBLE_DEVICES for processes on the host and in Apptainer, and VIRNUCPRO_GPU, the device's UUID (its
# index where nvidia-smi is missing), for engines that are told their devices (docker, podman).

virnucpro_take_gpu() {
    local executor=${1:-local} directory=/tmp/virnucpro-gpu-locks
    local index uuid device file handle opened waited=0
    local PATH=$PATH:/usr/lib/wsl/lib
    local -A uuid_of=()
    local -a devices=() named=()
    while IFS=', ' read -r index uuid; do
        [[ $index =~ ^[0-9]+$ ]] || continue # nvidia-smi also reports its failures on stdout
        uuid_of[$index]=$uuid
        devices+=("$index")
    done < <(nvidia-smi --query-gpu=index,uuid --format=csv,noheader 2>/dev/null)
    if [[ ${CUDA_VISIBLE_DEVICES+set} ]]; then
        devices=()
        IFS=', ' read -r -a named <<<"$CUDA_VISIBLE_DEVICES"
        for device in "${named[@]}"; do
            # As CUDA reads it: whatever is no device, such as -1 or NoDevFiles, ends the list.
            [[ $device =~ ^([0-9]+|(GPU|MIG)-.+)$ ]] || break
            devices+=("$device")
        done
    fi
    if ((${#devices[@]} == 0)); then
        echo "GPU task on $(hostname): no GPU to be seen (nvidia-smi lists none, or CUDA_VISIBLE_DEVICES" \
            "is '${CUDA_VISIBLE_DEVICES-}');" \
            "run with --gpus 0, or on a host with an NVIDIA driver" >&2
        [[ $executor != local ]] || exit 2
        # In a task's folder: what conf/slurm.config reads before the next try.
        if [[ $executor == slurm && -e .command.begin ]]; then
            (mkdir -p ../../nodes_without_gpu && touch "../../nodes_without_gpu/${SLURMD_NODENAME:-$(hostname)}") || true
        fi
        exit 75
    fi

    if [[ $executor != local && ${CUDA_VISIBLE_DEVICES:-} && ${#devices[@]} == 1 ]]; then
        device=${uuid_of[${devices[0]}]:-}
        export VIRNUCPRO_GPU=${device:-${SLURM_JOB_GPUS:-${devices[0]}}}
        return 0
    fi

    local terminated='' saved_traps
    saved_traps=$(trap -p TERM INT USR2)
    trap 'terminated=143' TERM INT
    trap 'terminated=140' USR2
    (umask 0 && mkdir -p -m 1777 "$directory")
    if [[ -L $directory ]]; then
        echo "$directory is a link, and GPU locks have to lie in a folder of that name; remove it" >&2
        exit 74
    fi
    while true; do
        opened=0
        for device in "${devices[@]}"; do
            device=${uuid_of[$device]:-$device}
            file=$directory/$device
            # Opened for reading: a sticky directory may refuse to open another user's file for writing.
            [[ -e $file ]] || (umask 0 && set -o noclobber && : >"$file") 2>/dev/null || true
            # Nothing else that another user may have put there: opening a pipe would wait, and a link lead elsewhere.
            [[ -f $file && ! -L $file ]] && exec {handle}<"$file" || continue
            opened=1
            if flock --nonblock "$handle" && [[ $file -ef /dev/fd/$handle ]]; then
                # Keeps cleaners of /tmp away. Of another user's file only the time of reading changes.
                if [[ -O $file ]]; then touch -c "$file" 2>/dev/null || true; else read -r _ <&"$handle" || true; fi
                export CUDA_VISIBLE_DEVICES=$device VIRNUCPRO_GPU=$device
                trap - TERM INT USR2
                eval "$saved_traps"
                return 0
            fi
            exec {handle}<&-
        done
        if ((!opened)); then
            echo "cannot open GPU locks in $directory: not to be written, or no plain files; remove it" >&2
            exit 74
        fi
        # Told again every five minutes; the time that the task was given ends the wait.
        ((waited++ % 600)) || echo "waiting for a GPU: ${devices[*]} are all in use, by process $(virnucpro_holders)" >&2
        sleep 0.5
        [[ -z $terminated ]] || exit "$terminated"
    done
}

# Processes that hold locks in the folder, with their users, as far as this user may see them.
virnucpro_holders() {
    local kind number pid name
    local -A locked=()
    for name in /tmp/virnucpro-gpu-locks/*; do
        locked[$(stat -c %i "$name")]=1
    done
    while read -r _ kind _ _ pid number _; do
        [[ $kind == FLOCK && ${locked[${number##*:}]:-} ]] && echo "$pid ($(stat -c %U "/proc/$pid" 2>/dev/null || echo gone))"
    done </proc/locks | sort -u | paste -sd, || true
}

virnucpro_take_gpu "$@"
