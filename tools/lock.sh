#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Makes tools/requirements-*.txt anew from the .in files, with uv in a throw-away environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet uv
for source in requirements-*.in; do
  "$work/venv/bin/uv" pip compile --quiet --python-version 3.11 --no-emit-index-url \
    --no-emit-find-links --no-annotate --no-header --native-tls --output-file "$work/lock" "$source"
  {
    printf '# Locked by "make lock" from %s; do not edit by hand.\n' "$source"
    cat "$work/lock"
  } >"${source%.in}.txt"
done
