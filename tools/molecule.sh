#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs molecule scenarios: those that are named, or all of a lane, or all but `vllm`, which has a target of
# its own.
#   tools/molecule.sh [--lane 1|2] [SCENARIO...]
# Lane 1 is what works on llm-01, llm-03 or gw-01, lane 2 the rest. They can run side by side: a lane
# looks after its own hosts only, for the other one's may be gone or half seeded at that moment. It begins
# with what measures time, and leaves build/taken/measured-LANE when that is over.
# The lab is destroyed at the end, unless HX_KEEP_LAB is set.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PWD/.venv/bin:$PATH
export MOLECULE_GLOB='molecule/*/molecule.yml'
export MOLECULE_PROJECT_DIRECTORY=$PWD
export ANSIBLE_CONFIG=$PWD/ansible.cfg
export ANSIBLE_CONNECTION_PLUGINS=$PWD/tests/lab/connection_plugins
export PYTHONPATH=$PWD/tests/lab/module_cache HX_MODULE_CACHE=$PWD/build/module-cache
LAB_CONNECTION=$(tests/lab/engine.sh --connection)
export LAB_CONNECTION
base=(--base-config molecule/config.yml)
lane=
if [ "${1:-}" = --lane ]; then
  lane=$2
  shift 2
fi

measuring=(benchmark gateway inference_validation remediate vllm)

measures() { # SCENARIO
  [[ " ${measuring[*]} " = *" $1 "* ]]
}

lane_of() { # SCENARIO
  if grep -qE 'llm-01|llm-03|gw-01' "molecule/$1"/*.yml; then echo 1; else echo 2; fi
}

case $lane in
  1) export LAB_ONLY=llm-01,llm-03,gw-01,registry ;;
  2) export LAB_ONLY=llm-02,svc-01,registry ;;
esac
ansible-playbook tests/lab/create.yml
export HX_CREATE=molecule/created.yml
# Its state is one file for all scenarios: the two lanes would take each other's, or have it removed.
export MOLECULE_EPHEMERAL_DIRECTORY=$PWD/build/molecule-state/lane-${lane:-0}
[ -n "${HX_KEEP_LAB:-}" ] || trap 'ansible-playbook tests/lab/destroy.yml' EXIT
last_measured=
if [ "$#" -eq 0 ]; then
  first=()
  for scenario in molecule/*/converge.yml; do
    name=$(basename "$(dirname "$scenario")")
    if [ -n "$lane" ]; then
      [ "$(lane_of "$name")" = "$lane" ] || continue
      if measures "$name"; then
        first+=("$name")
        last_measured=$name
        continue
      fi
    elif [ "$name" = vllm ]; then
      continue
    fi
    set -- "$@" "$name"
  done
  set -- "${first[@]}" "$@"
fi
failed=()
times=()
mkdir -p build/skipped
for scenario in "$@"; do
  # Forget what an earlier run of the scenario noted: its hosts are not there any more.
  rm -f "build/skipped/$scenario"
  molecule "${base[@]}" reset --scenario-name "$scenario" >/dev/null
  began=$SECONDS
  TIMEFORMAT="molecule: $scenario took %R s, of the processor %U s + %S s"
  time molecule "${base[@]}" test --destroy=never --scenario-name "$scenario" || failed+=("$scenario")
  times+=("$scenario $((SECONDS - began))")
  if [ "$scenario" = "$last_measured" ]; then
    mkdir -p build/taken && touch "build/taken/measured-$lane"
  fi
done
passed=()
for scenario in "$@"; do
  if [ -e "build/skipped/$scenario" ]; then
    echo "molecule: $scenario was SKIPPED, nothing of it was tested: $(cat "build/skipped/$scenario")" >&2
  else
    passed+=("$scenario")
  fi
done
echo "molecule: seconds: $(printf '%s, ' "${times[@]}" | sed 's/, $//')"
if [ "${#failed[@]}" -gt 0 ]; then
  echo "molecule: these scenarios failed: ${failed[*]}" >&2
  exit 1
fi
echo "molecule: ${#passed[@]} of $# scenarios passed: ${passed[*]}"
