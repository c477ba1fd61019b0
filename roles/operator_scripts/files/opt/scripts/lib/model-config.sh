# shellcheck shell=bash
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Reads the model variables of environment files such as ollama.env. For bash 4 and later.
#
#   source /opt/scripts/lib/model-config.sh
#   is_model_variable LINE         succeeds when LINE assigns a variable that names one model
#   extract_model_value LINE       prints the value that LINE assigns, without quotes and comment
#   extract_model_references FILE  prints the model variables and the list of available models
#
# MODEL_* and OLLAMA_MODEL_* variables count; OLLAMA_MODELS, OLLAMA_MODELS_AVAILABLE and the like
# do not name one model. Windows line ends, 'export', indentation and spaces around the '=' are
# taken as they come. Of a variable that is assigned twice the last value counts.

if [ -z "${BASH_VERSION:-}" ]; then
  echo "ERROR: model-config.sh needs bash" >&2
  return 1
fi
if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
  echo "ERROR: model-config.sh is a library: source it, do not execute it" >&2
  echo "Usage: source ${BASH_SOURCE[0]}" >&2
  exit 1
fi

# Takes one line apart: _MODEL_CONFIG_NAME and _MODEL_CONFIG_VALUE.
# Returns 1 when the line assigns nothing, 2 when the end of the value can't be told.
_model_config_read() {
  local LC_ALL=C
  local line="$1" rest quote char
  local blank=$' \t\r\v\f'
  _MODEL_CONFIG_NAME=""
  _MODEL_CONFIG_VALUE=""
  while [[ "$line" == $'\xef\xbb\xbf'* ]]; do
    line="${line:3}"
  done
  line="${line#"${line%%[!"$blank"]*}"}"
  line="${line%"${line##*[!"$blank"]}"}"
  [[ "$line" =~ ^(export[[:blank:]]+)?([A-Za-z_][A-Za-z0-9_]*)[[:blank:]]*=[[:blank:]]*(.*)$ ]] ||
    return 1
  _MODEL_CONFIG_NAME="${BASH_REMATCH[2]}"
  rest="${BASH_REMATCH[3]}"
  quote="${rest:0:1}"
  if [[ "$quote" != '"' && "$quote" != "'" ]]; then
    [[ "$quote" == "#" ]] && rest=""
    rest="${rest%%[[:blank:]]#*}"
    _MODEL_CONFIG_VALUE="${rest%"${rest##*[!"$blank"]}"}"
    return 0
  fi
  rest="${rest:1}"
  while [[ -n "$rest" ]]; do
    char="${rest:0:1}"
    rest="${rest:1}"
    if [[ "$char" == "$quote" ]]; then
      rest="${rest#"${rest%%[!"$blank"]*}"}"
      [[ -z "$rest" || "$rest" == "#"* ]] && return 0
      break
    fi
    if [[ "$char" == "\\" && "$quote" == '"' && "${rest:0:1}" == [\"\\\$\`] ]]; then
      char="${rest:0:1}"
      rest="${rest:1}"
    fi
    _MODEL_CONFIG_VALUE+="$char"
  done
  _MODEL_CONFIG_VALUE=""
  return 2
}

_model_config_names_model() {
  local LC_ALL=C
  [[ "${1^^}" =~ ^(OLLAMA_)?MODEL_[A-Z0-9_]+$ ]]
}

# is_model_variable LINE
is_model_variable() {
  local status=0
  _model_config_read "${1-}" || status=$?
  [[ "$status" -ne 1 ]] && _model_config_names_model "$_MODEL_CONFIG_NAME"
}

# extract_model_value LINE
extract_model_value() {
  if ! _model_config_read "${1-}"; then
    echo "ERROR: no value can be read from: ${1-}" >&2
    return 1
  fi
  printf '%s\n' "$_MODEL_CONFIG_VALUE"
}

# extract_model_references FILE
extract_model_references() {
  if [[ $# -ne 1 ]]; then
    echo "Usage: extract_model_references FILE" >&2
    return 1
  fi
  if [[ ! -f "$1" || ! -r "$1" ]]; then
    echo "ERROR: $1 does not exist or is not readable" >&2
    return 1
  fi
  local line name status number=0 available=""
  local -a names=()
  local -A values=()
  while IFS= read -r line || [[ -n "$line" ]]; do
    number=$((number + 1))
    status=0
    _model_config_read "$line" || status=$?
    [[ "$status" -ne 1 ]] || continue
    name="$_MODEL_CONFIG_NAME"
    if [[ "$status" -eq 2 ]]; then
      echo "WARNING: $1 line $number: the value of $name can't be read" >&2
    elif [[ "$name" == "OLLAMA_MODELS_AVAILABLE" ]]; then
      available="$_MODEL_CONFIG_VALUE"
    elif _model_config_names_model "$name"; then
      [[ -n "${values[$name]+set}" ]] || names+=("$name")
      values[$name]="$_MODEL_CONFIG_VALUE"
    fi
  done <"$1"
  echo "Individual model variables:"
  if [[ "${#names[@]}" -gt 0 ]]; then
    for name in "${names[@]}"; do
      [[ -z "${values[$name]}" ]] || printf '  %s = %s\n' "$name" "${values[$name]}"
    done
  fi
  printf 'Available models list: %s\n' "$available"
}
