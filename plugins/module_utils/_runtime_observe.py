# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Find out how an engine's service stands on its host; changes nothing, never waits for long."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare, fetch_json
from ansible_collections.hx_infra.llm.plugins.module_utils._engine_service import parse_show
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome
from ansible_collections.hx_infra.llm.plugins.module_utils._procs import environment
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_model import (
    OLLAMA,
    Api,
    Seen,
    Service,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Host, observe

Run = Callable[[Sequence[str], float], Outcome]

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "MainPID",
    "NRestarts",
    "Result",
    "InvocationID",
    "MemoryCurrent",
    "MemoryMax",
)
LIMITS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
# Ollama writes a line for each device that it can use when it starts, one for the CPU without any.
_DEVICE = re.compile(r'msg="inference compute"\s+id=(?P<id>"[^"]*"|\S+)\s+.*?library=(?P<lib>\S+)')


def look(
    services: Sequence[Service],
    run: Run,
    prepare: Callable[[Service], Prepare],
    timeout_s: float,
    *,
    observed: Callable[[Sequence[str]], Host] | None = None,
    environment_of: Callable[[int], Mapping[str, str]] = environment,
) -> list[Seen]:
    """Return what was found of each service, in their order.

    Args:
        services: what to look at.
        run: runs a program under a deadline.
        prepare: returns the transport to a service's API.
        timeout_s: seconds for each program and each request.
        observed: returns listeners, processes and memory for some units.
        environment_of: returns a process's environment; empty when it can't be read.
    """
    states = [unit_state(service.unit, run, timeout_s) for service in services]
    units = [service.unit for service in services]
    host = observed(units) if observed else observe((), units)
    found = []
    for service, state in zip(services, states):
        main = int(state.get("MainPID", "0")) if state.get("MainPID", "0").isdigit() else 0
        pids = host.unit_pids.get(service.unit, frozenset()) | ({main} if main else frozenset())
        running = state.get("ActiveState", "active") == "active"  # or nobody knows
        found.append(
            Seen(
                state=state,
                pids=frozenset(pids),
                listeners=host.listeners,
                resident=host.unit_memory.get(service.unit) or None,
                limited_to=limit_of(environment_of(main)) if main else None,
                logged_gpus=_logged(service, state, run, timeout_s) if running else None,
                api=ask(service, prepare(service), timeout_s) if running else Api("not asked"),
            )
        )
    return found


def unit_state(unit: str, run: Run, timeout_s: float) -> dict[str, str]:
    """Return the unit's properties; empty when systemd doesn't answer."""
    ended = run(["systemctl", "show", unit, f"--property={','.join(PROPERTIES)}"], timeout_s)
    return parse_show(ended.out) if ended.rc == 0 else {}


def limit_of(variables: Mapping[str, str]) -> int | None:
    """Return to how many GPUs an environment limits its process; None when it doesn't."""
    for name in LIMITS:
        if name in variables:
            named = [item.strip() for item in variables[name].split(",") if item.strip()]
            # What stands behind an index that is none is not seen: -1 hides all that follow.
            return next((n for n, item in enumerate(named) if item.startswith("-")), len(named))
    return None


def _logged(service: Service, state: Mapping[str, str], run: Run, timeout_s: float) -> int | None:
    if service.kind != OLLAMA or not state.get("InvocationID"):
        return None
    ended = run(
        [
            "journalctl",
            f"_SYSTEMD_INVOCATION_ID={state['InvocationID']}",
            "--grep=inference compute",
            "--case-sensitive=yes",
            "--output=cat",
            "--no-pager",
            "--quiet",
        ],
        timeout_s,
    )
    return logged_gpus(ended.out)


def logged_gpus(text: str) -> int | None:
    """Return how many GPUs Ollama's log names; None when it names no device at all."""
    found = [(match["id"], match["lib"].lower()) for match in _DEVICE.finditer(text)]
    if not found:
        return None
    return len({device for device, library in found if library != "cpu"})


def ask(service: Service, prepare: Prepare, timeout_s: float) -> Api:
    """Ask the API for version and models, and Ollama for what is loaded."""
    if service.kind == OLLAMA:
        return _ask_ollama(prepare, timeout_s)
    version = ""
    with contextlib.suppress(HostError):  # vLLM's own; other engines may not have it
        version = _text(fetch_json(prepare, "/version", timeout_s), "version")
    try:
        entries = _entries(fetch_json(prepare, "/v1/models", timeout_s), "data")
    except HostError as error:
        return Api(version=version, problem=error.message)
    return Api(version=version, models=tuple({"name": str(item.get("id"))} for item in entries))


def _ask_ollama(prepare: Prepare, timeout_s: float) -> Api:
    try:
        version = _text(fetch_json(prepare, "/api/version", timeout_s), "version")
        if not version:
            raise HostError("GET /api/version answered no version.")
    except HostError as error:
        return Api(problem=error.message)
    models, loaded, problem = None, (), ""
    try:
        tags = _entries(fetch_json(prepare, "/api/tags", timeout_s), "models")
        models = tuple(
            {"name": str(item.get("name")), "digest": str(item.get("digest") or "")}
            for item in tags
        )
        loaded = tuple(_entries(fetch_json(prepare, "/api/ps", timeout_s), "models"))
    except HostError as error:
        problem = error.message
    return Api(version=version, models=models, loaded=loaded, models_problem=problem)


def _text(answer: Any, name: str) -> str:
    return str(answer.get(name) or "") if isinstance(answer, Mapping) else ""


def _entries(answer: Any, name: str) -> list[Mapping[str, Any]]:
    entries = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(entries, list):
        raise HostError(f"the answer holds no list '{name}'.")
    return [item for item in entries if isinstance(item, Mapping)]
