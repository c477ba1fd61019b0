# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Judge which of the host's GPUs an engine sees, without asking a model anything.

Three sources, none of them always there: what Ollama wrote to its log when it started, the
processes that hold memory on a GPU by NVML, and where Ollama says that its loaded models lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_model import (
    OLLAMA,
    Seen,
    Service,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
    at_least,
    judge,
)

# The reader could not be run: says nothing about the GPUs.
UNREAD = frozenset({"no_binding", "no_reader", ""})


def gpu_verdicts(service: Service, seen: Seen, gpu_facts: Mapping[str, Any]) -> list[Verdict]:
    """Judge the GPUs that a running service sees, and where its loaded models lie."""
    if service.gpus == 0:
        return []
    verdicts = placement_verdicts(service, seen)
    state = str(gpu_facts.get("state") or "")
    if state not in ("ok", *UNREAD):
        said = [str(error.get("message")) for error in gpu_facts.get("errors") or []]
        text = "; ".join(said) or "the module gpu_info"
        status = FAIL
        if service.gpus is None:  # it may be a host without GPUs, and nobody says
            status, text = WARN, f"{text}; nothing is declared, 0 GPUs would silence this"
        return [Verdict("host_gpus", status, service.unit, state, "ok", "", text), *verdicts]
    wanted = wanted_gpus(service, seen, gpu_facts)
    if wanted is None:
        return verdicts
    if wanted == 0:
        text = "its environment hides all GPUs of the host, and nothing is declared"
        return [Verdict("gpus_visible", WARN, service.unit, 0, None, "", text), *verdicts]
    return [_visible(service, seen, gpu_facts, wanted), *verdicts]


def wanted_gpus(service: Service, seen: Seen, gpu_facts: Mapping[str, Any]) -> int | None:
    """Return how many GPUs a service has to see; None when nobody says.

    The declared number; else, for Ollama, those that its environment leaves it or the host has; an
    engine of another kind serves one model and has to hold at least one.
    """
    if service.gpus is not None:
        return service.gpus
    there = len(_working(gpu_facts))
    if not there:
        return None
    if service.kind != OLLAMA:
        return 1
    return there if seen.limited_to is None else min(there, seen.limited_to)


def _working(gpu_facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    gpus = gpu_facts.get("gpus") or []
    return [gpu for gpu in gpus if isinstance(gpu, Mapping) and gpu.get("state") == "ok"]


def held_gpus(seen: Seen, gpu_facts: Mapping[str, Any]) -> int | None:
    """Return on how many GPUs the service's processes hold memory; None when no card tells."""
    known = [gpu for gpu in _working(gpu_facts) if gpu.get("processes") is not None]
    if not known:
        return None
    return sum(_holds(gpu["processes"], seen.pids) for gpu in known)


def _holds(processes: Sequence[Mapping[str, Any]], pids: frozenset[int]) -> bool:
    return any(process.get("pid") in pids for process in processes)


def _visible(service: Service, seen: Seen, gpu_facts: Mapping[str, Any], wanted: int) -> Verdict:
    held = held_gpus(seen, gpu_facts)
    if seen.logged_gpus is not None:
        text = "GPUs in the log of its start"
        text += f"; its processes hold memory on {held}" if held is not None else ""
        return judge(
            "gpus_visible",
            seen.logged_gpus >= wanted,
            subject=service.unit,
            value=seen.logged_gpus,
            limit=wanted,
            evidence=text,
        )
    if held is None:
        text = "neither its log nor the cards tell which GPUs it sees"
        return Verdict("gpus_visible", WARN, service.unit, None, wanted, "", text)
    text = "GPUs on which its processes hold memory, by NVML"
    if service.kind == OLLAMA and held < wanted:
        # One without a loaded model holds nothing, and one with a small model needs no second GPU.
        text += "; its log of the start is gone, so that it may see more"
        return Verdict("gpus_visible", WARN, service.unit, held, wanted, "", text)
    return at_least("gpus_visible", held, wanted, subject=service.unit, evidence=text)


def placement_verdicts(service: Service, seen: Seen) -> list[Verdict]:
    """Judge which part of each loaded model of Ollama lies in GPU memory."""
    if service.kind != OLLAMA or service.min_gpu_ratio <= 0:
        return []
    verdicts = []
    for entry in seen.api.loaded:
        name = str(entry.get("name") or entry.get("model") or "")
        size, on_gpu = _count(entry.get("size")), _count(entry.get("size_vram"))
        subject = f"{service.unit} {name}".strip()
        limit = service.min_gpu_ratio
        text = f"GET /api/ps: {on_gpu} of {size} bytes in GPU memory"
        if size <= 0 or on_gpu > size:
            text += ", which tells nothing"
            verdicts.append(Verdict("gpu_placement", WARN, subject, None, limit, "", text))
            continue
        ratio = round(on_gpu / size, 4)
        status = PASS if ratio >= limit else FAIL
        verdicts.append(Verdict("gpu_placement", status, subject, ratio, limit, "", text))
    return verdicts


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
