#!/bin/sh
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the SIMULATED GPU: libnvidia-ml.so.1 and nvidia-smi, into the folder given as argument.
# Files that are newer than their sources are left alone.

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
flags='-std=gnu11 -O2 -Wall -Wextra -Werror'

# compile TARGET SOURCE OPTIONS...: into a temporary file, then renamed, so that a process that has
# the old file open is not disturbed and a killed build leaves no half-written file under the name.
compile() {
    target=$out_dir/$1
    source=$source_dir/$2
    shift 2
    if [ -e "$target" ] && [ "$target" -nt "$source" ] \
        && [ "$target" -nt "$source_dir/sim_nvml.h" ] && [ "$target" -nt "$source_dir/build.sh" ]; then
        return
    fi
    # shellcheck disable=SC2086  # the flags are words
    gcc $flags -o "$target.new.$$" "$source" "$@"
    mv -f -- "$target.new.$$" "$target"
}

compile libnvidia-ml.so.1 sim_nvml.c -shared -fPIC -fvisibility=hidden -pthread \
    -Wl,-soname,libnvidia-ml.so.1
if [ -e "$source_dir/sim_nvidia_smi.c" ]; then
    compile nvidia-smi sim_nvidia_smi.c -ldl
fi
