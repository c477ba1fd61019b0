# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells Prometheus how the nightly smoke test ended; systemd runs it after each run.

systemd gives the outcome in SERVICE_RESULT (``success`` or what went wrong) and EXIT_STATUS (a
number, or the name of a signal).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

PREFIX = "hx_infra_nightly_smoke_"


def render(result: str, status: str, now: float, last_success: float) -> str:
    """Return the textfile's text; a series that is not known is left out."""
    series = [
        ("success", "Whether the last nightly smoke test passed.", int(result == "success")),
        ("last_run_timestamp_seconds", "When it last ended.", now),
    ]
    if status.isdigit():
        series.append(("exit_status", "The exit status of the last run.", int(status)))
    if last_success:
        series.append(("last_success_timestamp_seconds", "When it last passed.", last_success))
    lines = []
    for name, text, value in series:
        lines += [
            f"# HELP {PREFIX}{name} {text}",
            f"# TYPE {PREFIX}{name} gauge",
            f"{PREFIX}{name} {value:.3f}"
            if isinstance(value, float)
            else f"{PREFIX}{name} {value}",
        ]
    return "\n".join(lines) + "\n"


def previous_success(path: Path) -> float:
    """Return when it last passed, from the textfile that is there; 0 for never."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return 0.0
    found = re.search(rf"^{PREFIX}last_success_timestamp_seconds (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def main(arguments: list[str] | None = None) -> int:
    """Write the textfile by rename and close the run's log with a line."""
    parser = argparse.ArgumentParser(description="Record how the nightly smoke test ended.")
    parser.add_argument("--textfile", type=Path, required=True, help="Prometheus textfile")
    path = parser.parse_args(arguments).textfile
    result, status = os.environ.get("SERVICE_RESULT", "unknown"), os.environ.get("EXIT_STATUS", "")
    now = time.time()
    last = now if result == "success" else previous_success(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(render(result, status, now, last))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    print(f"{stamp} nightly smoke test: {result}, exit status {status or 'unknown'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
