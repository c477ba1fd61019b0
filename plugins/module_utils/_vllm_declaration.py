# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A declared vLLM service with its defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_flags import for_version

DRAIN_SECONDS = 60
READY_TIMEOUT = 900
MAX_N_SEQUENCES = 128  # vLLM's own default of 16384 lets one request fill a host
KV_CACHE_GB = 4
MASTER_PORT = 29501
STOP_GRACE_SECONDS = 30  # workers get 5 s after the drain, the rest is teardown
UTILIZATION = 0.92
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True)
class Settings:
    """What holds for all services of a host."""

    host: str
    address: str
    build: str = "cuda"
    version: str = "0.32.0"
    unit_format: str = "citadel-llm@{name}.service"
    api_key: bool = False
    models_dir: str = "/opt/citadel/models"
    cache_dir: str = "/var/cache/citadel-llm"
    overhead_bytes: int = 3 * 1024**3 // 2
    group_hosts: tuple[Mapping[str, Any], ...] = ()
    hub_url: str = ""
    batch: tuple[str, ...] = ()  # the hosts that are worked on together; empty when not judged

    @property
    def cpu(self) -> bool:
        """Tell whether the CPU build is used."""
        return self.build == "cpu"


@dataclass(frozen=True)
class Service:
    """One service as declared, and the values that follow from its defaults."""

    declared: Mapping[str, Any]
    settings: Settings

    def section(self, name: str) -> Mapping[str, Any]:
        """Return a section; empty when it isn't declared."""
        return self.declared.get(name) or {}

    @property
    def name(self) -> str:
        """Return the service's name."""
        return str(self.declared["name"])

    @property
    def unit(self) -> str:
        """Return the name of its systemd unit."""
        return self.settings.unit_format.format(name=self.name)

    @property
    def port(self) -> int:
        """Return its TCP port."""
        return int(self.section("service")["port"])

    @property
    def host(self) -> str:
        """Return the address that it binds to."""
        return str(self.section("service").get("host") or self.settings.address)

    @property
    def drain_seconds(self) -> int:
        """Return how long running answers get at a stop."""
        return int(self.section("service").get("drain_seconds", DRAIN_SECONDS))

    @property
    def ready_timeout(self) -> int:
        """Return how long it may take to become ready."""
        return int(self.section("service").get("ready_timeout", READY_TIMEOUT))

    @property
    def source(self) -> Mapping[str, Any]:
        """Return where the model comes from, and which hub has it; empty for a path."""
        declared = self.section("model").get("source") or {}
        hub = self.settings.hub_url if declared.get("hub") else ""
        return {**declared, "endpoint": hub} if hub else declared

    @property
    def model_path(self) -> str:
        """Return the directory that the model is served from."""
        model, source = self.section("model"), self.source
        if model.get("path") or source.get("path"):
            return str(model.get("path") or source["path"])
        if source.get("hub"):
            folder = str(source["hub"]).replace("/", "--")
            return f"{self.settings.models_dir}/{folder}/{str(source['revision'])[:12]}"
        digest = str(source["sha256"]).rsplit(":", maxsplit=1)[-1]
        return f"{self.settings.models_dir}/{self.name}/{digest[:12]}"

    @property
    def served_names(self) -> list[str]:
        """Return the names under which clients ask for the model; the first one is echoed."""
        return list(self.section("model").get("served_names") or [self.name])

    @property
    def tensor_parallel(self) -> int:
        """Return over how many GPUs each layer is split."""
        return int(self.section("model").get("tensor_parallel_size", 1))

    @property
    def pipeline_parallel(self) -> int:
        """Return into how many stages the layers are split."""
        return int(self.section("model").get("pipeline_parallel_size", 1))

    @property
    def group(self) -> Mapping[str, Any]:
        """Return the declared group; empty for a service of one host."""
        return self.section("service").get("group") or {}

    @property
    def group_hosts(self) -> list[str]:
        """Return the group's hosts in order; empty for a service of one host."""
        return list(self.group.get("hosts") or [])

    @property
    def rank(self) -> int:
        """Return the number of this host in the group; 0 outside a group."""
        hosts = self.group_hosts
        return hosts.index(self.settings.host) if self.settings.host in hosts else 0

    @property
    def serves(self) -> bool:
        """Tell whether this host answers requests: the first of a group alone does."""
        return self.rank == 0

    @property
    def master_port(self) -> int:
        """Return the port at which the hosts of a group meet."""
        return int(self.group.get("master_port", MASTER_PORT))

    @property
    def local_workers(self) -> int:
        """Return how many workers run on this host; the rules see to it that it is a whole one."""
        workers = self.tensor_parallel * self.pipeline_parallel
        return max(1, workers // max(1, len(self.group_hosts)))

    @property
    def gpus(self) -> list[int]:
        """Return the indexes of its GPUs on this host: the first ones, unless declared."""
        if self.settings.cpu:
            return []
        declared = self.section("model").get("gpus")
        return list(declared) if declared else list(range(self.local_workers))

    @property
    def utilization(self) -> float:
        """Return the share of a GPU's whole memory that it takes."""
        default = (for_version(self.settings.version) or {}).get(
            "gpu_memory_utilization", UTILIZATION
        )
        return float(self.section("model").get("gpu_memory_utilization", default))

    @property
    def kv_cache_gb(self) -> int:
        """Return the KV cache of one worker of the CPU build, in GiB."""
        return int(self.section("model").get("kv_cache_gb", KV_CACHE_GB))

    @property
    def extra_args(self) -> Mapping[str, Any]:
        """Return the further flags."""
        return self.section("extra_args")

    @property
    def memory_max(self) -> str:
        """Return systemd's limit of main memory; empty for none."""
        declared = self.section("service").get("memory_max")
        limit = self.section("performance").get("memory_limit_gb")
        if declared or limit is None:
            return str(declared or "")
        return f"{limit:g}G" if float(limit).is_integer() else f"{int(limit * 1024)}M"

    @property
    def memory_max_bytes(self) -> int | None:
        """Return the limit of main memory in bytes; None for none."""
        text = self.memory_max
        if not text:
            return None
        power = "KMGT".find(text[-1]) + 1
        return int(text[:-1] if power else text) * 1024**power

    @property
    def cpu_quota(self) -> str:
        """Return systemd's limit of processor time; empty for none."""
        declared = self.section("service").get("cpu_quota")
        cores = self.section("performance").get("cpu_cores")
        if declared or cores is None:
            return str(declared or "")
        return f"{max(1, round(cores * 100))}%"


def services(declared: Sequence[Mapping[str, Any]], settings: Settings) -> list[Service]:
    """Return declared services that the schema has accepted."""
    return [Service(item, settings) for item in declared]
