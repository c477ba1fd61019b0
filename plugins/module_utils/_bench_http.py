# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""HTTP/1.1 answers, decoded from whatever pieces the wire delivers; no sockets in here.

Framing follows RFC 9112: chunked with extensions and trailers, a declared length, or the end of
the connection. Interim answers (1xx) are skipped.
"""

from __future__ import annotations

HEAD_LIMIT = 65536
CHUNK_LINE_LIMIT = 4096
MOST_DIGITS = 19

_HEAD, _SIZE, _DATA, _DATA_END, _TRAILER, _FIXED, _UNTIL_CLOSE, _DONE = range(8)


class WireError(ValueError):
    """The peer sent something that is no HTTP answer."""


class ResponseDecoder:
    """Decode one answer after another on one connection.

    Attributes:
        status: status of the current answer; 0 before its head is complete.
        headers: its headers, names in lower case.
        complete: whether the current answer has ended.
        reusable: whether the connection may carry another request after it.
    """

    __slots__ = ("_buffer", "_left", "_state", "complete", "headers", "reusable", "status")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Make ready for the next answer."""
        self._buffer = b""
        self._left = 0
        self._state = _HEAD
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.reusable = True

    @property
    def started(self) -> bool:
        """Tell whether anything of the current answer has come."""
        return self._state != _HEAD or bool(self._buffer)

    def feed(self, data: bytes) -> bytes:
        """Take a piece off the wire and return what it holds of the body.

        Raises:
            WireError: it is no HTTP answer, or the answer had ended before.
        """
        if self._state == _DONE and data:
            raise WireError(f"{len(data)} bytes after the end of the answer")
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        if self._state == _DATA and len(data) < self._left:  # the inside of a large chunk
            self._left -= len(data)
            return data
        parts: list[bytes] = []
        at = 0
        while at < len(data) or (self._state == _FIXED and not self._left):
            if self._state == _DONE:  # whole all the same, wherever the reads happen to be cut
                self.reusable = False
                break
            after = self._step(data, at, parts)
            if after < 0:
                self._buffer = data[at:]
                break
            at = after
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def end(self) -> None:
        """Take note that the peer closed the connection.

        Raises:
            WireError: the answer had not ended.
        """
        if self._state == _UNTIL_CLOSE:
            self._finish()
        elif self._state != _DONE:
            where = "before an answer" if not self.started else "in the middle of the answer"
            raise WireError(f"the connection was closed {where}")
        self.reusable = False

    def _step(self, data: bytes, at: int, parts: list[bytes]) -> int:
        """Decode one element from ``at``; return where it ends, or -1 when more is needed."""
        if self._state in (_DATA, _FIXED):
            return self._piece(data, at, parts)
        if self._state == _UNTIL_CLOSE:
            parts.append(data[at:])
            return len(data)
        return _STEPS[self._state](self, data, at)

    def _piece(self, data: bytes, at: int, parts: list[bytes]) -> int:
        piece = data[at : at + self._left] if at or len(data) > self._left else data
        if piece:
            parts.append(piece)
        self._left -= len(piece)
        if not self._left:
            if self._state == _FIXED:
                self._finish()
            else:
                self._state = _DATA_END
        return at + len(piece)

    def _data_end(self, data: bytes, at: int) -> int:
        if len(data) - at < 2:
            return -1
        if data[at : at + 2] != b"\r\n":
            raise WireError("a chunk is longer than it said")
        self._state = _SIZE
        return at + 2

    def _size(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at, at + CHUNK_LINE_LIMIT)
        if end < 0:
            if len(data) - at >= CHUNK_LINE_LIMIT:
                raise WireError("the size line of a chunk does not end")
            return -1
        try:
            size = int(data[at:end].split(b";", 1)[0], 16)
        except ValueError:
            raise WireError(f"{data[at:end][:40]!r} is no size of a chunk") from None
        if size < 0:
            raise WireError(f"{data[at:end][:40]!r} is no size of a chunk")
        self._left = size
        self._state = _DATA if size else _TRAILER
        return end + 2

    def _trailer(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at)
        if end < 0:
            if len(data) - at > HEAD_LIMIT:
                raise WireError("the trailer does not end")
            return -1
        if end == at:
            self._finish()
        return end + 2

    def _head(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            if len(data) - at > HEAD_LIMIT:
                raise WireError("the head does not end")
            return -1
        lines = data[at:end].decode("latin-1").split("\r\n")
        words = lines[0].split(None, 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not _number(words[1]):
            raise WireError(f"{lines[0][:60]!r} is no status line")
        status = int(words[1])
        if 100 <= status < 200:
            return end + 4
        self.status = status
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                self.headers[name.strip().lower()] = value.strip()
        self.reusable = words[0] != "HTTP/1.0"
        if self.headers.get("connection", "").lower() == "close":
            self.reusable = False
        self._body()
        return end + 4

    def _body(self) -> None:
        length = self.headers.get("content-length")
        if self.headers.get("transfer-encoding", "").lower().endswith("chunked"):
            self._state = _SIZE
        elif self.status in (204, 304):
            self._finish()
        elif length is None:
            self._state = _UNTIL_CLOSE
            self.reusable = False
        elif not _number(length):
            raise WireError(f"content-length {length[:40]!r} is no number")
        else:
            self._left = int(length)
            self._state = _FIXED

    def _finish(self) -> None:
        self._state = _DONE
        self.complete = True


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < MOST_DIGITS


_STEPS = {
    _HEAD: ResponseDecoder._head,
    _SIZE: ResponseDecoder._size,
    _DATA_END: ResponseDecoder._data_end,
    _TRAILER: ResponseDecoder._trailer,
}
