# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Streams cut into their records: server-sent events, and JSON lines; no sockets in here.

Server-sent events follow the WHATWG HTML standard, section 9.2.6: lines end with CR LF, LF or CR,
a colon at the beginning makes a comment, the space after a field's colon is optional, several
``data`` lines of an event are joined by LF, an empty line ends the event.
"""

from __future__ import annotations

import re

RECORD_LIMIT = 16 * 2**20
_LINE_END = re.compile(rb"\r\n|\n|\r")


class StreamError(ValueError):
    """A record is longer than any answer's may be."""


class LineSplitter:
    """Cut a body into JSON lines."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that a piece completes, without empty ones."""
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > RECORD_LIMIT:
            raise StreamError(f"a line of more than {RECORD_LIMIT} bytes")
        return [line for line in lines if line.strip()]

    def end(self) -> list[bytes]:
        """Return the last line when it has no end."""
        rest, self._rest = self._rest.strip(), b""
        return [rest] if rest else []


class EventSplitter:
    """Cut a body into the data of its server-sent events."""

    __slots__ = ("_data", "_rest", "_skip_lf")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._skip_lf = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of the events that a piece completes, without empty ones."""
        if not data:
            return []
        if not self._data and not self._rest and not self._skip_lf and _plain(data):
            return [data[6:-2]]
        if self._skip_lf and data[:1] == b"\n":  # the other half of a CR LF
            data = data[1:]
        self._skip_lf = data[-1:] == b"\r"
        lines = _lines(self._rest + data if self._rest else data)
        self._rest = lines.pop()
        if len(self._rest) > RECORD_LIMIT:
            raise StreamError(f"an event of more than {RECORD_LIMIT} bytes")
        events: list[bytes] = []
        for line in lines:
            self._line(line, events)
        return events

    def end(self) -> list[bytes]:
        """Return the last event when nothing but its empty line is missing."""
        events: list[bytes] = []
        if self._rest:
            self._line(self._rest, events)
        self._line(b"", events)
        self._rest = b""
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                event = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                self._data = []
                if event:
                    events.append(event)
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            self._data.append(b"")


def _plain(data: bytes) -> bool:
    """Tell whether a piece is one whole event of one line, as servers mostly send them."""
    return (
        len(data) > len(b"data: \n\n")
        and data.startswith(b"data: ")
        and data.endswith(b"\n\n")
        and data.find(b"\n") == len(data) - 2
        and b"\r" not in data
    )


def _lines(data: bytes) -> list[bytes]:
    return data.split(b"\n") if b"\r" not in data else _LINE_END.split(data)
