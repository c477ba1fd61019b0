# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""From declared services and an observed host to what each service is started with, or refusals.

A pure function: what it has to know about the host is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _vllm_fit,
    _vllm_gpus,
    _vllm_group,
    _vllm_render,
    _vllm_rules,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import PASS, WARN, Verdict
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import (
    Service,
    Settings,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_files import ModelFiles
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_flags import (
    for_version,
    known_versions,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_model import Shape, shape_of
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Host
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_problem import human, problem

Problems = list[dict[str, str]]


@dataclass(frozen=True)
class Plan:
    """What came out; with problems there are no services."""

    services: list[dict[str, Any]]
    problems: Problems
    verdicts: list[Verdict]


def plan(
    services: Sequence[Service],
    settings: Settings,
    host: Host,
    gpu_facts: Mapping[str, Any],
    files: Mapping[str, ModelFiles],
) -> Plan:
    """Judge services by each other and by the host, and render those that may be started.

    Args:
        services: declared services that the schema has accepted.
        settings: what holds for all of them.
        host: what was observed: listeners, memory, processes, names.
        gpu_facts: what the GPU reader returned; empty for the CPU build.
        files: what is known of each model, by the service's name.
    """
    gpus = {} if settings.cpu else _vllm_gpus.by_index(gpu_facts)
    shapes = {service.name: _shape(files[service.name]) for service in services}
    problems = _version_problems(services, settings)
    problems += _vllm_rules.check_names(services)
    problems += _vllm_rules.check_ports(services, host)
    driver = [] if settings.cpu else _vllm_gpus.check_driver(services, gpu_facts)
    problems += driver
    for service in services:
        problems += _check_one(service, host, files[service.name], shapes[service.name])
        if not settings.cpu and not driver:
            problems += _vllm_gpus.check_indexes(service, gpus)
    own = frozenset(pid for pids in host.unit_pids.values() for pid in pids)
    problems += _vllm_gpus.check_commitment(services, gpus, own)
    fits, too_big = _fits(services, shapes, files, gpus, host)
    problems += too_big
    if problems:
        return Plan([], problems, [])
    turns = _vllm_gpus.order(services)
    rendered = [_render(service, host, gpus, fits[service.name], turns) for service in services]
    verdicts = [_verdict(service, fits[service.name]) for service in services]
    verdicts += [verdict for service in services for verdict in _ignored(service)]
    verdicts += [
        Verdict("vllm_hub", WARN, service.name, evidence=note)
        for service in services
        for note in files[service.name].notes
    ]
    verdicts += [
        Verdict("vllm_group", WARN, service.name, evidence=_vllm_group.spread(service))
        for service in services
        if _vllm_group.spread(service)
    ]
    return Plan(rendered, [], verdicts)


def _shape(files: ModelFiles) -> Shape:
    """Read the model's shape; where there is none to read, say why."""
    shape = shape_of(files.config)
    if files.config is None and files.notes:
        shape = replace(shape, unknown=f"{shape.unknown}: {files.notes[0]}")
    return shape


def _version_problems(services: Sequence[Service], settings: Settings) -> Problems:
    if for_version(settings.version) is not None or not services:
        return []
    allowed = f"a version with a list of its flags: {', '.join(known_versions())}"
    return [problem("", "", f"vLLM {settings.version}", allowed)]


def _check_one(service: Service, host: Host, files: ModelFiles, shape: Shape) -> Problems:
    return [
        *_vllm_rules.check_values(service, service.settings.version),
        *_vllm_rules.check_binding(service, host),
        *_vllm_rules.check_model(service, files, shape),
        *_vllm_rules.check_parallel(service, shape),
        *_vllm_group.check_group(service, host),
    ]


def _fits(
    services: Sequence[Service],
    shapes: Mapping[str, Shape],
    files: Mapping[str, ModelFiles],
    gpus: Mapping[int, Mapping[str, Any]],
    host: Host,
) -> tuple[dict[str, _vllm_fit.Fit], Problems]:
    """Return each service's arithmetic, and refusals of those that can't fit."""
    result: dict[str, _vllm_fit.Fit] = {}
    problems: Problems = []
    own = sum(host.unit_memory.values())
    left = None if host.memory_available is None else host.memory_available + own
    for service in services:
        needs = _vllm_fit.needs_of(service, shapes[service.name], files[service.name].weights)
        if service.settings.cpu:
            fit = _vllm_fit.estimate_cpu(needs, service, left)
            taken = _vllm_fit.cpu_total(needs, service)
            left = None if left is None else max(0, left - (taken or 0))
        else:
            budget, says = _budget(service, gpus)
            fit = _vllm_fit.estimate(needs, budget, says)
        result[service.name] = fit
        problems += _vllm_fit.fit_problem(service, fit)
    return result, problems


def _budget(service: Service, gpus: Mapping[int, Mapping[str, Any]]) -> tuple[int | None, str]:
    """Return the smallest share that the service gets of its GPUs, and how it came about."""
    sizes = {
        index: _vllm_fit.usable(gpus[index])
        for index in service.gpus
        if index in gpus and _vllm_fit.usable(gpus[index])
    }
    if not sizes or len(sizes) < len(service.gpus):
        return None, "the size of its GPUs is not known"
    index = min(sizes, key=lambda item: sizes[item] or 0)
    budget = _vllm_fit.budget_of(gpus[index], service.utilization)
    each = " (per GPU)" if len(sizes) > 1 else ""
    return budget, (
        f"GPU {index} gives {human(sizes[index] or 0)} x {service.utilization:g} ="
        f" {human(budget or 0)}{each}"
    )


def _render(
    service: Service,
    host: Host,
    gpus: Mapping[int, Mapping[str, Any]],
    fit: _vllm_fit.Fit,
    turns: Mapping[str, tuple[int, list[str]]],
) -> dict[str, Any]:
    group = _vllm_group.describe(service, host)
    turn, after = turns[service.name]
    return {
        "name": service.name,
        "unit": service.unit,
        "host": service.host,
        "port": service.port,
        "serves": service.serves,
        "served_names": service.served_names,
        "api_key": service.settings.api_key,
        "model_path": service.model_path,
        "source": dict(service.source),
        "args": _vllm_render.args(service, group),
        "environment": _vllm_render.environment(service, group, gpus),
        "limits": _vllm_render.limits(service),
        "ready_timeout": service.ready_timeout,
        "drain_seconds": service.drain_seconds,
        "order": turn,
        "after": after,
        "gpus": [
            {"index": index, "uuid": gpus.get(index, {}).get("uuid", "")} for index in service.gpus
        ],
        "group": group,
        "config": _vllm_render.config(service),
        "fit": fit.as_dict(),
    }


def _verdict(service: Service, fit: _vllm_fit.Fit) -> Verdict:
    return Verdict(
        "vllm_fit",
        PASS if fit.fits else WARN,
        service.name,
        value=fit.max_len,
        limit=fit.longest,
        unit="tokens",
        evidence=fit.sentence,
    )


def _ignored(service: Service) -> list[Verdict]:
    """Warn of fields that mean nothing to the build that is installed."""
    model = service.section("model")
    without = ("gpus", "gpu_memory_utilization") if service.settings.cpu else ("kv_cache_gb",)
    return [
        Verdict(
            "vllm_ignored_field",
            WARN,
            service.name,
            value=f"model.{name}",
            evidence=f"it means nothing to the {service.settings.build} build",
        )
        for name in without
        if model.get(name) is not None
    ]
