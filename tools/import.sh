#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Lets galaxy-importer judge a tarball; its warnings count as errors.
#   tools/import.sh TARBALL
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tarball=$(realpath "$1")
cd "$work"
cat >galaxy-importer.cfg <<'CFG'
[galaxy-importer]
RUN_ANSIBLE_TEST = False
CFG
GALAXY_IMPORTER_CONFIG=$work/galaxy-importer.cfg ANSIBLE_CONFIG='' \
  python -m galaxy_importer.main "$tarball" 2>&1 | tee importer.log
if grep -E '^(ERROR|WARNING)' importer.log; then
  echo "galaxy-importer has objections (above)" >&2
  exit 1
fi
