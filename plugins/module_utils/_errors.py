# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The one family of errors that the libraries raise and the modules turn into results."""

from __future__ import annotations


class HostError(Exception):
    """Something on a host is not as it must be.

    Args:
        message: what failed, on what, the value found and the value wanted.
        remedy: what the operator can do about it; empty when there is nothing to say.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        if self.remedy:
            return f"{self.message} {self.remedy}"
        return self.message


class UnreachableError(HostError):
    """A server gives no answer at all, which says nothing of what it was asked for."""
