#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Stops the Ollama service. Requests in flight have a time of grace, then it is killed.
# Exit codes: 0 stopped, 1 failed, 2 wrong usage.

set -euo pipefail

scripts_dir="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=../../lib/ollama-common.sh
source "$scripts_dir/lib/ollama-common.sh"
handle_arguments "Usage: stop.sh
Stops $OLLAMA_UNIT; after $OLLAMA_STOP_GRACE s it is killed." "$@"
require_commands systemctl

# wait_until_stopped SECONDS
wait_until_stopped() {
  # One more: $SECONDS counts whole seconds of the clock, so that the first may be over at once.
  local deadline=$((SECONDS + $1 + 1)) state
  while true; do
    state="$(unit_state)"
    [[ "$state" != "inactive" && "$state" != "failed" ]] || return 0
    [[ "$SECONDS" -lt "$deadline" ]] || return 1
    sleep 1
  done
}

echo "Stopping $OLLAMA_UNIT"
if ! systemctl stop --no-block "$OLLAMA_UNIT"; then
  echo "Ollama failed to stop - check logs at journalctl -u $OLLAMA_UNIT" >&2
  exit 1
fi
if wait_until_stopped "$OLLAMA_STOP_GRACE"; then
  echo "Ollama stopped"
  exit 0
fi
echo "Ollama did not stop within $OLLAMA_STOP_GRACE s, killing it" >&2
systemctl kill --signal=SIGKILL "$OLLAMA_UNIT" || true
if wait_until_stopped 10; then
  echo "Ollama stopped"
  exit 0
fi
echo "Ollama failed to stop - check logs at journalctl -u $OLLAMA_UNIT" >&2
exit 1
