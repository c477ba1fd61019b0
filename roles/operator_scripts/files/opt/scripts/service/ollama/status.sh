#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Shows the state of the Ollama service, its API, its version and its models.
# Exit codes: 0 running and responding, 1 running but not responding, 3 not running,
# 2 wrong usage.

set -euo pipefail

scripts_dir="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=../../lib/ollama-common.sh
source "$scripts_dir/lib/ollama-common.sh"
handle_arguments "Usage: status.sh
Shows the state of $OLLAMA_UNIT and of its API.
Exit codes: 0 running and responding, 1 running but not responding, 3 not running." "$@"
require_commands systemctl curl python3

state="$(unit_state)"
echo "Service: $OLLAMA_UNIT is ${state:-unknown}"
if [[ "$state" != "active" ]]; then
  echo "API:     not checked"
  exit 3
fi
echo "PID:     $(unit_property MainPID), since $(unit_property ActiveEnterTimestamp)"
if ! api_responds "$OLLAMA_CALL_TIMEOUT"; then
  echo "API:     $OLLAMA_URL does not respond"
  exit 1
fi
echo "API:     $OLLAMA_URL responds"
echo "Version: $(api_get /api/version | json_version)"
if ! models="$(api_get /api/tags | json_models)"; then
  echo "Models:  not known"
  exit 1
fi
echo "Models:  $(grep -c . <<<"$models" || true)"
while IFS=$'\t' read -r name size digest; do
  [[ -n "$name" ]] || continue
  digest="${digest#sha256:}"
  printf '  %-32s %s  %s\n' "$name" "${digest:0:12}" "$(numfmt --to=si --suffix=B "$size")"
done <<<"$models"
