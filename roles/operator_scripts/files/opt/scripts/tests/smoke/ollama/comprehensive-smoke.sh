#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Full check of the API: root, version, structure of the model list, and the models against
# the environment file.
# Exit codes: 0 every test passed, 1 a test failed, 2 wrong usage.

set -euo pipefail

scripts_dir="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=../../../lib/ollama-common.sh
source "$scripts_dir/lib/ollama-common.sh"
handle_arguments "Usage: comprehensive-smoke.sh
Checks the endpoints of $OLLAMA_URL and its models against
$OLLAMA_ENV_FILE." "$@"
require_commands curl python3 comm

# full_names: one model a line on stdin; without pin, with its tag, sorted, each once.
full_names() {
  sed -E 's/@sha256:[0-9a-fA-F]+$//; s/^[[:blank:]]+//; s/[[:blank:]]+$//; /^$/d' |
    sed -E '/:[^/]*$/!s/$/:latest/' | sort -u
}

# compare WHAT WANTED FOUND: both lists one model a line.
compare() {
  local missing surplus
  missing="$(comm -23 <(full_names <<<"$2") <(full_names <<<"$3") | paste -sd ' ')"
  surplus="$(comm -13 <(full_names <<<"$2") <(full_names <<<"$3") | paste -sd ' ')"
  if [[ -z "$missing$surplus" ]]; then
    pass "$1: the same $(full_names <<<"$2" | grep -c . || true) models"
  else
    fail "$1:${missing:+ missing $missing}${missing:+${surplus:+,}}${surplus:+ not expected $surplus}"
  fi
}

test_models() {
  local answer references variables listed
  if ! answer="$(api_get /api/tags 2>&1)"; then
    fail "model registry $OLLAMA_URL/api/tags: ${answer:-no answer}"
    return 0
  fi
  if ! answer="$(json_models <<<"$answer" 2>&1)"; then
    fail "model registry $OLLAMA_URL/api/tags: $answer"
    return 0
  fi
  pass "model registry: $(grep -c . <<<"$answer" || true) models, structure valid"
  if ! references="$(extract_model_references "$OLLAMA_ENV_FILE" 2>&1)"; then
    fail "environment file: $references"
    return 0
  fi
  variables="$(sed -n 's/^  [A-Za-z0-9_]* = //p' <<<"$references")"
  listed="$(sed -n 's/^Available models list: //p' <<<"$references" | tr ',' '\n')"
  compare "environment file, list against variables" "$variables" "$listed"
  compare "models served against environment file" "$variables" "$(cut -f1 <<<"$answer")"
}

test_root
test_version
test_models
finish_tests comprehensive-smoke
