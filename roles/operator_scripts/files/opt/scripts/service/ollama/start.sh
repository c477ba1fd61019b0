#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Starts the Ollama service, waits for it, and verifies the service and its API.
# Exit codes: 0 started and responding, 1 failed, 2 wrong usage.

set -euo pipefail

scripts_dir="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=../../lib/ollama-common.sh
source "$scripts_dir/lib/ollama-common.sh"
handle_arguments "Usage: start.sh
Starts $OLLAMA_UNIT and waits until its API responds." "$@"
require_commands systemctl curl python3

# Keeps what the service said, so that the message below names a file that really has it.
save_logs() {
  local file="$OLLAMA_LOG_DIR/start-failure.log"
  if {
    date -u '+%Y-%m-%dT%H:%M:%SZ'
    systemctl status --no-pager --full "$OLLAMA_UNIT" || true
    journalctl --no-pager --lines 100 --unit "$OLLAMA_UNIT" || true
  } >"$file" 2>&1; then
    echo "$file"
  else
    echo "journalctl -u $OLLAMA_UNIT"
  fi 2>/dev/null
}

give_up() {
  echo "$1" >&2
  echo "Ollama failed to start - check logs at $(save_logs)" >&2
  exit 1
}

deadline=$((SECONDS + OLLAMA_START_TIMEOUT))
echo "Starting $OLLAMA_UNIT"
# A failure of an earlier start must not be taken for one of this start.
systemctl reset-failed "$OLLAMA_UNIT" 2>/dev/null || true
systemctl start --no-block "$OLLAMA_UNIT" || give_up "$OLLAMA_UNIT could not be started"
while true; do
  state="$(unit_state)"
  left=$((deadline - SECONDS))
  if [[ "$state" == "active" && "$left" -gt 0 ]]; then
    wait_for=$((left < OLLAMA_CALL_TIMEOUT ? left : OLLAMA_CALL_TIMEOUT))
    if api_responds "$wait_for"; then
      echo "Ollama started successfully and is responding"
      exit 0
    fi
  elif [[ "$state" == "failed" ]]; then
    give_up "$OLLAMA_UNIT is failed"
  fi
  if [[ "$SECONDS" -ge "$deadline" ]]; then
    give_up "$OLLAMA_UNIT is $state and $OLLAMA_URL does not respond after $OLLAMA_START_TIMEOUT s"
  fi
  sleep 1
done
