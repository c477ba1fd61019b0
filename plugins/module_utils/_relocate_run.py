# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Carry out the plan of a store's move, so that a kill at any point leaves work, never a loss.

Until the switch the engine's paths lead to the old store, which is never written to; from the
switch on they lead to a copy whose blobs were verified. The journal says what was intended, the
disk says what was reached: the next run plans from both and goes on from there.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._copytree import (
    Ownership,
    remove_tree,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    fsync_directory,
    make_directories,
    place_symlink,
    remove_empty_tree,
    set_access,
    walk,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._journal import Journal
from ansible_collections.hx_infra.llm.plugins.module_utils._procs import holders
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate import (
    Declared,
    Observed,
    Plan,
    Tree,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_commit import (
    place_copy,
    rename_with_link,
    restore_links,
    switch,
    switch_back,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_copy import (
    Outcome,
    StagedCopy,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_observe import STAGING
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_pulls import StoreGuard
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_service import Service


class Relocation:
    """One run of a plan.

    Args:
        declared: what is wanted.
        plan: the steps to carry out.
        found: what the plan was made from.
        owner: numeric owner of the store.
        service: the engine's unit.
        guard: keeps others from the store.
        journal: where to note each step.
        progress: where to report how far the copy is.
        check_way: raises when the service's account cannot reach the store.
        on_step: told the name of each step before it is done.
        stamp: the run's time in UTC, part of the old tree's new name.
    """

    def __init__(
        self,
        declared: Declared,
        plan: Plan,
        found: Observed,
        *,
        owner: Ownership,
        service: Service,
        guard: StoreGuard,
        journal: Journal,
        progress: ProgressWriter,
        check_way: Callable[[], None],
        stamp: str,
        on_step: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self.outcome = Outcome()
        self._declared = declared
        self._plan = plan
        self._found = found
        self._owner = owner
        self._service = service
        self._guard = guard
        self._journal = journal
        self._check_way = check_way
        self._stamp = stamp
        self.on_step = on_step
        self._state: dict[str, Any] = {}
        self._staging = f"{declared.target}{STAGING}"
        tree = found.trees.get(plan.source, Tree(plan.source))
        self._copy = StagedCopy(
            declared,
            tree,
            self._staging,
            owner=owner,
            progress=progress,
            outcome=self.outcome,
        )

    def apply(self) -> Outcome:
        """Carry out the plan.

        Raises:
            HostError: something was not as planned; the engine runs as it did before, or the
                message says that it doesn't.
        """
        self._begin()
        if self._plan.mode == "create":
            self._create()
        if self._plan.mode == "copy":
            self._unplace()
            self._step("copy")
            self._copy.copy_live()
            self._step("verify")
            self._copy.verify()
        self._check_way()
        switched = bool(self._plan.of("switch") or self._plan.of("rename"))
        if switched:
            self._switch_guarded()
        else:
            self._finish_links()
        if self._plan.restart:
            self._prove_or_flip_back()
        for step in self._plan.of("retain"):
            self._retain(step.target)
        self._step("finish")
        self._journal.remove()
        return self.outcome

    def _begin(self) -> None:
        found, plan = self._found, self._plan
        state = dict(found.journal)
        known = (state.get("target"), state.get("source")) == (self._declared.target, plan.source)
        if not state or (plan.source and not known):
            state = {
                "target": self._declared.target,
                "source": plan.source,
                "mode": plan.mode,
                "retained": f"{plan.source}.hx-retained-{self._stamp}" if plan.source else "",
                "links_before": {
                    place.path: place.value for place in found.names if place.kind != "directory"
                },
                "unit_was_running": False,
            }
        state["mode"] = plan.mode if plan.source else state["mode"]
        if plan.of("stop"):
            state["unit_was_running"] = True
            state["unit_state"] = found.unit_state
        self._state = state
        self._step("begin")
        if plan.of("resume"):
            self._service.start_quietly()
            state["unit_state"] = "activating"
        if plan.of("stop"):
            state["models"] = self._service.models() or state.get("models")
            self._step("models")

    def _step(self, name: str) -> None:
        """Note the step durably before it is done."""
        self._state["step"] = name
        self._journal.write(self._state)
        self.on_step(name)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            if self._state.get("unit_was_running"):
                self.outcome.seconds[part] += time.monotonic() - begun

    def _create(self) -> None:
        self._step("create")
        target = self._declared.target
        make_directories(os.path.dirname(target))
        if os.path.islink(target):
            os.unlink(target)
        make_directories(target)
        os.chown(target, self._owner.uid, self._owner.gid)

    def _unplace(self) -> None:
        """Take a copy that stands at its final name but is not in use back to staging."""
        target = self._declared.target
        make_directories(os.path.dirname(target))
        if os.path.isdir(target) and not os.path.islink(target):
            self._step("unplace")
            if os.path.isdir(self._staging):
                remove_tree(target)
            else:
                os.rename(target, self._staging)
            fsync_directory(os.path.dirname(target))

    def _switch_guarded(self) -> None:
        """Quiesce, copy the rest, commit; on a failure the engine runs on the old store again."""
        self._guard.check_unfilled(self._plan.source)
        try:
            if self._plan.of("stop"):
                with self._timed("stop"):
                    self._step("stop")
                    self._service.stop()
                    self._check_quiet()
            if self._plan.mode == "copy":
                with self._timed("delta"):
                    self._step("delta")
                    self._copy.bring_up_to_date()
            with self._timed("commit"):
                self._commit()
                self._finish_links()
        except Exception:
            if self._state.get("unit_was_running"):
                self._flip_back()
                self._start_old()
            raise

    def _check_quiet(self) -> None:
        writers = [item for item in holders(self._plan.source, files_only=True) if item.writes]
        if writers:
            raise HostError(
                f"{self._declared.host}: {self._plan.source} is written to by another program: "
                f"{'; '.join(map(str, writers[:3]))}; wanted nobody.",
                "End that program, then run again.",
            )

    def _commit(self) -> None:
        source, target = self._plan.source, self._declared.target
        if self._plan.mode == "rename":
            self._step("rename")
            rename_with_link(source, target)
            return
        self._step("place")
        self._guard.hold(self._staging)
        self._copy.unseal()
        place_copy(self._staging, target)
        self._step("switch")
        switch(source, self._state["retained"], target)

    def _finish_links(self) -> None:
        for step in self._plan.of("link"):
            self._step(f"link {step.target}")
            if os.path.isdir(step.target) and not os.path.islink(step.target):
                remove_empty_tree(step.target)
            make_directories(os.path.dirname(step.target))
            place_symlink(step.target, step.value)
        if self._plan.of("own") and self._plan.mode != "copy":
            self._step("own")
            self._own(self._declared.target)

    def _own(self, root: str) -> None:
        for name, info in walk(root):
            if not self._owner.differs(info):
                continue
            path = os.path.normpath(os.path.join(root, name))
            owner = (self._owner.uid, self._owner.gid)
            set_access(path, info, owner=owner, mode=self._owner.mode(info.st_mode))
            self.outcome.owned += 1

    def _prove_or_flip_back(self) -> None:
        try:
            with self._timed("start"):
                self._step("start")
                self._check_way()
                self._service.start()
                warning = self._service.prove(
                    self._state.get("models"), self._state.get("unit_state") == "active"
                )
            if warning:
                self.outcome.warnings.append(warning)
        except (HostError, OSError) as error:
            if self._flip_back():
                running = self._start_old()
                after = "runs on the old store again" if running else "does not run"
                raise HostError(
                    f"{error} The move was taken back and {self._declared.unit} {after}.",
                    "The verified copy is kept, so that the next run has little left to do.",
                ) from error
            raise

    def _flip_back(self) -> bool:
        """Put the old store and the old links back; return whether there was anything to undo."""
        source, target = str(self._state.get("source", "")), self._declared.target
        if not source or not os.path.islink(source):
            return False
        self._step("flip back")
        self._service.stop_quietly()
        moved = self._state["mode"] == "rename"
        undone = switch_back(source, target if moved else self._state["retained"])
        if undone and not moved and os.path.isdir(target):
            os.rename(target, self._staging)
        if undone:
            restore_links(self._state["links_before"])
        return undone

    def _start_old(self) -> bool:
        running = self._service.start_quietly()
        if running:
            self._state["unit_was_running"] = False
            self._journal.write(self._state)
        return running

    def _retain(self, beside: str) -> None:
        """Take the write permission from the old tree and note the modes for an undo."""
        path = self._state["retained"]
        self._step("retain")
        undo = Journal(f"{self._journal.path[:-5]}-{os.path.basename(path)}.undo.json")
        entries = [
            (name, info)
            for name, info in walk(path)
            if not stat.S_ISLNK(info.st_mode) and info.st_mode & 0o222
        ]
        if not undo.read():
            modes = {name: stat.S_IMODE(info.st_mode) for name, info in entries}
            undo.write({"path": path, "replaced_by": beside, "modes": modes})
        for name, info in entries:
            entry = os.path.normpath(os.path.join(path, name))
            set_access(entry, info, mode=stat.S_IMODE(info.st_mode) & ~0o222)
        self.outcome.retained = path
