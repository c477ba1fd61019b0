# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What systemd makes of an ``EnvironmentFile=``, and what of it matters to an engine.

Systemd's rules, not those of people: a comment behind a value without quotes is a part of the
value, ``export`` makes a line none, and a value may go on over several lines. Reading with
patience what people wrote is the business of ``_model_config``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible_collections.hx_infra.llm.plugins.module_utils._model_config import is_informational

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BLANK, _LINE_END = " \t\n\r", "\n\r"
_ESCAPED = '"\\`$'  # what a backslash protects within double quotes


class _Reader:
    """The text of a file, character by character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def take(self) -> str:
        """Return the next character; empty at the end."""
        char = self._text[self._at : self._at + 1]
        self._at += 1
        return char


def load(content: bytes) -> dict[str, str]:
    """Return the variables that systemd sets from an environment file, the last value of each."""
    reader = _Reader(content.decode("utf-8", "surrogateescape"))
    found: dict[str, str] = {}
    while True:
        char = reader.take()
        if not char:
            return found
        if char in "#;":
            _skip_comment(reader)
        elif char not in _BLANK:
            name = _read_name(reader, char)
            if name is None:
                continue
            value = _read_value(reader)
            if _NAME.fullmatch(name) and _is_value(value):
                found[name] = value


def _is_value(value: str) -> bool:
    return not any(
        (ord(char) < 32 and char not in "\t\n") or 0xDC80 <= ord(char) <= 0xDCFF or ord(char) == 127
        for char in value
    )


def _skip_comment(reader: _Reader) -> None:
    """Read to the end of a comment; a backslash at the end of its line lets it go on."""
    char = reader.take()
    while char and char not in _LINE_END:
        if char == "\\":
            reader.take()
        char = reader.take()


def _read_name(reader: _Reader, first: str) -> str | None:
    """Return what stands before the ``=``; None for a line without one."""
    name = first
    char = reader.take()
    while char and char not in _LINE_END:
        if char == "=":
            return name.rstrip(_BLANK)
        name += char
        char = reader.take()
    return None


def _read_value(reader: _Reader) -> str:
    """Return the value that follows; quoted and bare parts beside each other are one value."""
    value, kept = "", 0  # blanks behind `kept` are at the value's end, and don't count
    bare = False  # a bare part takes quotes for characters like any other
    char = reader.take()
    while char and char not in _LINE_END:
        if char == "\\":
            after = reader.take()
            value += "" if after in _LINE_END else after
            bare, kept = True, len(value)
        elif char == "'" and not bare:
            value += _until(reader, "'")
            kept = len(value)
        elif char == '"' and not bare:
            value += _quoted(reader)
            kept = len(value)
        elif char not in _BLANK:
            value += char
            bare, kept = True, len(value)
        elif bare:
            value += char
        char = reader.take()
    return value[:kept]


def _until(reader: _Reader, end: str) -> str:
    text = ""
    char = reader.take()
    while char and char != end:
        text += char
        char = reader.take()
    return text


def _quoted(reader: _Reader) -> str:
    text = ""
    char = reader.take()
    while char and char != '"':
        if char == "\\":
            char = reader.take()
            text += char if char in _ESCAPED else "" if char == "\n" else f"\\{char}"
        else:
            text += char
        char = reader.take()
    return text


def settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without those that only inform people and scripts.

    A service is restarted for a change of what is left.
    """
    return {name: value for name, value in variables.items() if not is_informational(name)}
