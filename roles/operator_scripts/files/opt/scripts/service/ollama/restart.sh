#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Stops the Ollama service and starts it again.
# Exit codes: 0 started and responding, 1 failed, 2 wrong usage.

set -euo pipefail

here="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
scripts_dir="$(cd "$here/../.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=../../lib/ollama-common.sh
source "$scripts_dir/lib/ollama-common.sh"
handle_arguments "Usage: restart.sh
Stops $OLLAMA_UNIT, starts it and waits until its API responds." "$@"

"$here/stop.sh"
exec "$here/start.sh"
