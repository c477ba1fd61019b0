#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Prepares a machine for the project's own commands; says what it does; does nothing twice.
#   tools/bootstrap.sh python   the virtual environment with the locked tools
#   tools/bootstrap.sh lab      also a container engine and what builds the lab
set -euo pipefail
# A user's PATH lacks the folders where Debian keeps dockerd, losetup and mkfs.
PATH=$PATH:/usr/sbin:/sbin

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
need=${1:-lab}
venv=${HX_VENV:-$root/.venv}
lock=${HX_LOCK:-$root/tools/requirements-dev.txt}

say() { printf 'bootstrap: %s\n' "$*"; }
die() {
  printf 'bootstrap: %s\n' "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "please run this as root or install sudo: '$*' needs it"
  fi
}

apt_updated=
install_packages() {
  [ "$#" -gt 0 ] || return 0
  have apt-get || die "please install these first, this machine has no apt-get: $*"
  if [ -z "$apt_updated" ]; then
    say "refreshing the package lists"
    as_root apt-get update -qq
    apt_updated=yes
  fi
  say "installing from Debian's packages: $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
    die "could not install $*; please install them by hand"
}

engine_answers() {
  local engine
  for engine in ${LAB_ENGINE:-docker podman}; do
    if have "$engine" && as_root "$engine" info >/dev/null 2>&1; then
      return 0
    fi
  done
  return 1
}

# Each line: the program that must exist, the package that brings it.
packages_for() {
  local program package
  while read -r program package; do
    have "$program" || printf '%s\n' "$package"
  done
}

python=
find_python() {
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3; do
    if have "$candidate" &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null &&
      "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
      python=$candidate
      return 0
    fi
  done
  return 1
}

# Byte code is only a matter of speed: what has none is named, and that is all. On all cores. Of the
# hundred collections beside ansible-core the lab uses one, and what that needs.
compile_packages() {
  local report names
  report=$("$venv/bin/python" -m compileall -q -j 0 -x '/ansible_collections/(?!community/(docker|library_inventory_filtering_v1)/)' \
    "$venv/lib") || report=${report:-compileall ended with $?}
  [ -n "$report" ] || return 0
  names=$(sed -n 's/^\*\*\* Error compiling \(.*\)\.\.\.$/\1/p' <<<"$report" | paste -sd ' ')
  printf 'bootstrap: not compiled, which costs time only: %s\n' "${names:-${report##*$'\n'}}" >&2
}

make_venv() {
  find_python || install_packages python3 python3-venv
  find_python || die "please install Python 3.11, 3.12 or 3.13 with its venv module"
  local stamp want
  stamp=$venv/.hx-lock
  want=$(sha256sum "$lock" | cut -d' ' -f1)-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    return 0
  fi
  say "making the virtual environment ${venv#"$root"/} from ${lock#"$root"/}"
  "$python" -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-compile -r "$lock" ||
    die "could not install the locked Python packages; is the Python package index reachable?"
  compile_packages
  printf '%s\n' "$want" >"$stamp"
}

make_engine() {
  if engine_answers; then
    return 0
  fi
  if ! have dockerd; then
    install_packages docker.io iptables
  fi
  local log=/var/log/hx-llm-lab-dockerd.log _
  if [ -d /run/systemd/system ]; then
    log="journalctl -u docker"
    say "starting the Docker engine"
    as_root systemctl start docker || true
  else
    say "starting the Docker engine (log: $log)"
    as_root sh -c "setsid dockerd >$log 2>&1 </dev/null &"
  fi
  for _ in $(seq 1 60); do
    if engine_answers; then
      return 0
    fi
    sleep 1
  done
  die "no container engine answers: please install and start Docker or Podman (see $log)"
}

case $need in
  python) ;;
  lab) ;;
  *) die "usage: tools/bootstrap.sh python|lab" ;;
esac

mapfile -t missing < <(packages_for <<'LIST'
git git
LIST
)
install_packages "${missing[@]}"
# Made by the user, or root's part of the work would own them.
mkdir -p "$root/build" "$root/runs"
make_venv
if [ "$need" = lab ]; then
  mapfile -t missing < <(packages_for <<'LIST'
gcc gcc
mmdebstrap mmdebstrap
mkfs.ext4 e2fsprogs
losetup mount
zstd zstd
haproxy haproxy
LIST
)
  if have gcc && ! echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1; then
    missing+=(libc6-dev)
  elif ! have gcc; then
    missing+=(libc6-dev)
  fi
  install_packages "${missing[@]}"
  make_engine
fi
say "ready"
