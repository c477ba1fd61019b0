# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The device nodes of NVIDIA's driver: which are there, whose they are, who can open them."""

from __future__ import annotations

import grp
import inspect
import json
import os
import pwd
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_host_open_child
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import (
    Host,
    UnknownError,
    said,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import json_line

DEV = "/dev"
COMMON = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
HANGS = "opening it did not end"
_GPU = re.compile(r"^nvidia\d+$")


class NoUserError(UnknownError):
    """The host has no such account, or not yet."""


@dataclass(frozen=True)
class Account:
    """Whom a service runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the form in which a child gets it."""
        return {"uid": self.uid, "gid": self.gid, "groups": list(self.groups)}


def account(name: str, more_groups: Iterable[str] = ()) -> Account:
    """Look an account up, with the groups that its unit adds.

    Raises:
        NoUserError: the host knows no such user.
        UnknownError: it knows no such group.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise NoUserError(f"this host has no user {name}") from None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    for group in more_groups:
        try:
            groups.append(int(group) if group.isdigit() else grp.getgrnam(group).gr_gid)
        except KeyError:
            raise UnknownError(f"this host has no group {group}") from None
    return Account(name, entry.pw_uid, entry.pw_gid, tuple(dict.fromkeys(groups)))


def expected_nodes(names: Iterable[str], gpus: int) -> list[str]:
    """Return the names of the nodes that a host with so many working GPUs has, and those it has.

    Args:
        names: what /dev holds.
        gpus: number of GPUs that the driver nvidia has taken.
    """
    present = set(names)
    numbered = {name for name in present if _GPU.match(name)}
    wanted = [name for name in COMMON if gpus or name in present]
    numbered |= {f"nvidia{number}" for number in range(gpus)}
    return wanted + sorted(numbered, key=lambda name: int(name[len("nvidia") :]))


def describe(host: Host, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return ``path``, ``mode``, ``owner`` and ``group`` of nodes; a missing one says so."""
    nodes = []
    for name in names:
        path = f"{DEV}/{name}"
        try:
            state = os.stat(host.path(path))
        except FileNotFoundError:
            nodes.append({"path": path, "openable": False, "message": "is not there"})
            continue
        nodes.append(
            {
                "path": path,
                "mode": f"{stat.S_IMODE(state.st_mode):04o}",
                "owner": _name(pwd.getpwuid, state.st_uid),
                "group": _name(grp.getgrgid, state.st_gid),
            }
        )
    return nodes


def _name(lookup: Any, number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def try_to_open(
    host: Host, python: str, nodes: list[dict[str, Any]], who: Account | None
) -> list[dict[str, Any]]:
    """Open the nodes that are there in a child, and return them with ``openable`` and ``message``.

    After a node that hangs the rest is not tried: a driver that keeps one keeps the others too.

    Raises:
        UnknownError: the child could not do its work at all.
    """
    there = [node["path"] for node in nodes if "openable" not in node]
    if not there:
        return nodes
    settings = {
        "account": who.as_dict() if who else None,
        "paths": [host.path(path) for path in there],
    }
    program = inspect.getsource(_gpu_host_open_child)
    outcome = host.call(python, "-I", "-B", "-c", program, json.dumps(settings))
    lines = [json_line(line) for line in outcome.out.splitlines()]
    failed = next((line["error"] for line in lines if "error" in line), "")
    if failed:
        raise UnknownError(f"can't open nodes as {who.name if who else 'this user'}: {failed}")
    answers = {line["opened"]: line for line in lines if "opened" in line}
    last = next((line["opening"] for line in reversed(lines) if "opening" in line), "")
    if not lines:
        raise UnknownError(said(outcome, "the child that opens nodes", host.timeout_s))
    result = []
    for node in nodes:
        answer = answers.get(host.path(node["path"]))
        if "openable" in node:
            result.append(node)
        elif answer is not None:
            extra = {"message": answer["message"]} if "message" in answer else {}
            result.append({**node, "openable": answer["ok"], **extra})
        elif host.path(node["path"]) == last:
            why = f"{HANGS} within {host.timeout_s:g} s"
            if not outcome.timed_out:
                why = f"the child that opened it ended with status {outcome.rc}"
            result.append({**node, "openable": False, "message": why})
        else:
            result.append({**node, "message": "not tried: an earlier node did not answer"})
    return result


def hanging(nodes: Iterable[dict[str, Any]]) -> str:
    """Return the path of the node that didn't answer; empty when all did."""
    return next((node["path"] for node in nodes if HANGS in node.get("message", "")), "")
