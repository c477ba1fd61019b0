# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The head of a GGUF weights file: written by the model generator, read by the server."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Union

MAGIC = b"GGUF"
VERSION = 3
TYPE_UINT32 = 4
TYPE_STRING = 8

Value = Union[int, str]


def header(values: dict[str, Value]) -> bytes:
    """Return a GGUF head with no tensors and the given key-value pairs."""
    out = [MAGIC, struct.pack("<IQQ", VERSION, 0, len(values))]
    for key, value in values.items():
        out.append(_string(key))
        if isinstance(value, int):
            out.append(struct.pack("<II", TYPE_UINT32, value))
        else:
            out.append(struct.pack("<I", TYPE_STRING) + _string(value))
    return b"".join(out)


def read(path: Path) -> dict[str, Value]:
    """Read the key-value pairs; OSError where there is no file, ValueError where it is no GGUF."""
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise ValueError("invalid file magic")
        try:
            _version, _tensors, count = struct.unpack("<IQQ", file.read(20))
            values: dict[str, Value] = {}
            for _index in range(min(count, 1000)):
                key = _read_string(file)
                (kind,) = struct.unpack("<I", file.read(4))
                if kind == TYPE_STRING:
                    values[key] = _read_string(file)
                else:
                    (values[key],) = struct.unpack("<I", file.read(4))
        except (struct.error, UnicodeDecodeError):
            raise ValueError("unexpected EOF") from None
    return values


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _read_string(file) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > 1 << 20:
        raise ValueError("unexpected EOF")
    return file.read(length).decode()
