#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Lets galaxy-importer judge a tarball; its warnings count as errors. Its ansible-lint is left out: it would be the
# second one in a run of the tests, with fewer rules over fewer files than that of `make lint` (a unit test holds it
# to that), and it has three minutes, which a busy machine doesn't keep to.
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
