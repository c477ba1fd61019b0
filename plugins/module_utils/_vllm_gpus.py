# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Which services share which GPUs, and whether the GPUs have what the services take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import Service
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_fit import usable
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_problem import human, problem

Problems = list[dict[str, str]]
Gpu = Mapping[str, Any]


def by_index(facts: Mapping[str, Any]) -> dict[int, Gpu]:
    """Return the GPUs by their index."""
    return {int(gpu["index"]): gpu for gpu in facts.get("gpus", [])}


def check_driver(services: Sequence[Service], facts: Mapping[str, Any]) -> Problems:
    """Refuse the GPU build where the driver doesn't answer: it never falls back to the CPU."""
    if facts.get("state") == "ok":
        return []
    told = "; ".join(str(error.get("message", "")) for error in facts.get("errors", []))
    found = f"{facts.get('state')} ({told})" if told else str(facts.get("state"))
    allowed = "a driver that answers, or the CPU build"
    return [problem(service.name, "model.gpus", found, allowed) for service in services[:1]]


def check_indexes(service: Service, gpus: Mapping[int, Gpu]) -> Problems:
    """Refuse GPUs that don't exist or don't work, and a number of them that doesn't fit."""
    result = []
    known = ", ".join(map(str, sorted(gpus))) or "none"
    for index in service.gpus:
        if index not in gpus:
            result.append(
                problem(service.name, "model.gpus", index, f"a GPU of this host: {known}")
            )
        elif gpus[index].get("state", "ok") != "ok":
            found = f"{index}, which is {gpus[index]['state']}"
            result.append(problem(service.name, "model.gpus", found, "a GPU that works"))
    if service.section("model").get("gpus") and len(service.gpus) != service.local_workers:
        found = f"{service.gpus} ({len(service.gpus)} GPUs)"
        result.append(problem(service.name, "model.gpus", found, _workers_words(service)))
    if service.tensor_parallel > 1:
        kinds = {str(gpus[i].get("name")) for i in service.gpus if i in gpus}
        if len(kinds) > 1:
            allowed = "GPUs of one kind; tensor parallelism over different ones hangs"
            result.append(problem(service.name, "model.gpus", ", ".join(sorted(kinds)), allowed))
    return result


def _workers_words(service: Service) -> str:
    text = (
        f"{service.local_workers} (tensor_parallel_size {service.tensor_parallel}"
        f" x pipeline_parallel_size {service.pipeline_parallel}"
    )
    hosts = len(service.group_hosts)
    return f"{text} / {hosts} hosts)" if hosts else f"{text})"


def foreign_use(gpu: Gpu, own_pids: frozenset[int]) -> tuple[int, list[str]]:
    """Return the memory of a GPU that others than these processes hold, and who they are."""
    total = usable(gpu) or 0
    free = gpu.get("memory_free_bytes")
    used = total - int(free) if free is not None else int(gpu.get("memory_used_bytes") or 0)
    others = []
    for process in gpu.get("processes") or []:
        size = process.get("memory_bytes")
        if process.get("pid") in own_pids:
            used -= int(size or 0)
        else:
            held = human(size) if size else "memory of a size not known"
            name = str(process.get("name") or "a process").rsplit("/", maxsplit=1)[-1]
            others.append(f"{name} (pid {process.get('pid')}) {held}")
    return max(0, used), others


def check_commitment(
    services: Sequence[Service], gpus: Mapping[int, Gpu], own_pids: frozenset[int]
) -> Problems:
    """Refuse services that together take more of a GPU than others leave."""
    result = []
    for index, gpu in sorted(gpus.items()):
        total = usable(gpu)
        sharing = [service for service in services if index in service.gpus]
        if not total or not sharing:
            continue
        asked = sum(math.ceil(total * service.utilization) for service in sharing)
        held, others = foreign_use(gpu, own_pids)
        if asked <= total - held:
            continue
        terms = " + ".join(f"{service.utilization:g} ({service.name})" for service in sharing)
        share = sum(service.utilization for service in sharing)
        found = f"{terms} = {share:g} of GPU {index}" if len(sharing) > 1 else f"{share:g}"
        room = max(0.0, math.floor((total - held) / total * 100) / 100)
        who = f" (of which {'; '.join(others)})" if others else ""
        allowed = (
            f"together at most {room:g} of GPU {index}: {human(total)} - {human(held)} held by"
            f" others{who} = {human(total - held)}, asked for {human(asked)}"
        )
        field = "model.gpu_memory_utilization"
        result.append(problem(sharing[-1].name, field, found, allowed))
    return result


def order(services: Sequence[Service]) -> dict[str, tuple[int, list[str]]]:
    """Return, by name, each service's turn and the units that must be ready before it.

    Services that share a GPU start one after another, in the order of their declaration: vLLM
    measures the GPU's memory while it loads and takes a neighbour's loading for its own.
    """
    turns: dict[str, tuple[int, list[str]]] = {}
    before: list[Service] = []
    for service in services:
        sharing = [other for other in before if set(other.gpus) & set(service.gpus)]
        turn = max((turns[other.name][0] + 1 for other in sharing), default=0)
        turns[service.name] = (turn, [other.unit for other in sharing])
        before.append(service)
    return turns
