# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Connections on which every step has a deadline and every failure a name."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    IntegrationError,
    printable,
)

MOST_BYTES = 4 * 1024 * 1024  # of one answer; none of the checks needs more


class Wire:
    """A connection; the protocol says before each step what it is about to do.

    Args:
        sock: the connected socket.
        timeout: seconds for each step.
        clock: a clock that only goes forward.
    """

    def __init__(
        self, sock: Any, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sock = sock
        self._timeout = timeout
        self._clock = clock
        self._buffer = b""
        self.tls = ""
        self.step("reachable", "the first answer")

    def step(self, check: str, phase: str) -> None:
        """Start the deadline of a step; a failure counts against this check."""
        self.check = check
        self.phase = phase
        self._end = self._clock() + self._timeout
        self._budget = MOST_BYTES

    def send(self, data: bytes) -> None:
        """Send everything."""
        self._guarded(lambda: self._sock.sendall(data))

    def some(self, limit: int = 65536) -> bytes:
        """Return the next bytes, at least one."""
        data, self._buffer = self._buffer[:limit], self._buffer[limit:]
        if data:
            return data
        data = self._guarded(lambda: self._sock.recv(limit))
        self._budget -= len(data)
        if self._budget < 0:
            raise self._trouble(f"more than {MOST_BYTES} bytes came", "garbage")
        if not data:
            raise self._trouble("the connection was closed", "closed")
        return data

    def exactly(self, count: int) -> bytes:
        """Return this many bytes."""
        got = b""
        while len(got) < count:
            got += self.some(count - len(got))
        return got

    def line(self, limit: int = 65536) -> bytes:
        """Return a line without its end."""
        got = b""
        while b"\n" not in got:
            if len(got) > limit:
                raise self._trouble("a line without an end came", "garbage")
            got += self.some()
        first, _end, rest = got.partition(b"\n")
        self._buffer = rest + self._buffer
        return first.rstrip(b"\r")

    def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Negotiate TLS and check the certificate against the name."""
        try:
            self._sock = self._guarded(
                lambda: context.wrap_socket(self._sock, server_hostname=name)
            )
        except ssl.SSLCertVerificationError as error:
            raise IntegrationError(
                "reachable",
                f"the certificate is not accepted: {error.verify_message}",
                "Name the authority's file in ca_path, or have the certificate made for this name.",
                "certificate",
            ) from error
        except IntegrationError as trouble:
            trouble.cause = "tls"  # silence too: some protocols wait for the end of a line
            raise
        self.tls = self._sock.version() or "TLS"

    def close(self) -> None:
        """Hang up."""
        try:
            self._sock.close()
        except OSError:
            return  # it is gone either way

    def _guarded(self, act: Callable[[], Any]) -> Any:
        left = self._end - self._clock()
        if left <= 0:
            raise self._trouble(f"no answer within {self._timeout:g} s", "silent")
        try:
            self._sock.settimeout(left)
            return act()
        except ssl.SSLCertVerificationError:
            raise
        except socket.timeout as error:
            text = f"no answer within {self._timeout:g} s"
            raise self._trouble(text, "silent") from error
        except ssl.SSLError as error:
            text = f"TLS failed: {printable(error.reason or str(error))}"
            raise self._trouble(text, "tls") from error
        except OSError as error:
            text = f"the connection broke: {error.strerror or error}"
            raise self._trouble(text, "closed") from error

    def _trouble(self, text: str, cause: str) -> IntegrationError:
        remedies = {
            "silent": "See whether the service hangs, and what stands between the hosts.",
            "tls": "See whether both sides mean TLS, and what the service's log says.",
        }
        remedy = remedies.get(cause, "See the service's log.")
        return IntegrationError(self.check, f"{text} (waiting for {self.phase})", remedy, cause)


class Dialer:
    """Opens connections to one host; asks for its addresses once.

    Args:
        host: name or address.
        timeout: seconds for each step.
        context: for TLS; ``None`` for plain connections.
        lookup: ``socket.getaddrinfo`` or a stand-in.
    """

    def __init__(
        self,
        host: str,
        timeout: float,
        context: ssl.SSLContext | None = None,
        lookup: Callable[..., Sequence[Any]] = socket.getaddrinfo,
    ) -> None:
        self.host = host
        self.timeout = timeout
        self.context = context
        self._lookup = lookup
        self._found: list[tuple[Any, str]] = []

    def open(self, port: int, *, tls: bool) -> tuple[Wire, str, float]:
        """Connect; returns the connection, the address it has and the milliseconds it took."""
        refusals: list[tuple[str, str]] = []
        end = time.monotonic() + self.timeout
        for family, address in self._addresses():
            begin = time.monotonic()
            if begin >= end:
                break
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(end - begin)
                sock.connect((address, port))
            except OSError as error:
                sock.close()
                refusals.append((address, _reason(error, self.timeout)))
                continue
            took = (time.monotonic() - begin) * 1000
            wire = Wire(sock, self.timeout)
            if tls and self.context is not None:
                try:
                    wire.step("reachable", "the TLS handshake")
                    wire.start_tls(self.context, self.host)
                except IntegrationError:
                    wire.close()
                    raise
            return wire, address, round(took, 2)
        raise _not_connected(refusals, port, self.timeout)

    def _addresses(self) -> list[tuple[Any, str]]:
        if self._found:
            return self._found
        box: list[Any] = []

        def ask() -> None:
            try:
                box.append(self._lookup(self.host, None, 0, socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                box.append(error)

        # The resolver takes no deadline of ours, so it works where nobody has to wait for it.
        worker = threading.Thread(target=ask, daemon=True)
        worker.start()
        worker.join(self.timeout)
        answer = box[0] if box else None
        if isinstance(answer, Exception) or not answer:
            raise _not_resolved(self.host, answer, self.timeout)
        self._found = list(dict.fromkeys((entry[0], entry[4][0]) for entry in answer))
        return self._found


def tls_context(ca_path: str, validate: bool) -> ssl.SSLContext:
    """Return how to speak TLS; an empty ``ca_path`` stands for the system's authorities."""
    try:
        context = ssl.create_default_context(cafile=ca_path or None)
    except OSError as error:  # ssl.SSLError is one
        raise IntegrationError(
            "reachable",
            f"ca_path {ca_path} can't be used: {error.strerror or printable(str(error))}",
            "Name a file with certificates in PEM form on the host that checks.",
            "ca_path",
        ) from error
    if not validate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _not_resolved(host: str, answer: Any, timeout: float) -> IntegrationError:
    remedy = "See /etc/hosts and the name servers of the host that checks."
    if answer is None:
        text = f"the name {host} was not resolved within {timeout:g} s"
        return IntegrationError("reachable", text, remedy, "name_timeout")
    said = getattr(answer, "strerror", None) or str(answer) or "no address"
    return IntegrationError("reachable", f"the name {host} is not resolved: {said}", remedy, "name")


def _reason(error: OSError, timeout: float) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.timeout):
        return f"no connection within {timeout:g} s"
    return error.strerror or str(error)


def _not_connected(refusals: list[tuple[str, str]], port: int, timeout: float) -> IntegrationError:
    if not refusals:
        refusals = [("", f"no connection within {timeout:g} s")]
    text = "; ".join(
        f"{reason} by {address}" if address else reason for address, reason in refusals
    )
    if all("refused" in reason for _address, reason in refusals):
        remedy = (
            f"Nothing listens on port {port} for this host: start the service, or correct the port."
        )
        return IntegrationError("reachable", text, remedy, "refused")
    if any("no connection" in reason for _address, reason in refusals):
        remedy = "A packet filter or a host that is down: see what stands between the hosts."
        return IntegrationError("reachable", text.replace(" by ", " to "), remedy, "timeout")
    return IntegrationError("reachable", text, "See the routes between the hosts.", "unreachable")
