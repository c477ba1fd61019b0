# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A hub or a directory as the source of a model's files: what it offers, how files come."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub import (
    COMMIT,
    Hub,
    HubFile,
    RetryError,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_download import Line
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_http import Get
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files import (
    Declaration,
    Source,
    Wanted,
    read_list,
    refuse_forbidden,
    select,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_apply import Builder
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_plan import Plan
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_report import Teller
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_tree import (
    Tree,
    defect,
    identify,
    read_tree,
    wanted_from_note,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter


@dataclass(frozen=True)
class Io:
    """What a run needs from outside; the deadline is monotonic."""

    http: Get
    progress: ProgressWriter
    deadline: float


def free_bytes(path: str) -> int:
    """Return the free space of the disk that a path is on, or will be on."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def read_token(path: str | None) -> str:
    """Read a token from a file that nobody else may read.

    Raises:
        HostError: others may read it, or it holds no token.
    """
    if not path:
        return ""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            token = stream.read(4096).strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise HostError(f"token_file {path} can't be read: {reason}.") from error
    if mode & 0o077:
        raise HostError(f"token_file {path} has mode {mode:04o}, wanted 0600.", "chmod 0600 it.")
    if not token or not token.isprintable() or " " in token:
        raise HostError(f"token_file {path} doesn't hold one token.")
    return token


class Origin:
    """What all sources share."""

    def __init__(self, declaration: Declaration, params: Mapping[str, Any], io: Io) -> None:
        source = declaration.source
        if source is None:
            raise HostError("source is not given.")
        self.source: Source = source
        self.declaration = declaration
        self.params = params
        self.io = io
        self.teller = Teller(io.progress, declaration.name, "pulling")

    def guard(self, needed: int = 0) -> None:
        """Stop when the disk has become too full.

        Raises:
            HostError: it has.
        """
        free, reserve = free_bytes(self.declaration.dest), self.params["reserve_bytes"]
        if free - needed < reserve:
            raise HostError(
                f"the disk of {self.declaration.dest} has {human_size(free)} left, "
                f"{human_size(needed)} more is needed and {human_size(reserve)} must stay free.",
                "Free some space and run again, which goes on from here.",
            )

    def line(self) -> Line:
        """Return how downloads are made."""
        waiter = Hub(
            self.source.place,
            self.source.model or "archive",
            self.io.http,
            deadline=self.io.deadline,
            tell=lambda note: self.teller(0, note),
        )
        return Line(
            waiter.wait,
            self.teller,
            self.guard,
            self.io.deadline,
            float(self.params["stall_timeout_s"]),
        )


class HubOrigin(Origin):
    """A model hub."""

    def __init__(self, declaration: Declaration, params: Mapping[str, Any], io: Io) -> None:
        super().__init__(declaration, params, io)
        self.hub = Hub(
            self.source.place,
            self.source.model,
            io.http,
            read_token(params["token_file"]),
            io.deadline,
            lambda note: self.teller(0, note),
        )
        self.commit = ""
        self._offered: list[HubFile] = []

    def wanted(self, commit: str = "") -> tuple[list[Wanted], str]:
        """Ask the hub which files are wanted, and for the commit of a branch."""
        if not commit:
            pinned = COMMIT.fullmatch(self.source.pin)
            commit = self.source.pin if pinned else self.hub.commit(self.source.pin)
        if commit != self.commit:
            self._offered = self.hub.files(commit)
            self.commit = commit
        return select(self._offered, self.source, self.declaration.rules), commit

    def prepare(self, plan: Plan) -> None:
        """Find out before the first byte whether the files are given out."""
        if plan.fetch:
            first = min(plan.fetch, key=lambda item: item.size)
            line = self.line()
            for attempt in range(1, 100):
                try:
                    self.hub.open(self.commit, first.path, -1, 30.0).close()
                    return
                except RetryError as error:
                    line.wait(attempt, error, first.path)

    def bring(self, builder: Builder, plan: Plan) -> tuple[int, int]:
        """Download; return the bytes that came now and those that were there."""
        self.teller.expect(sum(item.size for item in plan.fetch))
        come = 0
        resumed = plan.resumed
        for item in plan.fetch:
            fetch = builder.download(
                item, lambda path, at, wait: self.hub.open(self.commit, path, at, wait), self.line()
            )
            come += fetch.at - fetch.resumed
        return come, resumed


class PathOrigin(Origin):
    """A directory on the host."""

    def __init__(self, declaration: Declaration, params: Mapping[str, Any], io: Io) -> None:
        super().__init__(declaration, params, io)
        self._tree: Tree | None = None

    @property
    def tree(self) -> Tree:
        """The directory; it is looked at when it is needed."""
        if self._tree is None:
            self._tree = read_tree(self.source.place, follow=True)
            if not self._tree.exists:
                raise HostError(f"source.path {self.source.place} is not there.")
        return self._tree

    def wanted(self, noted: Tree | None) -> list[Wanted]:
        """Say which files are wanted: those declared, those of a list, or those found."""
        if self.source.files:
            return [Wanted(path, sha256=sha256) for path, sha256 in self.source.files]
        if self.params["source"]["manifest"]:
            found = self._listed(self.params["source"]["manifest"])
        elif noted is not None:
            found = wanted_from_note(noted.note, noted.root)
        else:
            found = self._as_found()
        if not found:
            raise HostError(f"source.path {self.source.place} has no files that are wanted.")
        refuse_forbidden(self.declaration.rules, [item.path for item in found], self.source.place)
        return found

    def sized(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Learn the sizes from the files that are there."""
        entries = self.tree.entries
        return [
            replace(item, size=entries[item.path].size) if item.path in entries else item
            for item in wanted
        ]

    def _listed(self, manifest: str) -> list[Wanted]:
        try:
            with open(manifest, encoding="utf-8") as stream:
                text = stream.read()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise HostError(f"source.manifest {manifest} can't be read: {reason}.") from error
        if not text.lstrip().startswith("{"):
            return [Wanted(path, sha256=sha) for path, sha in read_list(text, manifest).items()]
        try:
            note = json.loads(text)
        except ValueError as error:
            raise HostError(f"source.manifest {manifest} can't be read: {error}.") from error
        return [replace(item, git_sha1="") for item in wanted_from_note(note, manifest)]

    def _as_found(self) -> list[Wanted]:
        rules = self.declaration.rules
        names = [
            path
            for path, entry in sorted(self.tree.entries.items())
            if entry.regular and rules.matches(path) and not rules.forbids(path)
        ]
        found = [Wanted(path) for path in names]
        identify(self.tree, found, self.declaration.full, self.teller)
        entries = [self.tree.entries[path] for path in names]
        return [Wanted(entry.path, entry.size, entry.sha256) for entry in entries]

    def prepare(self, plan: Plan) -> None:
        """Verify the source before the first byte is copied."""
        identify(self.tree, plan.fetch, True, self.teller)
        for item in plan.fetch:
            why = defect(item, self.tree.entries.get(item.path))
            if why:
                raise HostError(
                    f"{self.tree.path(item.path)}: {why}.", "Bring the right file there."
                )
        need = sum(self.tree.entries[item.path].size for item in plan.fetch)
        self.guard(need)

    def bring(self, builder: Builder, plan: Plan) -> tuple[int, int]:
        """Copy; return the bytes that were copied and those that were there."""
        self.teller.expect(sum(self.tree.entries[item.path].size for item in plan.fetch))
        line = self.line()
        return sum(builder.copy(item, self.tree, line) for item in plan.fetch), plan.resumed
