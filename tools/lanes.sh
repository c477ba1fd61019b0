#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs the three lanes of `make test` side by side: two with lab hosts of their own, and one without
# any. The first is watched live, the output of the others comes when they are done. What failed is
# said last, in the lines that say why: the end of a log is what a person, or a CI's summary, sees
# first.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
mkdir -p build
export HX_KEEP_LAB=yes

# The first lane is the longest, so the others give way to it.
lane() { # NUMBER NICENESS
  local began=$SECONDS rc=0
  nice -n "$2" make "lane-$1" || rc=$?
  echo "lane $1: rc=$rc after $((SECONDS - began)) s"
  return "$rc"
}

lane 2 3 >build/lane-2.log 2>&1 &
second=$!
lane 3 5 >build/lane-3.log 2>&1 &
third=$!
trap 'kill $second $third 2>/dev/null; exit 130' INT TERM
rc=0
lane 1 0 2>&1 | tee build/lane-1.log || rc=$?
wait "$third" || rc=$?
cat build/lane-3.log
wait "$second" || rc=$?
cat build/lane-2.log
[ "$rc" -ne 0 ] || exit 0

echo "What failed:"
for log in build/lane-[123].log; do
  grep -q ': rc=0 after' <(tail -n 1 "$log") && continue
  echo "$log"
  sed -E 's/\x1b\[[0-9;]*m//g' "$log" |
    grep -E '^( *│ )?(FAILED [^-]|ERROR |E   )|\[ERROR\]: |\bfatal: |^make.*Error|^molecule: .*failed|^lane ' |
    tail -n 24 | cut -c1-240
done
exit "$rc"
