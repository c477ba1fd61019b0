# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import stringprep
import unicodedata

MECHANISM = "SCRAM-SHA-256"
MOST_ITERATIONS = 1_000_000  # of key stretching; more would be a server that wants us to hang

_BARRED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class ScramError(Exception):
    """The server's side of the exchange is not as the protocol wants it."""


class Scram:
    """One login.

    Args:
        password: as it was declared.
        nonce: random text without a comma.
        name: the account; PostgreSQL takes it from its own message and not from here.
    """

    def __init__(self, password: str, nonce: str, name: str = "") -> None:
        self._password = prepared(password).encode()
        self._nonce = nonce
        self._bare = f"n={name},r={nonce}"
        self._expected = b""

    def first(self) -> bytes:
        """Return the client's first message."""
        return f"n,,{self._bare}".encode()

    def final(self, server_first: bytes) -> bytes:
        """Return the client's proof for the server's first message."""
        text = server_first.decode("utf-8", "replace")
        fields = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
        nonce = fields.get("r", "")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("its nonce is not made from ours")
        try:
            salt = base64.b64decode(fields.get("s", ""), validate=True)
            rounds = int(fields.get("i", ""))
        except (binascii.Error, ValueError) as error:
            raise ScramError("salt or iteration count can't be read") from error
        if not 1 <= rounds <= MOST_ITERATIONS:
            raise ScramError(f"it wants {rounds} iterations, at most {MOST_ITERATIONS} are made")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, rounds)
        without_proof = f"c=biws,r={nonce}"
        signed = f"{self._bare},{text},{without_proof}".encode()
        client_key = _mac(salted, b"Client Key")
        signature = _mac(hashlib.sha256(client_key).digest(), signed)
        proof = bytes(left ^ right for left, right in zip(client_key, signature))
        self._expected = _mac(_mac(salted, b"Server Key"), signed)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Check that the server knows the password too."""
        text = server_final.decode("utf-8", "replace")
        if not text.startswith("v="):
            raise ScramError("it gives no signature")
        try:
            given = base64.b64decode(text[2:].split(",")[0], validate=True)
        except binascii.Error as error:
            raise ScramError("its signature can't be read") from error
        if not self._expected or not hmac.compare_digest(given, self._expected):
            raise ScramError("its signature is wrong: it doesn't know the password")


def prepared(password: str) -> str:
    """Return the password as SASLprep wants it, or as it is where SASLprep has no form for it."""
    if password.isascii():
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in password
        if not stringprep.in_table_b1(char)
    )
    text = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not text or any(barred(char) for barred in _BARRED for char in text):
        return password
    if any(stringprep.in_table_a1(char) for char in text):
        return password
    if any(stringprep.in_table_d1(char) for char in text) and (
        any(stringprep.in_table_d2(char) for char in text)
        or not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1]))
    ):
        return password
    return text


def _mac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()
