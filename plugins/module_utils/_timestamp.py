# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""How results, records and notes write a moment."""

from __future__ import annotations

import time


def utc(moment: float | None) -> str:
    """Write a moment, in seconds since the epoch, as RFC 3339 in UTC; empty when there is none."""
    if moment is None:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
