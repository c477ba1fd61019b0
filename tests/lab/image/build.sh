#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the lab's host image from Debian packages alone, unless the engine has it already.
#   build.sh ENGINE NAME     prints "built NAME:TAG" or "present NAME:TAG"
# The tag is a digest of this script and of what it puts in, so a changed recipe makes a new image.
set -euo pipefail

engine=$1
name=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
module_cache=$here/../module_cache/sitecustomize.py
tag=$(cat "$here/build.sh" "$module_cache" | sha256sum | cut -c1-12)

if "$engine" image inspect "$name:$tag" >/dev/null 2>&1; then
  echo "present $name:$tag"
  exit 0
fi

packages=systemd,systemd-sysv,dbus,python3,python3-venv,iproute2,e2fsprogs,procps,zstd,acl
packages+=,sudo,curl,ca-certificates,logrotate,psmisc,kmod,git
sources=("deb http://deb.debian.org/debian bookworm main")
for candidate in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
  if [ -s "$candidate" ] && grep -q bookworm "$candidate"; then
    sources=("$candidate") # the machine's own mirror
    break
  fi
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Debian's Python has a sitecustomize of its own: here another name, which a .pth file imports.
install -m 0644 "$module_cache" "$work/hx_lab_module_cache.py"
echo "import hx_lab_module_cache" >"$work/hx_lab_module_cache.pth"
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
"${sudo[@]}" mmdebstrap --quiet --variant=minbase --aptopt='APT::Install-Recommends "false"' \
  --include="$packages" \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/' \
  --customize-hook="copy-in $work/hx_lab_module_cache.py $work/hx_lab_module_cache.pth /usr/lib/python3/dist-packages/" \
  --customize-hook="chroot \"\$1\" python3 -m compileall -q /usr/lib/python3/dist-packages/hx_lab_module_cache.py" \
  bookworm "$work/root.tar" "${sources[@]}" >&2
"$engine" import -c 'CMD ["/sbin/init"]' "$work/root.tar" "$name:$tag" >/dev/null
echo "built $name:$tag"
