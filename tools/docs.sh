#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Renders the collection's reference (modules, roles) as HTML.
#   tools/docs.sh OUTDIR
set -euo pipefail
out=$1
rm -rf "$out"
mkdir -p "$out"
antsibull-docs sphinx-init --use-current --no-indexes --fail-on-error --dest-dir "$out" hx_infra.llm >/dev/null
antsibull-docs collection --use-current --no-indexes --fail-on-error --squash-hierarchy \
  --dest-dir "$out/temp-rst" hx_infra.llm
printf 'The reference as reStructuredText: %s\n' "$out/temp-rst"
