# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What was found of the services as rows of data, and as lines for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_gpus import held_gpus
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_judge import (
    owned_listeners,
    place,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_model import (
    WILDCARDS,
    Seen,
    Service,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import Verdict, worst

MIB = 1024 * 1024
COLUMNS = ("unit", "state", "pid", "memory", "bound", "version", "models", "GPUs", "")


def row(
    service: Service, seen: Seen, gpu_facts: Mapping[str, Any], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Return what was found of a service; a key is absent when its value isn't known."""
    api, own = seen.api, owned_listeners(service, seen)[0]
    found: dict[str, Any] = {
        "name": service.name,
        "status": worst(verdicts),
        "unit": service.unit,
        "active_state": seen.state.get("ActiveState"),
        "main_pid": seen.main_pid or None,
        "restarts": seen.restarts,
        "memory_bytes": seen.memory if seen.active else None,
        "memory_limit_bytes": seen.memory_limit,
        "bound": sorted({place(item.address, item.port) for item in own}),
        "wildcard": any(item.address in WILDCARDS for item in own),
        "version": api.version or None,
        "models": None if api.models is None else sorted(str(item["name"]) for item in api.models),
        "loaded": sorted(str(item.get("name") or "") for item in api.loaded),
        "gpus_logged": seen.logged_gpus,
        "gpus_held": held_gpus(seen, gpu_facts) if seen.active else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def table(rows: Sequence[Mapping[str, Any]], problems: Sequence[str]) -> list[str]:
    """Return a line per service, and all problems after them."""
    cells = [COLUMNS, *(_cells(item) for item in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in cells
    ]
    return [*lines, *(f"    {problem}" for problem in problems)]


def _cells(item: Mapping[str, Any]) -> tuple[str, ...]:
    memory = item.get("memory_bytes")
    models = item.get("models")
    return (
        str(item["unit"]),
        str(item.get("active_state", "-")),
        str(item.get("main_pid", "-")),
        "-" if memory is None else f"{memory / MIB:.0f} MiB",
        ", ".join(item["bound"]) or "-",
        str(item.get("version", "-")),
        "-" if models is None else str(len(models)),
        str(item.get("gpus_logged", item.get("gpus_held", "-"))),
        str(item["status"]),
    )
