# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A model that several hosts serve together, with vLLM's own launcher of many processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import Service
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Host
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_problem import problem

Problems = list[dict[str, str]]


def member(service: Service, name: str) -> Mapping[str, Any]:
    """Return what was told about a host of the group; its name is its address by default."""
    for host in service.settings.group_hosts:
        if host.get("host") == name:
            return host
    return {"host": name}


def address(service: Service, name: str) -> str:
    """Return the address at which a host of the group is reached."""
    own = service.settings.address if name == service.settings.host else name
    return str(member(service, name).get("address") or own)


def apart(service: Service) -> list[str]:
    """Return the hosts of the group that this run doesn't work on together with this one."""
    batch = service.settings.batch
    return [name for name in service.group_hosts if name not in batch] if batch else []


def together(service: Service) -> str:
    """Say how to work on all hosts of the group at once."""
    hosts = service.group_hosts
    return f"-e llm_serial={len(hosts)} -l {','.join(hosts)}"


def describe(service: Service, host: Host) -> dict[str, Any]:
    """Return the group as the start of this host needs it; empty for a service of one host."""
    hosts = service.group_hosts
    if not hosts:
        return {}
    own = address(service, service.settings.host)
    return {
        "hosts": hosts,
        "rank": service.rank,
        "nnodes": len(hosts),
        "master_addr": address(service, hosts[0]),
        "master_port": service.master_port,
        "host_ip": (host.addresses.get(own) or (own,))[0],
        "apart": apart(service),
        "together": together(service),
    }


def check_group(service: Service, host: Host) -> Problems:
    """Refuse groups that this host isn't in, that can't be split, or whose hosts lack GPUs."""
    hosts = service.group_hosts
    workers = service.tensor_parallel * service.pipeline_parallel
    if not hosts:
        return []
    name, field = service.name, "service.group.hosts"
    shown = ", ".join(hosts)
    if service.settings.host not in hosts:
        return [problem(name, field, shown, f"a list that holds {service.settings.host} itself")]
    result = []
    if workers % len(hosts):
        found = (
            f"{workers} workers (tensor_parallel_size {service.tensor_parallel}"
            f" x pipeline_parallel_size {service.pipeline_parallel})"
        )
        allowed = f"a multiple of the group's {len(hosts)} hosts: each runs as many as the others"
        result.append(problem(name, "model.pipeline_parallel_size", found, allowed))
    if service.master_port == service.port:
        result.append(
            problem(name, "service.group.master_port", service.master_port, "not service.port")
        )
    result += _check_sizes(service, hosts)
    result += _check_address(service, host)
    result += _check_batch(service, host)
    return result


def _check_batch(service: Service, host: Host) -> Problems:
    """Refuse a start without the other hosts: the first one would wait for them in vain.

    A service that runs may stay as it is; whether it has to restart is known to the role.
    """
    missing = apart(service)
    if not missing or host.unit_pids.get(service.unit):
        return []
    found = (
        f"{', '.join(missing)} not in this batch ({', '.join(service.settings.batch)}), while"
        f" {service.unit} doesn't run here"
    )
    allowed = (
        f"all {len(service.group_hosts)} hosts in one batch, for a group starts as a whole:"
        f" {together(service)}"
    )
    return [problem(service.name, "service.group.hosts", found, allowed)]


def _check_sizes(service: Service, hosts: list[str]) -> Problems:
    """Compare each host's share of the workers with the GPUs that it is told to have."""
    if service.settings.cpu:
        return []
    result = []
    for name in hosts:
        count = member(service, name).get("gpus")
        if count is not None and int(count) < service.local_workers:
            found = f"{name} with {count} GPU(s)"
            allowed = (
                f"hosts with at least {service.local_workers}: tensor_parallel_size"
                f" {service.tensor_parallel} x pipeline_parallel_size"
                f" {service.pipeline_parallel} / {len(hosts)} hosts"
            )
            result.append(problem(service.name, "service.group.hosts", found, allowed))
    return result


def _check_address(service: Service, host: Host) -> Problems:
    """Refuse an own address that the other hosts would take for theirs, and unknown names."""
    result = []
    for name in service.group_hosts:
        where = address(service, name)
        found = host.addresses.get(where)
        text = f"{name} ({where})"
        field = "service.group.hosts"
        if found is None:
            continue
        if not found:
            result.append(problem(service.name, field, f"{text}: no such name", "a known name"))
        elif found[0].startswith("127."):
            text = f"{name} ({where} is {found[0]} here)"
            allowed = "an address that the other hosts reach; look at /etc/hosts"
            result.append(problem(service.name, field, text, allowed))
        elif name == service.settings.host and not set(found) & host.local:
            result.append(problem(service.name, field, text, "an address of this host"))
    return result


def spread(service: Service) -> str:
    """Say when a group splits layers over hosts; empty when its splits stay within them."""
    hosts = len(service.group_hosts)
    if not hosts or service.local_workers % service.tensor_parallel == 0:
        return ""
    return (
        f"tensor_parallel_size {service.tensor_parallel} reaches over hosts of"
        f" {service.local_workers} worker(s): every layer waits for the network twice;"
        f" tensor_parallel_size {service.local_workers} with pipeline_parallel_size"
        f" {service.tensor_parallel * service.pipeline_parallel // service.local_workers}"
        " crosses it once per stage"
    )
