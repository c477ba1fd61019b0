#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Brings the lab up and runs the lanes of `make test` side by side: two with the scenarios of their own lab
# hosts each, those that measure time first, and then what needs no host and hasn't been taken yet, so that
# they end together. Both wait a lot for what takes its time. So a third one helps them as soon as nothing is
# measured any more: before, it would be the load from outside that a benchmark is there to find, also at the
# lowest priority. Nothing is measured while the lab comes up either, and that leaves a processor free: lane 0
# is what is done meanwhile.
# The first is watched live, the output of the others comes when they are done. A failure doesn't end a lane,
# so that one run shows them all. What failed is said last, in the lines that say why: the end of a log is
# what a person, or a CI's summary, sees first.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export HX_KEEP_LAB=yes

# The longest first: what is left for the end should be short.
without_hosts=(simulators-1 simulators-2 simulators-3 simulators-4 sanity units core218 import)

lane() { # NUMBER
  local rc=0 what
  case $1 in
    0) without_hosts=(lint) ;;
    3) until [ -e build/taken/measured-1 ] && [ -e build/taken/measured-2 ]; do sleep 1; done ;;
    *)
      make "lane-$1" || rc=$?
      touch "build/taken/measured-$1" # also where nothing could be begun
      ;;
  esac
  for what in "${without_hosts[@]}"; do
    mkdir "build/taken/$what" 2>/dev/null || continue
    echo "lane $1: $what, after $SECONDS s"
    TIMEFORMAT="lane $1: $what took %R s, of the processor %U s + %S s"
    time make "$what" || rc=$?
  done
  echo "lane $1: rc=$rc after $SECONDS s"
  return "$rc"
}

if [ "$#" -gt 0 ]; then
  lane "$1"
  exit
fi
rm -rf build/taken
mkdir -p build/taken
rc=0
others=()
end_others() {
  kill -- "${others[@]/#/-}" 2>/dev/null
}
trap 'end_others; exit 130' INT TERM
begin() { # NUMBER
  setsid "$BASH" tools/lanes.sh "$1" >"build/lane-$1.log" 2>&1 &
  others+=("$!")
}
begin 0
make lab || {
  rc=$?
  end_others
  exit "$rc"
}
wait "${others[0]}" || rc=$?
others=()
SECONDS=0 # as in the other lanes
begin 2
begin 3
lane 1 2>&1 | tee build/lane-1.log || rc=$?
for pid in "${others[@]}"; do
  wait "$pid" || rc=$?
done
cat build/lane-[023].log
[ "$rc" -ne 0 ] || exit 0

echo "What failed:"
reasons='^( *│ )?(FAILED [^-]|ERROR |E   )|\[ERROR\]: |\bfatal: |^molecule: .*failed'
for log in build/lane-[0123].log; do
  grep -q ': rc=0 after' <(tail -n 1 "$log") && continue
  echo "$log"
  said=$(sed -E 's/\x1b\[[0-9;]*m//g' "$log")
  # Linters have words of their own.
  ! grep -qE "$reasons" <<<"$said" || said=$(grep -E "$reasons|^make.*Error|^lane " <<<"$said")
  tail -n 24 <<<"$said" | cut -c1-240
done
exit "$rc"
