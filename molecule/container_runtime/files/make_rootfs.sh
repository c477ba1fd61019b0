#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Makes the smallest root directory that bash and python3 run in, of this host's own files.
#   make_rootfs.sh ARCHIVE
set -euo pipefail

archive=$1
work=$(mktemp -d)
chmod 0755 "$work" # it becomes the root directory, which every user passes
trap 'rm -rf "$work"' EXIT

place() { # FILE...: copies each to the same place, a link as what it leads to
  local file
  for file in "$@"; do
    install -D -m 0755 "$(readlink -f "$file")" "$work$file"
  done
}

programs=(/usr/bin/bash /usr/bin/sleep /usr/bin/cat /usr/bin/id /usr/bin/ls /usr/bin/python3)
mkdir -p "$work"/usr/{bin,lib,lib64} "$work"/{dev,etc,proc,run,sys,tmp}
ln -s usr/bin "$work/bin"
ln -s usr/lib "$work/lib"
ln -s usr/lib64 "$work/lib64"
ln -s bash "$work/usr/bin/sh"
place "${programs[@]}"
for program in "${programs[@]}" /usr/lib/python3*/lib-dynload/*.so; do
  ldd "$program" 2>/dev/null | grep -o '/[^ ]*' || true
done | sort -u | while read -r library; do place "$library"; done
for library in /usr/lib/python3.*; do
  cp -a "$library" "$work/usr/lib/"
done
tar --create --file "$archive" --directory "$work" --sort=name --mtime=@0 --owner=0 --group=0 .
