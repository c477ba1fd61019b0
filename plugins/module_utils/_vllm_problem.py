# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""How a problem of a declared vLLM service is told: field, value found, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

GIB = 1024**3
MIB = 1024**2


def problem(service: str, field: str, found: Any, allowed: str) -> dict[str, str]:
    """Return one problem as data; it has the same keys as those of the JSON schema."""
    return {"service": service, "field": field, "found": str(found), "allowed": allowed}


def sentence(item: Mapping[str, str], host: str) -> str:
    """Say a problem in one line."""
    field = f".{item['field']}" if item["field"] else ""
    where = f"services[{item['service']}]{field}" if item["service"] else "services"
    return f"{host}: {where}: value found {item['found']}, allowed {item['allowed']}"


def message(items: Iterable[Mapping[str, str]], host: str) -> str:
    """Say all problems, one a line, after a line that counts them."""
    lines = [sentence(item, host) for item in items]
    noun = "problem" if len(lines) == 1 else "problems"
    return "\n".join([f"{host}: {len(lines)} {noun} in the declared vLLM services:", *lines])


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question that names the nearest known name; empty when none is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def human(size: float) -> str:
    """Return a size in bytes in the unit that people read it in."""
    if abs(size) >= GIB:
        return f"{size / GIB:.2f} GiB"
    if abs(size) >= MIB:
        return f"{size / MIB:.1f} MiB"
    if abs(size) >= 1024:
        return f"{size / 1024:.4g} KiB"
    return f"{size:.0f} bytes"
