# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""From what was found of a service to verdicts: unit, memory, socket, API and models.

Nothing more is judged of a service that isn't active than who holds its port: the rest would only
repeat that it isn't.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_facts import canonical
from ansible_collections.hx_infra.llm.plugins.module_utils._model_version_record import (
    kept_versions,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_gpus import gpu_verdicts
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_model import (
    OLLAMA,
    WILDCARDS,
    Seen,
    Service,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
    judge,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Listener

Resolve = Callable[[str], Sequence[str]]

# A unit whose start at boot is somebody else's matter counts as enabled.
ENABLED = ("enabled", "enabled-runtime", "generated", "static", "alias", "indirect")
MEMORY_SHARE = 0.95  # of its limit, from which the kernel's killer isn't far


def service_verdicts(
    service: Service, seen: Seen, gpu_facts: Mapping[str, Any], resolve: Resolve
) -> list[Verdict]:
    """Return everything that is judged on the host itself.

    Args:
        service: what is declared.
        seen: what was found.
        gpu_facts: the host's GPUs as the module gpu_info returns them; empty when not read.
        resolve: returns the addresses of a name.
    """
    verdicts = unit_verdicts(service, seen)
    if not seen.state:  # systemd is at fault, and the engine may well answer
        return verdicts + api_verdicts(service, seen)
    if not seen.active:
        return verdicts + _held(service, seen)
    verdicts += process_verdicts(service, seen)
    verdicts += bound_verdicts(service, seen, resolve)
    verdicts += api_verdicts(service, seen)
    return verdicts + gpu_verdicts(service, seen, gpu_facts)


def unit_verdicts(service: Service, seen: Seen) -> list[Verdict]:
    """Judge the unit's state: active, enabled, as its files say, without restarts."""
    state, evidence = seen.state, f"systemctl show {service.unit}"
    if not state:
        text = f"{evidence} did not answer"
        return [Verdict("unit_active", FAIL, service.unit, "not known", "active", "", text)]
    if state.get("LoadState") == "not-found":
        text = f"{evidence}: there is no such unit"
        return [Verdict("unit_active", FAIL, service.unit, "not installed", "active", "", text)]
    told = state.get("ActiveState", "unknown")
    if not seen.active:
        why = f"{state.get('SubState', '')}, result {state.get('Result', '')}"
        text = f"{evidence}: {why}; look at: journalctl -u {service.unit}"
        return [Verdict("unit_active", FAIL, service.unit, told, "active", "", text)]
    verdicts = [Verdict("unit_active", PASS, service.unit, told, "active", "", evidence)]
    enabled = state.get("UnitFileState", "")
    verdicts.append(
        judge(
            "unit_enabled",
            enabled in ENABLED,
            subject=service.unit,
            value=enabled or "not known",
            limit="enabled",
            evidence=f"{evidence}; otherwise it is gone after the next boot",
            otherwise=WARN,
        )
    )
    stale = state.get("NeedDaemonReload") == "yes"
    verdicts.append(
        judge(
            "unit_current",
            not stale,
            subject=service.unit,
            value="changed since systemd read it" if stale else "as systemd read it",
            limit="as systemd read it",
            evidence=evidence,
            otherwise=WARN,
        )
    )
    if seen.restarts is not None:
        text = f"{evidence}; by systemd, since it was last started by hand"
        ok = seen.restarts == 0
        verdicts.append(
            judge(
                "unit_restarts",
                ok,
                subject=service.unit,
                value=seen.restarts,
                limit=0,
                evidence=text,
                otherwise=WARN,
            )
        )
    return verdicts


def process_verdicts(service: Service, seen: Seen) -> list[Verdict]:
    """Judge the main process and the memory that the unit uses."""
    pid = seen.main_pid
    text = f"systemctl show {service.unit}"
    verdicts = [
        judge(
            "main_pid",
            pid > 0,
            subject=service.unit,
            value=pid or "none",
            limit="a process",
            evidence=text,
        )
    ]
    memory, limit = seen.memory, seen.memory_limit
    allowed = None if limit is None else int(limit * MEMORY_SHARE)
    if memory is None:
        text = "neither systemd's accounting nor its processes tell"
        verdicts.append(Verdict("memory", WARN, service.unit, None, allowed, "bytes", text))
    else:
        text = "of the limit MemoryMax" if limit else "no limit is set"
        ok = allowed is None or memory <= allowed
        verdicts.append(
            Verdict("memory", PASS if ok else WARN, service.unit, memory, allowed, "bytes", text)
        )
    return verdicts


def _owned(service: Service, seen: Seen, listener: Listener) -> bool:
    return service.unit in listener.units or listener.pid in seen.pids


def _held(service: Service, seen: Seen) -> list[Verdict]:
    """Tell who listens on the port of a service that isn't running."""
    held = [item for item in seen.listeners if item.port == service.port]
    if not held:
        return []
    text = "it could not listen there"
    return [Verdict("bound_port", FAIL, service.unit, _who(held[0]), "free", "", text)]


def _who(listener: Listener) -> str:
    units = "".join(f", {unit}" for unit in sorted(listener.units))
    return f"held by {listener.name or 'a process'} (pid {listener.pid or 'not known'}{units})"


def owned_listeners(service: Service, seen: Seen) -> tuple[list[Listener], bool]:
    """Return the sockets on the service's port that are its own, and whether that is a guess.

    Who forwards a container's port is taken for the service; so is one that can't be seen, and
    then it is a guess.
    """
    on_port = [item for item in seen.listeners if item.port == service.port]
    own = [item for item in on_port if _owned(service, seen, item)]
    if own or not seen.active:
        return own, False
    hidden = bool(on_port) and all(item.pid == 0 for item in on_port)
    return (on_port, hidden) if hidden or not service.own_process else ([], False)


def bound_verdicts(service: Service, seen: Seen, resolve: Resolve) -> list[Verdict]:
    """Judge where the service listens: its port, its address, and what else it has opened."""
    own, guessed = owned_listeners(service, seen)
    if not own:
        on_port = [item for item in seen.listeners if item.port == service.port]
        value = _who(on_port[0]) if on_port else "nobody listens"
        elsewhere = sorted(
            {place(one.address, one.port) for one in seen.listeners if _owned(service, seen, one)}
        )
        text = f"sockets in /proc/net; wanted the processes of {service.unit}"
        text += f", which listen on {', '.join(elsewhere)}" if elsewhere else ""
        limit = f"port {service.port}"
        return [Verdict("bound_port", FAIL, service.unit, value, limit, "", text)]
    found = sorted({item.address for item in own})
    where = ", ".join(place(address, service.port) for address in found)
    every = any(address in WILDCARDS for address in found)
    told = f"{where}: every address of the host is a way in" if every else where
    status = PASS
    if guessed and service.own_process:
        status, told = WARN, f"{told}; whose socket it is can't be seen, run with become"
    more = sorted(
        {
            place(item.address, item.port)
            for item in seen.listeners
            if item.port != service.port
            and _owned(service, seen, item)
            and not (item.address.startswith("127.") or item.address == "::1")
        }
    )
    return [
        Verdict("bound_port", status, service.unit, service.port, service.port, "", told),
        _address_verdict(service, found, every, told, resolve),
        judge(
            "further_ports",
            not more,
            subject=service.unit,
            value=more,
            limit=[],
            evidence="sockets of its processes that other hosts can reach",
            otherwise=WARN,
        ),
    ]


def _address_verdict(
    service: Service, found: Sequence[str], every: bool, told: str, resolve: Resolve
) -> Verdict:
    value = ", ".join(found)
    if not service.address:
        text = f"{told}; no address is declared"
        status = WARN if every else PASS
        return Verdict("bound_address", status, service.unit, value, None, "", text)
    if service.address in WILDCARDS:
        # A socket of IPv6 takes what comes by IPv4 too, the other way round it doesn't.
        ok = "::" in found or (every and service.address == WILDCARDS[0])
        limit = service.address
    else:
        wanted = {service.address, *resolve(service.address)}
        ok = set(found) <= wanted
        more = sorted(wanted - {service.address})
        limit = service.address + (f" ({', '.join(more)})" if more else "")
    return judge("bound_address", ok, subject=service.unit, value=value, limit=limit, evidence=told)


def place(address: str, port: int) -> str:
    """Return address and port as an address bar takes them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def api_verdicts(service: Service, seen: Seen) -> list[Verdict]:
    """Judge the API: it answers, with the wanted version and models."""
    api = seen.api
    any_version = service.version or "any version"
    if api.problem:
        text = f"{service.url}: {api.problem}"
        return [Verdict("api_version", FAIL, service.unit, "no answer", any_version, "", text)]
    path = "/api/version" if service.kind == OLLAMA else "/version"
    # vLLM's own builds carry a mark behind a plus.
    same = service.version in (api.version, api.version.partition("+")[0])
    verdicts = [
        judge(
            "api_version",
            same if service.version else True,
            subject=service.unit,
            value=api.version or "not told",
            limit=any_version,
            evidence=f"GET {service.url}{path}",
        )
    ]
    return [*verdicts, models_verdict(service, seen)]


def models_verdict(service: Service, seen: Seen) -> Verdict:
    """Judge the list of models: those that are declared, with their digests."""
    path = "/api/tags" if service.kind == OLLAMA else "/v1/models"
    text = f"GET {service.url}{path}"
    if seen.api.models is None:
        return Verdict("models", FAIL, service.unit, "not known", None, "", seen.api.models_problem)
    plain = canonical if service.kind == OLLAMA else str
    listed = {plain(str(item["name"])): str(item.get("digest") or "") for item in seen.api.models}
    if service.models is None:
        return Verdict("models", PASS, service.unit, sorted(listed), None, "", text)
    wanted = {plain(str(item["name"])): str(item.get("digest") or "") for item in service.models}
    missing = sorted(set(wanted) - set(listed))
    surplus = sorted(set(listed) - set(wanted) - kept_versions(listed, wanted))
    other = [
        f"{name} is {_short(listed[name])}, wanted {_short(wanted[name])}"
        for name in sorted(set(wanted) & set(listed))
        if wanted[name] and not _bare(listed[name]).startswith(_bare(wanted[name]))
    ]
    told = [f"missing: {', '.join(missing)}"] if missing else []
    told += [f"other digest: {'; '.join(other)}"] if other else []
    told += [f"not declared: {', '.join(surplus)}"] if surplus else []
    ok = not missing and not other and not (surplus and service.exclusive)
    return judge(
        "models",
        ok,
        subject=service.unit,
        value=sorted(listed),
        limit=sorted(wanted),
        evidence="; ".join([text, *told]),
    )


def _bare(digest: str) -> str:
    return digest.rpartition(":")[2].lower()


def _short(digest: str) -> str:
    return _bare(digest)[:12] or "without a digest"
