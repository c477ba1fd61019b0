#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Renders the collection's reference (modules, roles) as HTML.
#   tools/docs.sh OUTDIR
set -euo pipefail
mkdir -p "$1"
out=$(cd "$1" && pwd -P)
find "$out" -mindepth 1 -delete
antsibull-docs sphinx-init --use-current --no-indexes --fail-on-error --squash-hierarchy \
  --sphinx-theme alabaster --dest-dir "$out" hx_infra.llm >/dev/null
# The renderer wants a folder that nobody else can write to.
install -d -m 0700 "$out/temp-rst"
antsibull-docs collection --use-current --no-indexes --fail-on-error --squash-hierarchy \
  --dest-dir "$out/temp-rst" hx_infra.llm >/dev/null
cp -r "$out/temp-rst/." "$out/rst/"
sphinx-build -q -c "$out" -b html "$out/rst" "$out/html"
printf 'The reference: file://%s/html/index.html\n' "$out"
