# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log lines in the server's own text format, on standard error."""

from __future__ import annotations

import sys
import threading
from datetime import datetime, timezone

_lock = threading.Lock()


def _quote(value: object) -> str:
    text = str(value)
    if text == "" or any(c in text for c in ' "=\n\t'):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return text


def log(level: str, source: str, message: str, **fields: object) -> None:
    """Write one structured line."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    parts = [f"time={now}", f"level={level}", f"source={source}", f"msg={_quote(message)}"]
    parts += [f"{key}={_quote(value)}" for key, value in fields.items()]
    raw(" ".join(parts))


def raw(line: str) -> None:
    """Write one line as it is."""
    with _lock:
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            return


def info(source: str, message: str, **fields: object) -> None:
    """Write an INFO line."""
    log("INFO", source, message, **fields)


def warn(source: str, message: str, **fields: object) -> None:
    """Write a WARN line."""
    log("WARN", source, message, **fields)


def error(source: str, message: str, **fields: object) -> None:
    """Write an ERROR line."""
    log("ERROR", source, message, **fields)


def access(status: int, seconds: float, client: str, method: str, path: str) -> None:
    """Write one access-log line."""
    now = datetime.now().astimezone().strftime("%Y/%m/%d - %H:%M:%S")
    took = f"{seconds:.6f}s" if seconds >= 1 else f"{seconds * 1000:.3f}ms"
    raw(f'[GIN] {now} | {status:3d} | {took:>13} | {client:>15} | {method:<8} "{path}"')
