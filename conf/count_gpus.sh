#!/usr/bin/env bash
# Counts the GPUs that tasks on this machine will see, as conf/gpu_slot.sh has them: what nvidia-smi lists, or what
# CUDA_VISIBLE_DEVICES names where it is set. Prints their number, then what the first that nvidia-smi lists is called,
# or why it is none where a card is here all the same:
#   conf/count_gpus.sh
# /dev says nothing: Windows' subsystem for Linux has no /dev/nvidia*, and keeps nvidia-smi in a folder of its own.
set -u
export PATH="$PATH:/usr/lib/wsl/lib"

# Asking takes half a second of a machine whose driver is not kept loaded: once for both.
cards=$(timeout 30 nvidia-smi --query-gpu=index,name --format=csv,noheader 2>/dev/null | grep -E '^[0-9]+, ')
listed=$([[ $cards ]] && wc -l <<<"$cards")
visible=${CUDA_VISIBLE_DEVICES-unset}
if [[ $visible == unset ]]; then
    count=$((listed))
else
    # As CUDA reads it: whatever is no device ends the list.
    count=0
    for device in ${visible//,/ }; do
        [[ $device =~ ^([0-9]+|(GPU|MIG)-.+)$ ]] || break
        count=$((count + 1))
    done
fi
echo "$count"

# A card on the bus is one of NVIDIA's (0x10de) and a display or 3D controller (0x03...).
on_bus() {
    local card vendor class
    for card in /sys/bus/pci/devices/*; do
        { read -r vendor <"$card/vendor" && read -r class <"$card/class"; } 2>/dev/null || continue
        if [[ $vendor == 0x10de && $class == 0x03* ]]; then return 0; fi
    done
    return 1
}
if ((count)); then
    first=${cards%%$'\n'*}
    echo "${first#*, }"
elif ((listed)); then
    echo "CUDA_VISIBLE_DEVICES is '$visible', which hides all $listed that nvidia-smi lists"
elif on_bus; then
    echo "an NVIDIA card is on the bus, but nvidia-smi lists none; check its driver"
elif [[ $(uname -sm) == 'Darwin arm64' ]]; then
    echo "Apple's GPU is only used with --device mps"
fi
