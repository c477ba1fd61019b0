#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Opens a report where there is a screen, and says where it is in any case.
set -euo pipefail
report=$(realpath "$1")
printf 'The report: file://%s\n' "$report"
if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && command -v xdg-open >/dev/null 2>&1; then
  xdg-open "$report" >/dev/null 2>&1 &
fi
