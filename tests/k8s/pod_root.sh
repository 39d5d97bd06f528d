#!/usr/bin/env bash
# The first process of a pod, in namespaces of its own: builds the pod's root folder and becomes its command in there.
#   pod_root.sh ROOT TABLE CGROUP COMMAND...
# Lines of TABLE are KIND, SOURCE and TARGET, between tabs; KIND is ro, rw, or memory for a tmpfs, of source -.
set -euo pipefail
root=$1 table=$2 cgroup=$3
shift 3
[[ -z $cgroup ]] || echo 0 >"$cgroup/cgroup.procs"

mount -t tmpfs -o mode=755 pod "$root"
mkdir -p "$root"/{proc,dev,etc,tmp,usr}
chmod 1777 "$root/tmp"
ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
ln -s /proc/self/fd "$root/dev/fd"
for device in null zero full random urandom; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# What a container runtime gives where nothing is asked for.
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777,size=64m shm "$root/dev/shm"
while IFS=$'\t' read -r kind source target; do
    if [[ $kind == memory ]]; then
        mkdir -p "$root$target"
        mount -t tmpfs -o mode=1777 memory "$root$target"
        continue
    fi
    if [[ -d $source ]]; then
        mkdir -p "$root$target"
    else
        mkdir -p "$(dirname "$root$target")"
        : >"$root$target"
    fi
    mount --bind "$source" "$root$target"
    [[ $kind == rw ]] || mount -o remount,bind,ro "$root$target"
done <"$table"
hostname "$(basename "$root")"
exec chroot "$root" "$@"
