# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The unit that serves a store: its name, its files, and what systemd is told about it.

Nothing here touches the host, but for looking at accounts and permissions.
"""

from __future__ import annotations

import grp
import hashlib
import inspect
import json
import os
import pwd
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _store_server
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._traversal import (
    Account,
    elements,
    first_obstacle,
)

RUN = "/run"
BELOW_RUN = "hx-llm"
SYSTEM_PYTHON = "/usr/bin/python3"
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - where a private one would hide the store


@dataclass(frozen=True)
class Serving:
    """What is served, to whom, how and for how long.

    Attributes:
        ident: tells several units apart.
        root: the store.
        manifests: paths of the models' manifests, relative to the store.
        address, port: where it listens; port 0 stands for a free one.
        allow: networks that may ask; empty for all.
        token: lets in.
        owner: user and group id that it runs as.
        connections: how many transfers there are at once.
        lifetime_s: after that it ends.
        python: the interpreter.
    """

    ident: str
    root: str
    manifests: tuple[str, ...]
    address: str
    port: int
    allow: tuple[str, ...]
    token: str
    owner: tuple[int, int]
    connections: int
    lifetime_s: int
    python: str


class Place:
    """Where the files of a unit are, and how it is called.

    Args:
        ident: tells several units apart.
        run: the directory of what runs; another one in tests.

    Raises:
        HostError: the identifier can't be part of a unit's name.
    """

    def __init__(self, ident: str, run: str = RUN) -> None:
        if not _ID.fullmatch(ident):
            raise HostError(
                f"{ident!r} can't be part of a unit's name, wanted up to 32 of a-z, 0-9 and -, "
                "the first and the last no -."
            )
        self.unit = f"hx-model-store-serve-{ident}.service"
        self.parent = f"{run}/{BELOW_RUN}"
        self.relative = f"{BELOW_RUN}/serve-{ident}"
        self.folder = f"{run}/{self.relative}"

    def file(self, name: str) -> str:
        """Return the path of one of the unit's files."""
        return f"{self.folder}/{name}"


def settings(serving: Serving, place: Place) -> dict[str, Any]:
    """Return what the program reads; the token isn't part of it."""
    return {
        "root": serving.root,
        "manifests": list(serving.manifests),
        "address": serving.address,
        "port": serving.port,
        "allow": list(serving.allow),
        "connections": serving.connections,
        "lifetime_s": serving.lifetime_s,
        "token_file": place.file("token"),
        "ready_file": place.file("ready.json"),
    }


def program() -> str:
    """Return the text of the program."""
    return inspect.getsource(_store_server)


def fingerprint(serving: Serving, place: Place) -> str:
    """Return what differs when anything about a unit differs."""
    parts = (
        json.dumps(settings(serving, place), sort_keys=True),
        hashlib.sha256(serving.token.encode()).hexdigest(),
        str(serving.owner),
        program(),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def unit_command(serving: Serving, place: Place) -> list[str]:
    """Return the command that starts the unit."""
    properties = {
        "User": str(serving.owner[0]),
        "Group": str(serving.owner[1]),
        "RuntimeMaxSec": str(serving.lifetime_s),
        "RuntimeDirectory": place.relative,
        "RuntimeDirectoryMode": "0700",
        "ProtectSystem": "strict",
        "ProtectHome": "read-only",
        "PrivateTmp": "no" if _below(serving.root, _TEMPORARY) else "yes",
        "PrivateDevices": "yes",
        "ProtectKernelTunables": "yes",
        "ProtectKernelModules": "yes",
        "ProtectControlGroups": "yes",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "RestrictAddressFamilies": "AF_INET AF_INET6",
        "RestrictSUIDSGID": "yes",
        "LockPersonality": "yes",
        "MemoryDenyWriteExecute": "yes",
        "UMask": "0077",
        "TasksMax": str(serving.connections + _store_server.WAITING + 16),
        "Nice": "5",
    }
    if serving.allow:
        properties["IPAddressDeny"] = "any"
        properties["IPAddressAllow"] = " ".join(serving.allow)
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={place.unit}",
        "--description=Models of this host for other hosts (hx_infra.llm)",
        *(f"--property={key}={value}" for key, value in properties.items()),
        "--",
        serving.python,
        "-I",
        "-B",
        place.file("server.py"),
        place.file("settings.json"),
    ]


def interpreter(owner: int, executable: str = "") -> str:
    """Return an interpreter that an account can run: the module's own, or else the system's."""
    own = executable or sys.executable
    account = Account("the service", owner, frozenset())
    if own and first_obstacle(elements(own), account) is None:
        return own
    return SYSTEM_PYTHON


def blob_owner(root: str) -> tuple[int, int]:
    """Return whose the blobs of a store are, who can read them therefore.

    systemd runs nothing for an account that has no name; then it is this one, which has to do
    without its privileges.
    """
    path = os.path.join(root, "blobs")
    status = os.stat(path if os.path.isdir(path) else root)
    try:
        pwd.getpwuid(status.st_uid)
        grp.getgrgid(status.st_gid)
    except KeyError:
        return os.geteuid(), os.getegid()
    return status.st_uid, status.st_gid


def _below(path: str, parents: Sequence[str]) -> bool:
    real = os.path.realpath(path)
    return any(real == parent or real.startswith(f"{parent}/") for parent in parents)
