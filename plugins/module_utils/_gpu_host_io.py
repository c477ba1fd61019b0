# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""How the checks of a GPU's host reach it: a root to read below, programs with a deadline."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import (
    Outcome,
    run_killable,
)

Run = Callable[[Sequence[str], float], Outcome]

_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_MAX_LINKS = 40
NOT_FOUND = 127


class UnknownError(Exception):
    """A fact can't be known; the text says why."""


def run_program(argv: Sequence[str], timeout_s: float) -> Outcome:
    """Run a program under a deadline, also one of those that only root has in its path."""
    places = os.pathsep.join((os.environ.get("PATH", ""), _SYSTEM_PATH))
    program = shutil.which(argv[0], path=places)
    if program is None:
        return Outcome(NOT_FOUND, "", f"{argv[0]} is not installed")
    return run_killable([program, *argv[1:]], timeout_s)


@dataclass(frozen=True)
class Host:
    """A host, or a tree that looks like one.

    Attributes:
        run: runs a program under a deadline.
        root: directory under which /sys, /proc, /dev, /lib and /etc are.
        timeout_s: how long a program may take.
        machine: the machine's architecture, as ``uname -m`` says it.
    """

    run: Run = run_program
    root: str = "/"
    timeout_s: float = 20.0
    machine: str = platform.machine()

    def path(self, name: str) -> str:
        """Return where a path of the host is."""
        return os.path.join(self.root, name.lstrip("/"))

    def text(self, name: str) -> str | None:
        """Return a file's text; None when there is no such file.

        Raises:
            UnknownError: it is there and can't be read.
        """
        data = self.data(name)
        return None if data is None else data.decode("utf-8", "replace")

    def data(self, name: str) -> bytes | None:
        """Return a file's bytes; None when there is no such file.

        Raises:
            UnknownError: it is there and can't be read.
        """
        try:
            with open(self.path(name), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnknownError(f"{name}: {error.strerror or error}") from error

    def names(self, name: str) -> list[str] | None:
        """Return what a directory holds, sorted; None when there is no such directory.

        Raises:
            UnknownError: it is there and can't be read.
        """
        try:
            return sorted(os.listdir(self.path(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnknownError(f"{name}: {error.strerror or error}") from error

    def resolve(self, name: str) -> str:
        """Follow all links of a path, below the root, and return the path that they lead to.

        Raises:
            UnknownError: the links lead in a circle.
        """
        # os.path.realpath would follow an absolute link out of the root.
        todo, current, links = name.split("/"), "/", 0
        while todo:
            part = todo.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                current = os.path.dirname(current)
                continue
            step = os.path.join(current, part)
            if not os.path.islink(self.path(step)):
                current = step
                continue
            links += 1
            if links > _MAX_LINKS:
                raise UnknownError(f"{name} has too many links")
            target = os.readlink(self.path(step))
            todo = target.split("/") + todo
            if target.startswith("/"):
                current = "/"
        return current

    def call(self, *argv: str) -> Outcome:
        """Run a program under the host's deadline."""
        return self.run(argv, self.timeout_s)

    def ask(self, *argv: str) -> str:
        """Run a program and return what it printed.

        Raises:
            UnknownError: it is not installed, failed, or did not end in time.
        """
        outcome = self.call(*argv)
        if outcome.rc != 0:
            raise UnknownError(said(outcome, " ".join(argv[:2]), self.timeout_s))
        return outcome.out


def said(outcome: Outcome, program: str, timeout_s: float) -> str:
    """Say how a program ended that did not end well."""
    if outcome.timed_out:
        return f"{program} did not answer within {timeout_s:g} s"
    lines = (outcome.err.strip() or outcome.out.strip()).splitlines()
    if outcome.rc == NOT_FOUND and lines:
        return lines[-1].strip()
    why = lines[-1].strip() if lines else "it said nothing"
    return f"{program} ended with status {outcome.rc}: {why}"
