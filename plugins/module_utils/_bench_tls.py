# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""TLS over bytes instead of sockets."""

from __future__ import annotations

import contextlib
import ssl

READ_SIZE = 262144


class Tls:
    """TLS over bytes, so that the raw socket stays ours to read and stamp."""

    __slots__ = ("incoming", "outgoing", "session", "up")

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(
            self.incoming, self.outgoing, server_hostname=server_name or None
        )
        self.up = False

    def advance(self) -> None:
        if not self.up:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.session.do_handshake()
                self.up = True

    def decrypt(self, data: bytes) -> bytes:
        self.incoming.write(data)
        self.advance()
        parts: list[bytes] = []
        if self.up:
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while True:
                    part = self.session.read(READ_SIZE)
                    if not part:
                        break
                    parts.append(part)
        return b"".join(parts)
