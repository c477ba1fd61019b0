# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Who could walk a path: the check that spares a service "permission denied" at its next start."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_MAX_LINKS = 40


@dataclass(frozen=True)
class Element:
    """One directory or link on the way from the root directory to a path."""

    path: str
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Account:
    """A service's identity; an unknown one (``uid`` None) has the rights of everybody."""

    name: str
    uid: int | None
    gids: frozenset[int]


def elements(
    path: str,
    lstat: Callable[[str], os.stat_result] = os.lstat,
    readlink: Callable[[str], str] = os.readlink,
) -> list[Element]:
    """List the elements from ``/`` to a path, links followed; stop at the first missing one."""
    seen: list[Element] = []
    todo = [part for part in path.split("/") if part]
    current = "/"
    links = 0
    info = lstat("/")
    seen.append(Element("/", info.st_mode, info.st_uid, info.st_gid))
    while todo:
        part = todo.pop(0)
        if part == ".":
            continue
        if part == "..":
            current = os.path.dirname(current)
            continue
        name = os.path.join(current, part)
        try:
            info = lstat(name)
        except (FileNotFoundError, NotADirectoryError):
            return seen
        if stat.S_ISLNK(info.st_mode):
            links += 1
            if links > _MAX_LINKS:
                return seen
            value = readlink(name)
            todo = [piece for piece in value.split("/") if piece] + todo
            if value.startswith("/"):
                current = "/"
            continue
        seen.append(Element(name, info.st_mode, info.st_uid, info.st_gid))
        current = name
    return seen


def first_obstacle(way: Sequence[Element], account: Account) -> Element | None:
    """Return the first directory that the account cannot walk through."""
    if account.uid == 0:
        return None
    for element in way:
        if stat.S_ISDIR(element.mode) and not _may_enter(element, account):
            return element
    return None


def _may_enter(element: Element, account: Account) -> bool:
    if account.uid is not None and element.uid == account.uid:
        return bool(element.mode & stat.S_IXUSR)
    if element.gid in account.gids:
        return bool(element.mode & stat.S_IXGRP)
    return bool(element.mode & stat.S_IXOTH)


def describe_obstacle(element: Element, account: Account, path: str, owners: str) -> str:
    """Say which element stops whom on the way to which path.

    Args:
        element: the directory that cannot be walked through.
        account: who has to.
        path: where the account wants to go.
        owners: owner and group of the element, as a person would write them.
    """
    return (
        f"{account.name} cannot reach {path}: {element.path} is {owners} with mode "
        f"{stat.S_IMODE(element.mode):04o}, which does not let {account.name} through (x wanted)."
    )
