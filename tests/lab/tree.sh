#!/usr/bin/env bash
# Copyright (c) 2026, hx_infra.llm contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Prints every path of a lab host with kind, mode, owner, link target and, for files, a digest of the
# content and the time of the last change: what a dry run must leave as it was.
#   tree.sh HOST
set -euo pipefail
engine=$("$(dirname "${BASH_SOURCE[0]}")/engine.sh")
"$engine" exec -i "hx-llm-lab-$1" python3 -B - <<'PYTHON'
import hashlib, os, stat

# What the system writes by itself: kernel file systems, runtime state, logs, Ansible's own temporary
# files, what its modules compile to, and the account that its sudo keeps.
SKIP = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/lib/systemd",
        "/var/lib/sudo", "/root/.ansible", "/lab", "/var/cache/ldconfig", "/var/cache/hx-llm-lab-modules")

def lines(top):
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if os.path.join(folder, name) not in SKIP)
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            info = os.lstat(path)
            what = [f"{info.st_mode:o}", f"{info.st_uid}:{info.st_gid}"]
            if stat.S_ISLNK(info.st_mode):
                what.append(os.readlink(path))
            elif stat.S_ISREG(info.st_mode):
                with open(path, "rb") as handle:
                    what.append(hashlib.sha256(handle.read()).hexdigest())
                what.append(str(info.st_mtime_ns))
            yield " ".join([path, *what])

for line in lines("/"):
    print(line)
with open("/proc/self/mountinfo", encoding="utf-8") as handle:
    for line in handle:
        fields = line.split()
        if "sda" in line:
            print("mount", fields[4], fields[-3:])
PYTHON
for unit in ollama.service gpu-telemetry.timer nightly-smoke.timer; do
  "$engine" exec "hx-llm-lab-$1" systemctl show "$unit" -p Id -p MainPID -p ActiveState -p UnitFileState
done
