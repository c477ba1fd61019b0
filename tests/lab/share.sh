#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the folder that the lab's hosts see read-only as /lab: the simulators, their releases and
# models, the seeds; and beside it the wheels that an air-gapped site would carry to its hosts.
#   share.sh DIR PYTHON
# Prints "changed" when it built anything; the stamp is a digest of everything it is made from.
set -euo pipefail

mkdir -p "$1"
dir=$(cd "$1" && pwd -P)
python=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
stamp=$dir/share.stamp
want=$(cd "$here" && find share.sh seed sim_gpu sim_ollama wheels.txt -type f -not -name '*.pyc' -print0 |
  LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
  exit 0
fi
rm -f "$stamp"
share=$dir/share
mkdir -p "$share"
# Emptied, not replaced: running hosts have this folder mounted. The large wheels have a stamp of their own.
find "$share" -mindepth 1 -not -path "$share/wheelhouse-vllm*" -delete
cp -r "$here/seed" "$share/seed"
"$here/sim_gpu/build.sh" "$share/sim_gpu" >&2
cp -r "$here/sim_gpu/profiles" "$share/sim_gpu/profiles"
for version in 0.11.4 0.32.15; do
  "$python" "$here/sim_ollama/build_release.py" --version "$version" --out "$share/releases/v$version" >&2
done
cp "$here"/sim_ollama/{sim_registry,registry_faults}.py "$share/"
"$python" "$here/sim_ollama/make_models.py" --set llm-01 --partials 17 --out "$share/models/llm-01" >&2
"$python" "$here/sim_ollama/make_models.py" --set llm-02 --out "$share/models/llm-02" >&2
"$python" "$here/sim_ollama/make_models.py" --set all --out "$share/models/registry" >&2
for set in llm-01 llm-02; do
  "$python" "$here/sim_ollama/make_models.py" --set "$set" --out "$share/models/$set" --list >"$share/models/$set.json"
done
rm -rf "$dir/wheelhouse"
"$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: \
  --dest "$dir/wheelhouse" -r "$here/wheels.txt" >&2
chmod -R a+rX "$share"
printf '%s\n' "$want" >"$stamp"
echo changed
