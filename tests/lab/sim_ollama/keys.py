# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key pair that the server makes at its first start, in OpenSSH's format."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from pathlib import Path

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
BASE_Y = 4 * pow(5, P - 2, P) % P
BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
KEY_TYPE = b"ssh-ed25519"

Point = tuple[int, int, int, int]


def ensure(folder: Path) -> None:
    """Make id_ed25519 (0600) and its public half unless they are there."""
    private = folder / "id_ed25519"
    if private.exists():
        return
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    seed = os.urandom(32)
    public = public_key(seed)
    handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(_private_file(seed, public))
    blob = _field(KEY_TYPE) + _field(public)
    line = f"{KEY_TYPE.decode()} {base64.b64encode(blob).decode()}\n"
    (folder / "id_ed25519.pub").write_text(line)
    (folder / "id_ed25519.pub").chmod(0o644)


def public_key(seed: bytes) -> bytes:
    """Return the Ed25519 public key of a 32-byte seed (RFC 8032)."""
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    scalar = (scalar & ((1 << 254) - 8)) | (1 << 254)
    x, y, z, _t = _multiply(scalar, (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P))
    inverse = pow(z, P - 2, P)
    return ((y * inverse % P) | ((x * inverse % P & 1) << 255)).to_bytes(32, "little")


def _add(a: Point, b: Point) -> Point:
    first = (a[1] - a[0]) * (b[1] - b[0]) % P
    second = (a[1] + a[0]) * (b[1] + b[0]) % P
    third = 2 * a[3] * b[3] * D % P
    fourth = 2 * a[2] * b[2] % P
    e, f, g, h = second - first, fourth - third, fourth + third, second + first
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _multiply(scalar: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _field(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _private_file(seed: bytes, public: bytes) -> str:
    check = os.urandom(4)
    secret = check + check + _field(KEY_TYPE) + _field(public) + _field(seed + public) + _field(b"")
    secret += bytes(range(1, 1 + (-len(secret)) % 8))
    blob = (
        b"openssh-key-v1\0"
        + _field(b"none")
        + _field(b"none")
        + _field(b"")
        + struct.pack(">I", 1)
        + _field(_field(KEY_TYPE) + _field(public))
        + _field(secret)
    )
    text = base64.b64encode(blob).decode()
    lines = [text[i : i + 70] for i in range(0, len(text), 70)]
    head, tail = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
    return "\n".join([head, *lines, tail]) + "\n"
