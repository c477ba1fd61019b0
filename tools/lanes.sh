#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Brings the lab up and runs the lanes of `make test` side by side: two with the scenarios of their own lab
# hosts each, those that measure time first, and then what needs no host and hasn't been taken yet, so that
# they end together. Both wait a lot for what takes its time. So a third one helps them as soon as nothing is
# measured any more. Before, it would be the load from outside that a benchmark is there to find, and takes
# only what computes and waits for nobody, at the lowest priority. Nothing is measured while the lab comes up
# either, and that leaves a processor free: lane 0 begins with what computes then.
# The first is watched live, the output of the others comes when they are done. A failure doesn't end a lane,
# so that one run shows them all. What failed is said last, in the lines that say why: the end of a log is
# what a person, or a CI's summary, sees first.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export HX_KEEP_LAB=yes

# What is short and may have any priority comes last.
without_hosts=(simulators-1 simulators-2 simulators-3 simulators-4 sanity units core218 import)
computing=(sanity units core218 import)

measured() {
  [ -e build/taken/measured-1 ] && [ -e build/taken/measured-2 ]
}

take() { # LANE WHAT: do what no lane has taken yet; the lane's rc tells whether anything failed
  local priority=()
  mkdir "build/taken/$2" 2>/dev/null || return 0
  [[ $1 = [12] ]] || measured || priority=(nice -n 19)
  echo "lane $1: $2, after $SECONDS s"
  TIMEFORMAT="lane $1: $2 took %R s, of the processor %U s + %S s"
  time "${priority[@]}" make "$2" || rc=$?
}

lane() { # NUMBER
  local rc=0 what
  case $1 in
    0) without_hosts=(lint) ;;
    3)
      for what in "${computing[@]}"; do
        measured || take 3 "$what"
      done
      until measured; do sleep 1; done
      ;;
    *)
      make "lane-$1" || rc=$?
      touch "build/taken/measured-$1" # also where nothing could be begun
      ;;
  esac
  for what in "${without_hosts[@]}"; do
    take "$1" "$what"
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
begin 2
begin 3
lane 1 2>&1 | tee build/lane-1.log || rc=$?
for pid in "${others[@]}"; do
  wait "$pid" || rc=$?
done
cat build/lane-[023].log
[ "$rc" -ne 0 ] || exit 0

echo "What failed:"
for log in build/lane-[0123].log; do
  grep -q ': rc=0 after' <(tail -n 1 "$log") && continue
  echo "$log"
  sed -E 's/\x1b\[[0-9;]*m//g' "$log" |
    grep -E '^( *│ )?(FAILED [^-]|ERROR |E   )|\[ERROR\]: |\bfatal: |^make.*Error|^molecule: .*failed|^lane ' |
    tail -n 24 | cut -c1-240
done
exit "$rc"
