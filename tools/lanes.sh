#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs the two lanes of `make test` side by side: each the scenarios of its own lab hosts, and then what
# needs no host and the other one hasn't taken yet, so that they end together. More lanes would leave no
# processor to what measures time. The first is watched live, the output of the second comes when it is
# done. A failure doesn't end a lane, so that one run shows them all. What failed is said last, in the
# lines that say why: the end of a log is what a person, or a CI's summary, sees first.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export HX_KEEP_LAB=yes

# The longest first: what is left for the end should be short.
without_hosts=(simulators lint units core218 sanity import)
rm -rf build/taken
mkdir -p build/taken

lane() { # NUMBER
  local began=$SECONDS rc=0 what
  make "lane-$1" || rc=$?
  for what in "${without_hosts[@]}"; do
    mkdir "build/taken/$what" 2>/dev/null || continue
    echo "lane $1: $what, after $((SECONDS - began)) s"
    make "$what" || rc=$?
  done
  echo "lane $1: rc=$rc after $((SECONDS - began)) s"
  return "$rc"
}

lane 2 >build/lane-2.log 2>&1 &
second=$!
trap 'kill $second 2>/dev/null; exit 130' INT TERM
rc=0
lane 1 2>&1 | tee build/lane-1.log || rc=$?
wait "$second" || rc=$?
cat build/lane-2.log
[ "$rc" -ne 0 ] || exit 0

echo "What failed:"
for log in build/lane-[12].log; do
  grep -q ': rc=0 after' <(tail -n 1 "$log") && continue
  echo "$log"
  sed -E 's/\x1b\[[0-9;]*m//g' "$log" |
    grep -E '^( *│ )?(FAILED [^-]|ERROR |E   )|\[ERROR\]: |\bfatal: |^make.*Error|^molecule: .*failed|^lane ' |
    tail -n 24 | cut -c1-240
done
exit "$rc"
