#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Lets galaxy-importer judge a tarball; its warnings count as errors. Its ansible-lint has three minutes, which
# is too little on a busy machine: the same call is made here, without a limit.
#   tools/import.sh TARBALL
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tarball=$(realpath "$1")
cd "$work"
cat >galaxy-importer.cfg <<'CFG'
[galaxy-importer]
RUN_ANSIBLE_TEST = False
RUN_ANSIBLE_LINT = False
CFG
GALAXY_IMPORTER_CONFIG=$work/galaxy-importer.cfg ANSIBLE_CONFIG='' \
  python -m galaxy_importer.main "$tarball" 2>&1 | tee importer.log
if grep -E '^(ERROR|WARNING)' importer.log; then
  echo "galaxy-importer has objections (above)" >&2
  exit 1
fi
unpacked=$work/ansible_collections/hx_infra/llm
mkdir -p "$unpacked"
tar -xzf "$tarball" -C "$unpacked"
cd "$unpacked"
ANSIBLE_CONFIG='' ANSIBLE_COLLECTIONS_PATH=$work XDG_CACHE_HOME=$work/cache ansible-lint --offline \
  --profile production --exclude tests/integration/ --exclude tests/unit/ --format=pep8 --nocolor \
  -x yaml,var-naming,avoid-dot-notation,import-task-no-when,single-entry-point,use-loop
