# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Podman and Docker behind one set of questions."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

ENGINES = ("podman", "docker")
Run = Callable[[Sequence[str], float], Outcome]
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Engine:
    """A container engine on a host.

    Attributes:
        name: ``podman`` or ``docker``.
        host: name of the host in messages.
        run: runs a program under a deadline.
        timeout_s: how long a question may take.
    """

    name: str
    host: str
    run: Run
    timeout_s: float = 60.0
    base: tuple[str, ...] = field(default=())

    def call(self, *arguments: str, timeout_s: float | None = None) -> Outcome:
        """Run the engine's client."""
        return self.run([self.name, *self.base, *arguments], timeout_s or self.timeout_s)

    def ask(self, *arguments: str, timeout_s: float | None = None) -> str:
        """Run the engine's client and return what it printed.

        Raises:
            HostError: it failed or did not end in time.
        """
        outcome = self.call(*arguments, timeout_s=timeout_s)
        if outcome.rc != 0:
            raise HostError(
                f"{self.host}: {self.name} {' '.join(arguments[:3])} {ended(outcome)}.",
                f"Look at {self.name}'s own log (journalctl -u {self.name}) and run again.",
            )
        return outcome.out.strip()

    def version(self) -> str:
        """Return the version of what runs the containers: Docker's daemon, Podman itself."""
        if self.name == "docker":
            return self.ask("version", "--format", "{{.Server.Version}}")
        return self.ask("info", "--format", "{{.Version.Version}}")

    def running(self) -> list[str]:
        """Return the names of the containers that run."""
        return sorted(self.ask("ps", "--format", "{{.Names}}").split())

    def image_id(self, reference: str) -> str:
        """Return the id of an image on the host; empty when there is no such image."""
        outcome = self.call("image", "inspect", "--format", "{{.Id}}", reference)
        if outcome.rc != 0:
            said = f"{outcome.out} {outcome.err}".lower()
            if any(words in said for words in ("no such image", "not known", "not find")):
                return ""
            raise HostError(
                f"{self.host}: {self.name} image inspect {reference} {ended(outcome)}.",
                f"Look at {self.name}'s own log and run again.",
            )
        found = outcome.out.strip()
        return found if found.startswith("sha256:") else f"sha256:{found}"

    def docker_info(self) -> dict[str, Any]:
        """Return what Docker's daemon says about its runtimes, live-restore and CDI."""
        try:
            info = json.loads(self.ask("info", "--format", "{{json .}}"))
        except ValueError as error:
            raise HostError(f"{self.host}: docker info printed no JSON: {error}.") from error
        return dict(info)


def ended(outcome: Outcome) -> str:
    """Say how a program ended, with the last of what it said."""
    if outcome.timed_out:
        return "did not answer in time"
    said = (outcome.err.strip() or outcome.out.strip()).splitlines()
    return f"ended with status {outcome.rc}: {said[-1].strip() if said else 'it said nothing'}"


def version_tuple(text: str) -> tuple[int, ...]:
    """Return the numbers of a version; empty when there are none."""
    match = _VERSION.search(text)
    return tuple(int(part) for part in match.groups() if part) if match else ()


def gpu_arguments(engine: str, mode: str, gpus: Sequence[str]) -> list[str]:
    """Return the arguments of ``run`` that hand GPUs in; no GPU named means all of them.

    Args:
        engine: ``podman`` or ``docker``.
        mode: ``cdi`` or, for Docker, ``runtime``.
        gpus: UUIDs or indexes.
    """
    if mode == "cdi":
        return [f"--device=nvidia.com/gpu={gpu}" for gpu in gpus or ["all"]]
    if engine != "docker":
        raise ValueError("only Docker hands GPUs in by a runtime")
    # Not --gpus: Docker looks for what that needs only when its daemon starts, while a runtime is
    # there after a reload, which stops no container.
    return [
        "--runtime=nvidia",
        f"--env=NVIDIA_VISIBLE_DEVICES={','.join(gpus) or 'all'}",
        "--env=NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    ]


def find_program(name: str, directories: Sequence[str] = ("/usr/bin", "/usr/local/bin")) -> str:
    """Return the path of a program; empty when it is not installed."""
    for directory in directories:
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    return ""
