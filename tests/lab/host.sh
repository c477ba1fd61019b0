#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The lab's hosts: systemd containers with real ext4 loop disks. Every command works on what it
# finds and prints "changed" when it changed something.
#   host.sh ENGINE network-up NETWORK
#   host.sh ENGINE up HOST IMAGE NETWORK DIR DISKSIZE|none
#   host.sh ENGINE seed HOST
#   host.sh ENGINE down HOST DIR
#   host.sh ENGINE destroy PREFIX NETWORK IMAGENAME DIR
set -euo pipefail

engine=$1
command=$2
shift 2
prefix=hx-llm-lab

loops_of() { # FILE or FOLDER/: prints the loop devices of it, also those whose file was deleted
  local name file
  losetup --list --noheadings --output NAME,BACK-FILE | while read -r name file; do
    if [[ ${file% (deleted)} == "$1" || ($1 == */ && $file == "$1"*) ]]; then
      printf '%s\n' "$name"
    fi
  done
}

detach() { # DISK-FILE-OR-FOLDER
  local device
  for device in $(loops_of "$1"); do
    losetup --detach "$device"
    echo changed
  done
}

remove_disk() { # FILE
  detach "$1"
  rm -f "$1"
}

device_of() { # FILE: prints its loop device; one whose file was deleted and made again is not it
  [ ! -f "$1" ] || losetup --noheadings --output NAME --associated "$1" | head -n 1
}

new_disk() { # FILE SIZE: prints the device
  mkdir -p "$(dirname "$1")"
  truncate -s "$2" "$1"
  mkfs.ext4 -q -L bulk "$1" >&2
  losetup --find --show "$1"
}

# The engine mounts the host's own part of the control groups read-only; systemd needs to write
# there. Remounting that part, rather than binding the machine's hierarchy, keeps the hosts apart:
# with the machine's root in common, one host's systemd removes the groups of another's. Mounts are
# shared as on a machine, or those that systemd makes for a unit's credentials never arrive.
init_command() {
  local tree=/sys/fs/cgroup/systemd
  [ ! -f /sys/fs/cgroup/cgroup.controllers ] || tree=/sys/fs/cgroup
  printf '%s\n' sh -c "mount --make-rshared / && mount -o remount,bind,rw $tree && exec /sbin/init"
}

wait_for_systemd() { # CONTAINER
  local state _
  for _ in $(seq 1 120); do
    state=$("$engine" exec "$1" systemctl is-system-running 2>/dev/null || true)
    case $state in
      running) return 0 ;;
      degraded)
        "$engine" exec "$1" systemctl --failed --no-pager >&2
        echo "$1: systemd is degraded" >&2
        return 1
        ;;
    esac
    sleep 0.5
  done
  echo "$1: systemd did not reach 'running' within 60 s (last: ${state:-no answer})" >&2
  return 1
}

half_seeded() { # CONTAINER: whether its seeding was begun and never ended
  "$engine" exec "$1" sh -c 'test -e /var/lib/hx-lab/begun && ! test -e /var/lib/hx-lab/seeded' 2>/dev/null
}

host_up() { # HOST IMAGE NETWORK DIR SIZE
  local host=$1 image=$2 network=$3 dir=$4 size=$5 name=$prefix-$1 device wanted disk
  local -a arguments init
  dir=$(cd "$dir" && pwd -P)
  disk=$dir/disks/$host.img
  device=$(device_of "$disk")
  wanted="$image $device"
  if [ "$("$engine" inspect -f '{{.State.Running}} {{index .Config.Labels "hx.lab"}}' "$name" 2>/dev/null)" = "true $wanted" ] &&
    ! half_seeded "$name"; then
    wait_for_systemd "$name"
    return 0
  fi
  # Half a drift is no drift: a new host has a new disk.
  "$engine" rm -f -v "$name" >/dev/null 2>&1 || true
  remove_disk "$disk" >/dev/null
  device=''
  [ "$size" = none ] || device=$(new_disk "$disk" "$size")
  wanted="$image $device"
  arguments=(
    --name "$name" --hostname "$host" --network "$network" --network-alias "$host"
    --label "hx.lab=$wanted" --stop-signal SIGRTMIN+3 --cgroupns private
    --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE --cap-add SYS_NICE --cap-add MKNOD
    --cap-add LINUX_IMMUTABLE
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined
    --shm-size 1g --tmpfs /run --tmpfs /run/lock --tmpfs /tmp:exec
    -v "$dir/share:/lab:ro"
  )
  [ -z "$device" ] || arguments+=(--device "$device:/dev/sda1")
  mapfile -t init < <(init_command)
  "$engine" run --detach "${arguments[@]}" "$image" "${init[@]}" >/dev/null
  wait_for_systemd "$name"
  echo changed
}

case $command in
  network-up)
    if ! "$engine" network inspect "$1" >/dev/null 2>&1; then
      "$engine" network create "$1" >/dev/null
      echo changed
    fi
    ;;
  up) host_up "$@" ;;
  seed)
    "$engine" exec "$prefix-$1" mkdir -p /var/lib/hx-lab/begun
    "$engine" exec "$prefix-$1" bash /lab/seed/seed.sh "$1"
    ;;
  down)
    if "$engine" inspect "$prefix-$1" >/dev/null 2>&1; then
      "$engine" rm -f -v "$prefix-$1" >/dev/null
      echo changed
    fi
    remove_disk "$(realpath -m -- "$2")/disks/$1.img"
    ;;
  destroy)
    for name in $("$engine" ps -a --filter "name=^$1-" --format '{{.Names}}'); do
      "$engine" rm -f -v "$name" >/dev/null
      echo changed
    done
    if "$engine" network inspect "$2" >/dev/null 2>&1; then
      "$engine" network rm "$2" >/dev/null
      echo changed
    fi
    rm -f "/run/$1."*.pid # what enter.sh remembers
    for tag in $("$engine" images --format '{{.Repository}}:{{.Tag}}' | grep -E "(^|/)$3:" || true); do
      "$engine" rmi "$tag" >/dev/null
      echo changed
    done
    # The folder may be gone already, and the loop devices of its deleted files still there.
    dir=$(realpath -m -- "$4")
    detach "$dir/disks/"
    if [ -d "$dir" ]; then
      rm -rf "$dir"
      echo changed
    fi
    ;;
  *)
    echo "host.sh: unknown command '$command'" >&2
    exit 2
    ;;
esac
