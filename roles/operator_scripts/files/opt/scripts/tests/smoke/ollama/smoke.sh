#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Quick check of the API: root and version endpoint, in two to three seconds.
# Exit codes: 0 every test passed, 1 a test failed, 2 wrong usage.

set -euo pipefail

scripts_dir="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=../../../lib/ollama-common.sh
source "$scripts_dir/lib/ollama-common.sh"
handle_arguments "Usage: smoke.sh
Checks the root and the version endpoint of $OLLAMA_URL." "$@"
require_commands curl python3

test_root
test_version
finish_tests smoke
