#!/bin/sh
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the SIMULATED CUDA driver library, libcuda.so.1, into the folder given as argument.
# A file that is newer than its source is left alone.

set -eu

if [ "$#" -ne 1 ]; then
    echo "usage: $0 OUTDIR" >&2
    exit 2
fi
if ! command -v gcc >/dev/null 2>&1; then
    echo "$0: gcc is missing; install the packages gcc and libc6-dev" >&2
    exit 1
fi

source_dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
mkdir -p -- "$1"
out_dir=$(CDPATH='' cd -- "$1" && pwd)
target=$out_dir/libcuda.so.1
source=$source_dir/sim_libcuda.c

if [ -e "$target" ] && [ "$target" -nt "$source" ] && [ "$target" -nt "$source_dir/build.sh" ]; then
    exit 0
fi
gcc -std=gnu11 -O2 -Wall -Wextra -Werror -shared -fPIC -fvisibility=hidden \
    -Wl,-soname,libcuda.so.1 -o "$target.new.$$" "$source"
mv -f -- "$target.new.$$" "$target"
