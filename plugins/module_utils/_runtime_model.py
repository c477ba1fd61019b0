# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What an engine's service has to be, and what was found of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Listener

OLLAMA, OPENAI = "ollama", "openai"
KINDS = (OLLAMA, OPENAI)
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
# systemd's way of saying that there is no figure, and that there is no limit.
_NO_FIGURE = 2**64 - 1


@dataclass(frozen=True)
class Service:
    """One service as declared.

    Attributes:
        name: its name in the result.
        kind: ``ollama`` or ``openai``, as vLLM.
        unit: its systemd unit.
        url: how the host itself reaches its API.
        listen: address and port that it has to listen on; empty when the address is not judged.
        version: of the engine; empty for any.
        models: what it has to list, each with ``name`` and maybe the beginning of a ``digest``;
            None judges none.
        exclusive: whether a further model is a failure.
        key: the API key; empty without one.
        own_process: whether the listening process belongs to the unit; not so for a container.
        gpus: how many GPUs it has to see; None for those that the host has.
        min_gpu_ratio: least part of a loaded model in GPU memory; 0 does not judge it.
        reach: address that other hosts have asked; empty when none has.
    """

    name: str
    kind: str
    unit: str
    url: str
    listen: str = ""
    version: str = ""
    models: tuple[Mapping[str, Any], ...] | None = None
    exclusive: bool = False
    key: str = ""
    own_process: bool = True
    gpus: int | None = None
    min_gpu_ratio: float = 1.0
    reach: str = ""

    @property
    def address(self) -> str:
        """Return the address that it has to listen on; empty when it is not judged."""
        return split_listen(self.listen)[0]

    @property
    def port(self) -> int:
        """Return the port that it has to listen on."""
        parts = urlsplit(self.url)
        default = 443 if parts.scheme == "https" else 80
        return split_listen(self.listen)[1] or parts.port or default

    @property
    def local_only(self) -> bool:
        """Tell whether it has to be reached from its own host alone."""
        return (
            self.address == "localhost" or self.address.startswith("127.") or self.address == "::1"
        )


def split_listen(listen: str) -> tuple[str, int]:
    """Split ``0.0.0.0:11434``, ``[::]:11434``, ``:11434`` or ``11434``; 0 is no port."""
    head, _colon, tail = listen.rpartition(":")
    if listen.endswith("]") or not tail.isdigit():
        head, tail = listen, "0"
    address = head.strip("[]")
    if not address and listen:
        address = WILDCARDS[0]
    return address, int(tail)


@dataclass(frozen=True)
class Api:
    """What an engine's API said.

    Attributes:
        problem: why it said nothing; empty when it did.
        version: the engine's version; empty when it doesn't tell.
        models: what it lists, each with ``name`` and maybe ``digest``; None when it doesn't tell.
        loaded: Ollama's loaded models, each with ``name``, ``size`` and ``size_vram``.
        models_problem: why the list isn't known.
    """

    problem: str = ""
    version: str = ""
    models: tuple[Mapping[str, Any], ...] | None = None
    loaded: tuple[Mapping[str, Any], ...] = ()
    models_problem: str = ""


@dataclass(frozen=True)
class Seen:
    """What was found of a service.

    Attributes:
        state: the unit's properties; empty when systemd did not answer.
        pids: processes of the unit, its container's too.
        listeners: every TCP socket of the host that listens.
        resident: memory of its processes, in bytes; None when it isn't known.
        limited_to: the GPUs that its environment limits it to; None without such a limit.
        logged_gpus: the GPUs that it wrote to its log at its start; None when the log is gone.
        api: what its API said.
    """

    state: Mapping[str, str] = field(default_factory=dict)
    pids: frozenset[int] = frozenset()
    listeners: tuple[Listener, ...] = ()
    resident: int | None = None
    limited_to: int | None = None
    logged_gpus: int | None = None
    api: Api = field(default_factory=Api)

    @property
    def main_pid(self) -> int:
        """Return the unit's main process; 0 without one."""
        text = self.state.get("MainPID", "0")
        return int(text) if text.isdigit() else 0

    @property
    def active(self) -> bool:
        """Tell whether the unit is active."""
        return self.state.get("ActiveState") == "active"

    @property
    def restarts(self) -> int | None:
        """Return how often systemd restarted it; None when it doesn't tell."""
        text = self.state.get("NRestarts", "")
        return int(text) if text.isdigit() else None

    @property
    def memory(self) -> int | None:
        """Return the memory that the unit uses, in bytes: systemd's figure, or its processes'."""
        return _figure(self.state.get("MemoryCurrent", "")) or self.resident

    @property
    def memory_limit(self) -> int | None:
        """Return the memory that the unit may use, in bytes; None for no limit."""
        return _figure(self.state.get("MemoryMax", ""))


def _figure(text: str) -> int | None:
    value = int(text) if text.isdigit() else _NO_FIGURE
    return value if 0 < value < _NO_FIGURE else None
