#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Prints the repository's shell programs: by name, and by their first line.
set -euo pipefail
git ls-files --cached --others --exclude-standard -- . ':!collections' ':!extensions' | while read -r file; do
  [ -f "$file" ] || continue
  case $file in
    *.sh) printf '%s\n' "$file" ;;
    *.j2 | *.py | *.yml | *.md | *.json | *.xml | *.c | *.h) ;;
    *) if head -c 64 "$file" | head -n 1 | grep -qE '^#!.*\b(ba)?sh\b'; then printf '%s\n' "$file"; fi ;;
  esac
done
