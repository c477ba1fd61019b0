#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs the molecule scenarios, or those that are named; the lab is destroyed at the end.
#   tools/molecule.sh [SCENARIO...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PWD/.venv/bin:$PATH
export MOLECULE_GLOB='molecule/*/molecule.yml'
export MOLECULE_PROJECT_DIRECTORY=$PWD
export ANSIBLE_CONFIG=$PWD/ansible.cfg
LAB_CONNECTION=$(tests/lab/engine.sh --connection)
export LAB_CONNECTION
base=(--base-config molecule/config.yml)

ansible-playbook tests/lab/create.yml
trap 'ansible-playbook tests/lab/destroy.yml' EXIT
if [ "$#" -eq 0 ]; then
  for scenario in molecule/*/converge.yml; do
    set -- "$@" "$(basename "$(dirname "$scenario")")"
  done
fi
failed=()
for scenario in "$@"; do
  # Forget what an earlier run of the scenario noted: its hosts are not there any more.
  molecule "${base[@]}" reset --scenario-name "$scenario" >/dev/null
  molecule "${base[@]}" test --destroy=never --scenario-name "$scenario" || failed+=("$scenario")
done
if [ "${#failed[@]}" -gt 0 ]; then
  echo "molecule: these scenarios failed: ${failed[*]}" >&2
  exit 1
fi
echo "molecule: all $# scenarios passed: $*"
