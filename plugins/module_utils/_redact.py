# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Addresses without the credentials that they may hold, for messages."""

from __future__ import annotations

import re

# Up to the last @ before the path: not everybody encodes an @ in a password.
_CREDENTIALS = re.compile(r"://[^/\s?#]+@")


def redact(text: str) -> str:
    """Return a text with the user and password of each address replaced."""
    return _CREDENTIALS.sub("://***@", text)
