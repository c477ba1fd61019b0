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
base=(--base-config molecule/config.yml)

ansible-playbook tests/lab/create.yml
trap 'ansible-playbook tests/lab/destroy.yml' EXIT
if [ "$#" -eq 0 ]; then
  for scenario in molecule/*/converge.yml; do
    set -- "$@" "$(basename "$(dirname "$scenario")")"
  done
fi
for scenario in "$@"; do
  molecule "${base[@]}" test --destroy=never --scenario-name "$scenario"
done
