#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Fetches the wheels of vLLM's CPU build (0.9 GB) to where the lab's hosts see them as
# /lab/wheelhouse-vllm. They are for the hosts' Python, 3.11.
#   wheelhouse_vllm.sh DIR PYTHON
# Prints "present", "changed", or "unavailable" and why: not every machine reaches a CPU build of torch. Then the
# scenario is skipped, and the run's last line says so.
set -euo pipefail

dir=$1
python=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
house=$dir/share/wheelhouse-vllm
stamp=$dir/wheelhouse-vllm.stamp
want=$(sha256sum <"$here/wheels_vllm.txt")
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && [ -n "$(ls "$house" 2>/dev/null)" ]; then
  echo present
  exit 0
fi
rm -f "$stamp"
mkdir -p "$house"

fetch() { # FURTHER-OPTIONS...
  "$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --python-version 3.11 \
    --dest "$house" -r "$here/wheels_vllm.txt" "$@"
}

# Where the machine's own index has no CPU build, PyTorch's does.
if ! problem=$(fetch 2>&1) && ! problem=$(fetch --extra-index-url https://download.pytorch.org/whl/cpu 2>&1); then
  printf 'unavailable: %s\n' "$(grep -m1 ERROR <<<"$problem" || tail -n 1 <<<"$problem")"
  exit 0
fi
chmod -R a+rX "$house"
printf '%s\n' "$want" >"$stamp"
echo changed
