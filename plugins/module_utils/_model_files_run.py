# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""One run of model files: observe, plan, apply, verify."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _model_files_plan as plans
from ansible_collections.hx_infra.llm.plugins.module_utils import _model_files_report as report
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import make_directories
from ansible_collections.hx_infra.llm.plugins.module_utils._journal import RunLock
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files import (
    ARCHIVE,
    HUB,
    MANIFEST,
    PATH,
    Source,
    Wanted,
    read_declaration,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_apply import (
    Builder,
    Places,
    change_access,
    remove_tree,
    rename_aside,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_from_archive import (
    ArchiveOrigin,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_origin import (
    HubOrigin,
    Io,
    PathOrigin,
    free_bytes,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_plan import Found, Plan
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_tree import (
    FORMAT,
    Tree,
    identify,
    read_tree,
    wanted_from_note,
    write_note,
)

__all__ = ["Io", "reconcile"]
ORIGINS: dict[str, Any] = {HUB: HubOrigin, PATH: PathOrigin, ARCHIVE: ArchiveOrigin}


def reconcile(params: dict[str, Any], io: Io, check_mode: bool, result: dict[str, Any]) -> None:
    """Plan, act unless in check mode, and verify; ``result`` is filled as far as it gets.

    Raises:
        HostError: the model can't be as declared.
    """
    run = Run(params, io, check_mode)
    parent = os.path.dirname(run.places.dest)
    if not check_mode and not run.declaration.in_place and params["state"] == "present":
        make_directories(parent)
    may_lock = not check_mode and os.access(parent, os.W_OK)
    try:
        with RunLock(run.places.lock, f"the model in {run.places.dest}", create=may_lock):
            (run.make_absent if params["state"] == "absent" else run.make_present)(result)
    except OSError as error:
        at = error.filename or run.places.dest
        raise HostError(f"{at}: {error.strerror or error}.") from error


class Run:
    """One run with its options."""

    def __init__(self, params: dict[str, Any], io: Io, check_mode: bool) -> None:
        self.declaration = read_declaration(params)
        self.places = Places(self.declaration.dest)
        self._params = params
        self._io = io
        self._check_mode = check_mode
        self._access = report.read_access(params, check_mode)
        self._refuse_mount()

    def make_absent(self, result: dict[str, Any]) -> None:
        """Remove the model."""
        if self.declaration.in_place:
            raise HostError(f"{self.places.dest} is the source itself.", "Remove it by hand.")
        found = self._look()
        plan = plans.plan_absence(self.declaration, found)
        report.put_plan(result, plan, self.declaration, [], commit="", dest=found.dest)
        if self._check_mode:
            return
        if found.dest.exists:  # where nothing is put back from when this is cut off
            rename_aside(self.places.dest, self.places.staging)
        for path in (self.places.staging, self.places.old):
            remove_tree(path)

    def make_present(self, result: dict[str, Any]) -> None:
        """Have the model as declared."""
        found = self._look()
        origin = ORIGINS[self._source.kind](self.declaration, self._params, self._io)
        wanted, commit = self._wanted(origin, found)
        found, plan = self._plan(wanted, commit, found)
        if plan.fetch or plan.whole:
            wanted, commit, found, plan = self._ask(origin, found, wanted, commit)
        report.put_plan(
            result, plan, self.declaration, wanted or [], commit=commit, dest=found.dest
        )
        if self.declaration.in_place and plan.builds:
            why = next(step.reason for step in plan.steps if step.action in plans.BRINGS)
            raise HostError(
                f"{self.places.dest} is not as declared: {why}.",
                "Bring the right files there, or give another dest to have them copied.",
            )
        free = free_bytes(self.places.dest)
        plans.check_space(plan, self._params["reserve_bytes"], free, self.places.dest)
        if plan.fetch or plan.whole:
            origin.prepare(plan)
        if self._check_mode or not plan.changes:
            report.judge(result, self.declaration, plan, found.dest, as_planned=bool(plan.changes))
            return
        self._apply(origin, plan, found, commit, result)
        self._verify(wanted, commit, result)

    def _look(self) -> Found:
        """Look at the directory and its neighbours; undo a change of places that was cut off."""
        places = self.places
        put_back = not os.path.lexists(places.dest) and os.path.isdir(places.old)
        if put_back and not self._check_mode:
            os.rename(places.old, places.dest)
            put_back = False
        dest = read_tree(places.old if put_back else places.dest, follow=self.declaration.in_place)
        old = Tree(places.old) if put_back else read_tree(places.old)
        return Found(dest, read_tree(places.staging), old)

    def _wanted(self, origin: Any, found: Found) -> tuple[list[Wanted] | None, str]:
        """Say which files are wanted without asking anybody, where that is possible."""
        source = self._source
        note = found.dest.note
        same = note.get("source") == source.noted(self.declaration.rules)
        if source.kind == PATH:
            return origin.wanted(found.dest if same and not self.declaration.update else None), ""
        moves = source.kind == HUB and source.pinned == "no" and self.declaration.update
        if source.files:
            commit = source.pin if source.kind == HUB and source.pinned != "no" else ""
            commit = commit or (str(note.get("commit", "")) if same else "")
            return [Wanted(path, sha256=sha256) for path, sha256 in source.files], commit
        if same and not moves:
            where = found.dest.path(MANIFEST)
            return wanted_from_note(note, where), str(note.get("commit", ""))
        if source.kind == ARCHIVE:
            return None, ""
        return origin.wanted()

    def _plan(self, wanted: list[Wanted] | None, commit: str, found: Found) -> tuple[Found, Plan]:
        """Identify the wanted files and compare."""
        note = found.dest.note
        same = note.get("source") == self._source.noted(self.declaration.rules)
        tell = self._teller("verifying")
        identify(found.dest, wanted or [], self.declaration.full, tell)
        identify(found.staging, wanted or [], False, tell)
        found = replace(found, same_source=same)
        plan = plans.make_plan(self.declaration, wanted, found, self._access)
        if not plan.builds:
            expected = self._note(commit, found.dest, wanted or [])
            # Another service that serves this directory may have given it its name.
            same_note = {**note, "name": self.declaration.name} == expected
            recorded = same_note or self._unwritable(found.dest)
            found = replace(found, recorded=recorded)
            plan = plans.make_plan(self.declaration, wanted, found, self._access)
        return found, plan

    def _ask(
        self, origin: Any, found: Found, wanted: list[Wanted] | None, commit: str
    ) -> tuple[list[Wanted] | None, str, Found, Plan]:
        """Something has to come: learn from the source what nobody knew yet, and plan anew."""
        if isinstance(origin, HubOrigin):
            wanted, commit = origin.wanted(commit)
        elif isinstance(origin, PathOrigin):
            wanted = wanted if self.declaration.in_place else origin.sized(wanted or [])
        elif isinstance(origin, ArchiveOrigin):
            found = replace(found, archive_size=origin.size(), archive_remote=origin.remote)
        found, plan = self._plan(wanted, commit, found)
        return wanted, commit, found, plan

    def _apply(
        self, origin: Any, plan: Plan, found: Found, commit: str, result: dict[str, Any]
    ) -> None:
        for path in plan.stale:
            remove_tree(path)
        if plan.builds:
            staging = found.staging if plan.fetch or plan.whole or plan.staged else Tree("")
            builder = Builder(self.places, found.dest, staging, self._note(commit, None, []))
            builder.keep(plan)
            result["downloaded_bytes"], result["resumed_bytes"] = origin.bring(builder, plan)
            builder.give_access(self._access)
            builder.switch()
            return
        if not found.recorded:
            ours = [Wanted(path) for path in plan.keep if path not in plan.undeclared]
            note = self._note(commit, found.dest, ours)
            write_note(self.places.dest, note, found.dest.note_info)
        if any(step.action == plans.SET_ACCESS for step in plan.steps):
            self._give_access(plan)

    def _give_access(self, plan: Plan) -> None:
        tree = read_tree(self.places.dest)
        for path in plan.keep:
            if path not in plan.undeclared and path in tree.entries:
                change_access(tree.path(path), tree.entries[path].info, self._access)
        if tree.note_info:
            change_access(tree.path(MANIFEST), tree.note_info, self._access)
        for path, info in tree.directories.items():
            change_access(os.path.normpath(tree.path(path)), info, self._access)

    def _verify(self, wanted: list[Wanted] | None, commit: str, result: dict[str, Any]) -> None:
        """Read back; nothing may be left to do."""
        found = self._look()
        if wanted is None:
            wanted = wanted_from_note(found.dest.note, found.dest.path(MANIFEST))
        quick = Run(dict(self._params, verify="quick"), self._io, True)
        found, plan = quick._plan(wanted, commit, found)
        report.put_model(result, self.declaration, wanted, commit, found.dest)
        result["undeclared"] = plan.undeclared
        report.judge(result, self.declaration, plan, found.dest, as_planned=False)
        if plan.changes:
            left = " ".join(plans.sentences(plan.steps))
            raise HostError(f"{self.places.dest} is not as declared after the run: {left}")

    def _note(self, commit: str, tree: Tree | None, wanted: Sequence[Wanted]) -> dict[str, Any]:
        entries = [tree.entries[item.path] for item in wanted] if tree else []
        return {
            "format": FORMAT,
            "name": self.declaration.name,
            "source": self._source.noted(self.declaration.rules),
            "commit": commit,
            "files": {entry.path: entry.noted() for entry in entries},
        }

    def _unwritable(self, tree: Tree) -> bool:
        return self.declaration.in_place and not os.access(tree.root, os.W_OK)

    def _refuse_mount(self) -> None:
        dest = self.places.dest
        if not self.declaration.in_place and os.path.ismount(dest):
            raise HostError(
                f"dest {dest} is a mount point, which can't be replaced by a new directory.",
                "Give a directory below it.",
            )

    def _teller(self, phase: str) -> Any:
        return report.Teller(self._io.progress, self.declaration.name, phase)

    @property
    def _source(self) -> Source:
        source = self.declaration.source
        if source is None:
            raise HostError("source is not given.")
        return source
