# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What has to be done on a host until its container engine can hand out GPUs: the plan."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.hx_infra.llm.plugins.module_utils._container_cdi import Spec
from ansible_collections.hx_infra.llm.plugins.module_utils._container_daemon import Merge
from ansible_collections.hx_infra.llm.plugins.module_utils._container_engine import version_tuple
from ansible_collections.hx_infra.llm.plugins.module_utils._container_host import HostGpus
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

DOCKER_CDI = (25, 0)  # the first Docker that hands out CDI devices


@dataclass(frozen=True)
class Wanted:
    """What is declared.

    Attributes:
        host: name of the host in messages.
        engine: ``podman`` or ``docker``.
        mode: ``cdi`` or ``runtime``.
        spec_path: where a specification is written when there is none yet.
        daemon_json: Docker's configuration.
        unit: Docker's unit.
        allow_stop: whether a restart may stop the containers that run.
    """

    host: str
    engine: str
    mode: str
    spec_path: str = "/etc/cdi/nvidia.yaml"
    daemon_json: str = "/etc/docker/daemon.json"
    unit: str = "docker.service"
    allow_stop: bool = False


@dataclass(frozen=True)
class Found:
    """What stands on the host.

    Attributes:
        gpus: the GPUs as the host sees them.
        spec: the CDI specification that engines use.
        stale: why it cannot be used.
        links_missing: device nodes without a link in /dev/char.
        engine_version: empty when the engine is not installed (yet).
        running: names of the containers that run.
        live_restore: whether they survive a restart of the engine.
        knows_runtime: whether the engine that runs has the runtime ``nvidia``.
        knows_cdi: whether the engine that runs hands out CDI devices.
        daemon: what a merge makes of the engine's configuration; none for Podman.
    """

    gpus: HostGpus
    spec: Spec | None = None
    stale: tuple[str, ...] = ()
    links_missing: tuple[str, ...] = ()
    engine_version: str = ""
    running: tuple[str, ...] = ()
    live_restore: bool = False
    knows_runtime: bool = False
    knows_cdi: bool = False
    daemon: Merge | None = field(default=None)


@dataclass(frozen=True)
class Step:
    """One thing to do."""

    action: str
    target: str
    sentence: str

    def as_dict(self) -> dict[str, str]:
        """Return the form that results carry."""
        return {"action": self.action, "target": self.target}


def plan_toolkit(wanted: Wanted, found: Found) -> list[Step]:
    """Return what to do, in order; nothing when the host is as declared.

    Raises:
        HostError: it cannot be done, or not without stopping containers.
    """
    steps: list[Step] = []
    if found.links_missing:
        count = len(found.links_missing)
        steps.append(Step("link_devices", "/dev/char", f"Link {count} GPU devices in /dev/char"))
    if wanted.mode == "cdi" and found.stale:
        path = found.spec.path if found.spec else wanted.spec_path
        why = "; ".join(found.stale)
        steps.append(Step("write_spec", path, f"Write the CDI specification {path}: {why}"))
    if wanted.engine == "docker":
        steps += _docker(wanted, found)
    return steps


def _docker(wanted: Wanted, found: Found) -> list[Step]:
    version = version_tuple(found.engine_version)
    if wanted.mode == "cdi" and version and version < DOCKER_CDI:
        raise HostError(
            f"{wanted.host}: Docker is {found.engine_version}, wanted: 25.0 or newer, for it hands "
            "out GPUs by CDI.",
            "Declare the mode 'runtime', or install a newer Docker.",
        )
    steps: list[Step] = []
    if wanted.mode == "cdi" and found.knows_cdi:
        return steps  # new releases have the feature without being told
    merge = found.daemon
    if merge is not None and merge.added:
        what = " and ".join(merge.added)
        steps.append(
            Step("write_daemon_json", wanted.daemon_json, f"Add {what} to {wanted.daemon_json}")
        )
    known = found.knows_cdi if wanted.mode == "cdi" else found.knows_runtime
    if known and not steps:
        return steps
    if wanted.mode == "runtime":
        # Runtimes are among what Docker reads at a reload: no container is stopped for them.
        steps.append(Step("reload", wanted.unit, f"Reload {wanted.unit}, it stops no container"))
        return steps
    _refuse_to_stop(wanted, found)
    steps.append(Step("restart", wanted.unit, f"Restart {wanted.unit}"))
    return steps


def _refuse_to_stop(wanted: Wanted, found: Found) -> None:
    if not found.running or found.live_restore or wanted.allow_stop:
        return
    raise HostError(
        f"{wanted.host}: {wanted.unit} has to be restarted for CDI, and that stops "
        f"{len(found.running)} running containers: {', '.join(found.running)}; live-restore is "
        "off. Nothing was changed.",
        "Stop them in a quiet hour, set live-restore in daemon.json, declare the mode 'runtime' "
        "(needs no restart), or allow it: allow_stop.",
    )
