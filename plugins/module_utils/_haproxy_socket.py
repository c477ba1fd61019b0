# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Ask HAProxy over its two sockets: the worker's for orders, the master's for every worker."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_stat import (
    Key,
    parse_sessions,
)

TIMEOUT_S = 10.0
PATIENCE_S = 4.0  # a reload closes the sockets for a moment
_PAUSE_S = 0.1
_NO_SUCH_SESSION = "No such session"
_NO_SUCH_WORKER = "Can't find the target PID"


class Runtime:
    """The runtime interface of one HAProxy.

    Args:
        gateway: name of the gateway in messages.
        admin: the worker's socket, of level admin.
        master: the master process's socket; empty when HAProxy runs without a master.
        unit: HAProxy's systemd unit, for messages.
        patience_s: how long a socket that nobody answers is tried again.
        clock: monotonic seconds.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        gateway: str,
        admin: str,
        master: str,
        *,
        unit: str = "haproxy.service",
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.gateway = gateway
        self.admin = admin
        self.master = master
        self.unit = unit
        self.patience_s = patience_s
        self.clock = clock
        self.sleep = sleep

    def ask(self, command: str) -> str:
        """Return what the present worker answers to a command that only reads."""
        return self._patiently(self.admin, "admin socket", command)

    def order(self, command: str) -> None:
        """Give the present worker a command that answers nothing when it is obeyed."""
        self._obeyed(command, self.ask(command))

    def ask_master(self, command: str) -> str:
        """Return what the master answers."""
        return self._patiently(self.master, "master socket", command)

    def ask_worker(self, pid: int, command: str) -> str | None:
        """Return what one worker answers; None when it has ended."""
        answer = self.ask_master(f"@!{pid} {command}")
        return None if answer.startswith(_NO_SUCH_WORKER) else answer

    def end_sessions(self, pid: int, keys: Iterable[Key]) -> None:
        """End a worker's sessions with some servers.

        An old worker refuses ``shutdown sessions server``, because its proxies are disabled.
        """
        wanted = set(keys)
        sessions = parse_sessions(self.ask_worker(pid, "show sess") or "")
        for session in [session for session, key in sessions.items() if key in wanted]:
            command = f"shutdown session {session}"
            answer = self.ask_worker(pid, command) or ""
            if not answer.startswith(_NO_SUCH_SESSION):  # else it has ended meanwhile
                self._obeyed(command, answer)

    def _obeyed(self, command: str, answer: str) -> None:
        if not answer.strip():
            return
        remedy = ""
        if "ermission denied" in answer:
            remedy = "Its line in the configuration needs 'level admin'."
        raise HostError(f"{self.gateway}: HAProxy refused '{command}': {answer.strip()!r}.", remedy)

    def _patiently(self, path: str, what: str, command: str) -> str:
        end = self.clock() + self.patience_s
        while True:
            try:
                answer = _talk(path, command)
                if answer:
                    return answer
                problem = "closed the connection without an answer"
            except OSError as error:
                problem = str(error.strerror or error)
            if self.clock() > end:
                break
            self.sleep(_PAUSE_S)
        raise HostError(
            f"{self.gateway}: HAProxy's {what} {path}: {problem}; wanted an answer to '{command}'.",
            f"See that {self.unit} is running (systemctl status {self.unit}) and that it is "
            "configured with this socket.",
        )


def _talk(path: str, command: str) -> str:
    """Send one line and read to the end.

    The master of HAProxy 2.6 ends its answer only after the client has closed its write side.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while True:
            part = connection.recv(65536)
            if not part:
                return b"".join(parts).decode("utf-8", "replace")
            parts.append(part)
