# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A journalctl for tests: it prints entries from a file, and misbehaves when told to."""

from __future__ import annotations

import json
import sys
import time

BOOT_1, BOOT_2 = "a" * 32, "b" * 32
MINUTE = 60_000_000
# Events lie some minutes back, so that they are within every window of days.
BEGIN = int((time.time() - 3600) * 1e6)


def days_since(minute):
    """Return how many days ago a minute of the journal was, however long the tests have run."""
    return (time.time() * 1e6 - BEGIN - minute * MINUTE) / 1e6 / 86400


XID_79 = (
    "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
)
XID_31 = (
    "NVRM: Xid (PCI:0000:0a:00): 31, pid=13332, name=cuda_plot_k32_v, Ch 00000010, intr 00000000. "
    "MMU Fault: ENGINE CE2 HUBCLIENT_CE0 faulted @ 0x7f29_5b8c9000. Fault is of type "
    "FAULT_PRIV_VIOLATION ACCESS_TYPE_VIRT_READ"
)
NOISE = "usb 1-1: new high-speed USB device number 2 using xhci_hcd"

_SCRIPT = """#!{python} -IS
import json, os, re, sys, time
base = os.path.dirname(os.path.abspath(__file__))
with open(base + "/behaviour.json") as file:
    does = json.load(file)
with open(base + "/calls", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
options = dict(word.partition("=")[::2] for word in sys.argv[1:])
with open(base + "/journal.jsonl") as file:
    entries = [json.loads(line) for line in file]
if "_TRANSPORT" not in options or options.get("--output") != "json":
    sys.exit("unexpected arguments")
if does.get("fail"):
    sys.stderr.write(does["fail"][1])
    sys.exit(does["fail"][0])
if "--grep" in options and does.get("no_grep"):
    sys.stderr.write("Compiled without pattern matching support\\n")
    sys.exit(1)
if "--cursor" in options:
    if does.get("bad_cursor"):
        sys.stderr.write("Failed to seek to cursor: Invalid argument\\n")
        sys.exit(1)
    wanted = int(options["--cursor"])
    entries = [entry for entry in entries if int(entry["__CURSOR"]) >= wanted]
if "--since" in options:
    after = int(options["--since"][1:]) * 1000000
    entries = [entry for entry in entries if int(entry["__REALTIME_TIMESTAMP"]) >= after]
if "--lines" in options:
    entries = entries[-int(options["--lines"]):]
if "--grep" in options:
    texts = [e["MESSAGE"] if isinstance(e["MESSAGE"], str) else "NVRM" for e in entries]
    entries = [e for e, text in zip(entries, texts) if re.search(options["--grep"], text)]
    if not entries and does.get("grep_status"):
        sys.exit(1)
if not entries:
    print("-- No entries --")
out = "".join(json.dumps(entry) + "\\n" for entry in entries).encode()
step = does.get("chunk") or len(out) or 1
stop = does.get("hang_after")
for at in range(0, len(out), step):
    piece = out[at:at + step] if stop is None else out[at:min(at + step, stop)]
    os.write(1, piece)
    if stop is not None and at + step >= stop:
        time.sleep(600)
"""


class Journal:
    """A directory with a journalctl, its entries and its behaviour."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.program = str(folder / "journalctl")
        self.entries, self.number = [], 0
        (folder / "journalctl").write_text(_SCRIPT.replace("{python}", sys.executable))
        (folder / "journalctl").chmod(0o755)
        self.behave()
        self._write()

    def behave(self, **does):
        """Switch faults on, and every other one off."""
        (self.folder / "behaviour.json").write_text(json.dumps(does))

    def log(self, message, boot=BOOT_1, minute=None, **more):
        """Append an entry, a minute after the one before."""
        self.number += 1
        number = self.number
        at = MINUTE * (number if minute is None else minute)
        entry = {
            "__CURSOR": str(number),
            "__REALTIME_TIMESTAMP": str(BEGIN + at),
            "__MONOTONIC_TIMESTAMP": str(at + 7),
            "_SOURCE_MONOTONIC_TIMESTAMP": str(at),
            "_BOOT_ID": boot,
            "MESSAGE": message,
            **more,
        }
        self.entries.append(entry)
        self._write()
        return entry

    def rotate(self, keep):
        """Forget all but the last entries."""
        self.entries = self.entries[-keep:] if keep else []
        self._write()

    def calls(self):
        """Return how it was called so far."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def _write(self):
        text = "".join(f"{json.dumps(entry)}\n" for entry in self.entries)
        (self.folder / "journal.jsonl").write_text(text)
