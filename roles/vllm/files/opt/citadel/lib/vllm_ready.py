# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wait until a vLLM service is ready: called by its unit, with its settings file.

Ready is when the process that listens on the port belongs to the unit and lists the expected
models. Two services on one port both claim to be ready, and only one of them answers; so health
alone is no proof. Ends at once when the service's process has ended.

Status 0: ready. Status 1: it isn't, and standard error says why.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import urllib.parse
from typing import Any

PAUSE_S = 0.5
LISTEN = "0A"


def control_group(pid: int, proc: str = "/proc") -> str:
    """Return the path of a process's control group as systemd named it, empty when it is gone."""
    try:
        with open(f"{proc}/{pid}/cgroup", encoding="utf-8") as stream:
            lines = [line.strip().split(":", 2) for line in stream]
    except OSError:
        return ""
    named = [path for _id, names, path in lines if names in ("", "name=systemd")]
    return max(named, key=len, default="")


def alive(pid: int, proc: str = "/proc") -> bool:
    """Tell whether a process is there and has not ended."""
    try:
        with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def listening(port: int, proc: str = "/proc") -> set[str]:
    """Return the sockets, as /proc names them, that listen on a TCP port."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"{proc}/net/{table}", encoding="ascii") as stream:
                rows = [line.split() for line in stream][1:]
        except OSError:
            continue
        for row in rows:
            if row[3] == LISTEN and int(row[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{row[9]}]")
    return found


def holder(sockets: set[str], proc: str = "/proc") -> int:
    """Return the process that holds one of some sockets, 0 when none is seen."""
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            for number in os.listdir(f"{proc}/{name}/fd"):
                if os.readlink(f"{proc}/{name}/fd/{number}") in sockets:
                    return int(name)
        except OSError:
            continue
    return 0


def read_key(path: str) -> str:
    """Return the key of an environment file."""
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            if line.startswith("VLLM_API_KEY="):
                return line.partition("=")[2].strip()
    raise ValueError(f"{path} has no line VLLM_API_KEY=")


def models(url: str, key: str, timeout: float = 10.0) -> list[str]:
    """Return the ids that the service lists."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connection.request("GET", "/v1/models", headers=headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"GET /v1/models answered status {answer.status}")
    return [str(entry["id"]) for entry in json.loads(content)["data"]]


def problem(settings: dict[str, Any], pid: int) -> str:
    """Return what is still missing, empty when the service is ready."""
    sockets = listening(int(settings["port"]))
    if not sockets:
        return f"nothing listens on port {settings['port']}"
    owner = holder(sockets) if settings.get("own_process", True) else 0
    if owner and control_group(owner) != control_group(pid):
        return f"port {settings['port']} is held by another process ({owner})"
    try:
        key = read_key(settings["key_file"]) if settings["key_file"] else ""
        listed = models(settings["url"], key)
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    missing = [name for name in settings["models"] if name not in listed]
    return f"it lists {listed}, not {missing}" if missing else ""


def wait(settings: dict[str, Any], pid: int) -> str:
    """Wait until the service is ready; return what was missing in the end, empty for nothing."""
    end = time.monotonic() + float(settings["timeout_s"])
    while True:
        missing = problem(settings, pid)
        if not missing:
            return ""
        if not alive(pid):
            return f"the service's process has ended; {missing}"
        if time.monotonic() >= end:
            return f"not ready within {settings['timeout_s']} s: {missing}"
        time.sleep(PAUSE_S)


def main() -> int:
    """Read the settings and wait."""
    try:
        with open(sys.argv[1], encoding="utf-8") as stream:
            settings = json.load(stream)
        if not settings["models"]:  # a member of a group, which answers no requests
            return 0
        missing = wait(settings, int(os.environ["MAINPID"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        missing = f"{sys.argv[1]} doesn't say what to wait for ({error!r}); run vllm.yml again"
    if missing:
        print(f"hx_infra.llm: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
