# shellcheck shell=bash
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What the operator scripts for Ollama share. Sourced by them, never executed.

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
  echo "ERROR: ollama-common.sh is a library: source it, do not execute it" >&2
  exit 1
fi

_ollama_lib_dir="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
# shellcheck source=/dev/null
source "$_ollama_lib_dir/ollama-defaults.sh"
# shellcheck source-path=SCRIPTDIR source=model-config.sh
source "$_ollama_lib_dir/model-config.sh"
OLLAMA_URL="${OLLAMA_URL%/}"

# handle_arguments USAGE ARGUMENTS...: these scripts take none but --help.
handle_arguments() {
  local usage="$1"
  shift
  [[ $# -gt 0 ]] || return 0
  if [[ $# -eq 1 && ("$1" == "--help" || "$1" == "-h") ]]; then
    printf '%s\n' "$usage"
    common_usage
    exit 0
  fi
  printf 'ERROR: unexpected argument: %s\n%s\n' "$1" "$usage" >&2
  exit 2
}

common_usage() {
  cat <<USAGE

Environment variables and the values in force:
  OLLAMA_UNIT=$OLLAMA_UNIT
  OLLAMA_URL=$OLLAMA_URL
  OLLAMA_ENV_FILE=$OLLAMA_ENV_FILE
  OLLAMA_LOG_DIR=$OLLAMA_LOG_DIR
  OLLAMA_START_TIMEOUT=$OLLAMA_START_TIMEOUT   seconds until the service must respond
  OLLAMA_STOP_GRACE=$OLLAMA_STOP_GRACE   seconds until a service that doesn't stop is killed
  OLLAMA_CALL_TIMEOUT=$OLLAMA_CALL_TIMEOUT   seconds for one call of the API
USAGE
}

require_commands() {
  local command missing=()
  for command in "$@"; do
    command -v "$command" >/dev/null || missing+=("$command")
  done
  if [[ "${#missing[@]}" -gt 0 ]]; then
    echo "ERROR: not installed: ${missing[*]}" >&2
    exit 1
  fi
}

# api_get PATH [SECONDS]: prints the body; curl says on stderr why there is none.
api_get() {
  curl --silent --show-error --fail --noproxy '*' --max-time "${2:-$OLLAMA_CALL_TIMEOUT}" \
    "$OLLAMA_URL$1"
}

# api_responds SECONDS: whether the root and the version endpoint answer as Ollama does.
api_responds() {
  [[ "$(api_get / "$1" 2>/dev/null)" == *"Ollama is running"* ]] &&
    [[ -n "$(api_get /api/version "$1" 2>/dev/null | json_version 2>/dev/null)" ]]
}

# unit_state: active, activating, inactive, failed, ...
unit_state() {
  systemctl is-active "$OLLAMA_UNIT" 2>/dev/null || true
}

# unit_property NAME
unit_property() {
  systemctl show --property "$1" --value "$OLLAMA_UNIT" 2>/dev/null || true
}

# json_version: reads the answer of /api/version and prints the version.
json_version() {
  python3 -c '
import json, sys
try:
    version = json.load(sys.stdin)["version"]
    if not isinstance(version, str) or not version:
        raise ValueError("version is not a text")
except (ValueError, KeyError, TypeError) as error:
    sys.exit("the answer is not {\"version\": ...}: %s" % error)
print(version)
'
}

# json_models: reads the answer of /api/tags and prints name, bytes and digest per model.
json_models() {
  python3 -c '
import json, re, sys
try:
    models = json.load(sys.stdin)["models"]
    for model in models:
        name, size, digest = model["name"], model["size"], model["digest"]
        if not isinstance(name, str) or not name:
            raise ValueError("a model has no name")
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError("size of %s is %r" % (name, size))
        if not re.fullmatch("(sha256:)?[0-9a-f]{64}", str(digest)):
            raise ValueError("digest of %s is %r" % (name, digest))
except KeyError as error:
    sys.exit("the answer lacks %s" % error)
except (ValueError, TypeError) as error:
    sys.exit("the answer is not a list of models: %s" % error)
for model in models:
    print(model["name"], model["size"], model["digest"], sep="\t")
'
}

# Results of the smoke tests.
tests_passed=0
tests_failed=0

pass() {
  tests_passed=$((tests_passed + 1))
  printf 'PASS  %s\n' "$1"
}

fail() {
  tests_failed=$((tests_failed + 1))
  printf 'FAIL  %s\n' "$1"
}

# finish_tests NAME: says how it went; the exit code is 0 only when every test passed.
finish_tests() {
  local total=$((tests_passed + tests_failed))
  printf '%s: %d of %d tests passed\n' "$1" "$tests_passed" "$total"
  [[ "$tests_failed" -eq 0 && "$total" -gt 0 ]]
}

test_root() {
  local body
  if ! body="$(api_get / 2>&1)"; then
    fail "root endpoint $OLLAMA_URL/: ${body:-no answer}"
  elif [[ "$body" == *"Ollama is running"* ]]; then
    pass "root endpoint: Ollama is running"
  else
    fail "root endpoint $OLLAMA_URL/ answers '${body:0:60}', wanted 'Ollama is running'"
  fi
}

test_version() {
  local answer
  if ! answer="$(api_get /api/version 2>&1)"; then
    fail "version endpoint $OLLAMA_URL/api/version: ${answer:-no answer}"
  elif answer="$(json_version <<<"$answer" 2>&1)"; then
    pass "version endpoint: $answer"
  else
    fail "version endpoint $OLLAMA_URL/api/version: $answer"
  fi
}
