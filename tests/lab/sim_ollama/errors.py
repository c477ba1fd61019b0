# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failures that become HTTP answers."""

from __future__ import annotations


class ApiError(Exception):
    """An answer other than 200, with the text of its `error` field."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ClientGoneError(Exception):
    """The client has closed its connection."""


class TruncatedStreamError(Exception):
    """The truncated-stream fault: the answer breaks off here, in the given way."""

    def __init__(self, mode: str) -> None:
        super().__init__(mode)
        self.mode = mode
