# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a run of model files tells: progress, the plan, the model, and the verdicts."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _verdict as verdict
from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files import (
    PROGRAMS,
    WEIGHTS,
    Declaration,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_plan import (
    PRUNE_PARTIAL,
    PULL,
    REMOVE,
    REPULL,
    Access,
    Plan,
    sentences,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_tree import Tree
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter

NOBODY = 2**32 - 2  # differs from every account


class Teller:
    """Counts bytes and writes them to the progress file."""

    def __init__(self, writer: ProgressWriter, name: str, phase: str) -> None:
        self._writer = writer
        self._name = name
        self._phase = phase
        self._done = 0
        self._total = 0

    def expect(self, total: int) -> None:
        """Start counting anew, up to a total."""
        self._done, self._total = 0, total

    def __call__(self, count: int, note: str) -> None:
        """Count bytes; a negative number that comes first announces a total to be verified."""
        if count < 0 and self._done == 0:
            self._total += -count
            return
        self._done = max(0, self._done + count)
        total = self._total or None
        self._writer.update(
            self._name, self._phase, self._done if total else None, total, unit="B", note=note
        )


def read_access(params: Mapping[str, Any], check_mode: bool) -> Access:
    """Look up the account and read the mode; in check mode the account may not be there yet.

    Raises:
        HostError: there is no such account, or the mode is none.
    """
    uid = _number(params["owner"], lambda name: pwd.getpwnam(name).pw_uid, "owner", check_mode)
    gid = _number(params["group"], lambda name: grp.getgrnam(name).gr_gid, "group", check_mode)
    mode = None
    if params["mode"]:
        if not re.fullmatch("0[0-7]{3}", params["mode"]):  # YAML makes a number of 0644
            raise HostError(f"mode is {params['mode']}, wanted octal digits in quotes, '0644'.")
        mode = int(params["mode"], 8)
    said = ", ".join(f"{key} {params[key]}" for key in ("owner", "group", "mode") if params[key])
    return Access(uid, gid, mode, said)


def _number(
    name: str | None, look_up: Callable[[str], int], option: str, check_mode: bool
) -> int | None:
    if not name:
        return None
    try:
        return look_up(name)
    except KeyError as error:
        if name.isdigit():
            return int(name)
        if check_mode:
            return NOBODY
        raise HostError(f"{option} {name} does not exist.", "Create it first.") from error


def put_plan(
    result: dict[str, Any],
    plan: Plan,
    declaration: Declaration,
    wanted: Sequence[Wanted],
    *,
    commit: str,
    dest: Tree,
) -> None:
    """Put the plan and what it leads to into the result."""
    to_free = plan.size_of(REMOVE, PRUNE_PARTIAL)
    to_download = plan.size_of(PULL, REPULL)
    result.update(
        changed=bool(plan.changes),
        actions=sentences(plan.steps),
        plan=[step.as_dict() for step in plan.steps],
        totals={
            "bytes_to_download": to_download,
            "bytes_to_free": to_free,
            "space_needed": plan.space_needed,
        },
        undeclared=plan.undeclared,
        downloaded_bytes=to_download,
        resumed_bytes=plan.resumed,
        reclaimed_bytes=to_free,
        verdicts=[],
        diff={"before": _lines(dest), "after": _lines_after(dest, plan, wanted)},
    )
    put_model(result, declaration, wanted, commit, dest)


def put_model(
    result: dict[str, Any],
    declaration: Declaration,
    wanted: Sequence[Wanted],
    commit: str,
    dest: Tree,
) -> None:
    """Put the model into the result, with what is known of its files."""
    files = []
    for item in wanted:
        entry = dest.entries.get(item.path)
        sha256 = item.sha256 or (entry.sha256 if entry else "")
        known = entry.size if entry and entry.sha256 == sha256 else None
        size = item.size if item.size >= 0 else known
        files.append({"path": item.path, "size_bytes": size, "sha256": sha256})
    source = declaration.source
    result["model"] = {
        "name": declaration.name,
        "dest": declaration.dest,
        "revision": commit,
        "pinned": source.pinned if source else "no",
        "size_bytes": sum(file["size_bytes"] or 0 for file in files),
        "files": files,
    }


def judge(
    result: dict[str, Any], declaration: Declaration, plan: Plan, dest: Tree, *, as_planned: bool
) -> None:
    """Judge the model that a run leaves, or that a plan would leave."""
    evidence = "as planned" if as_planned else f"read from {declaration.dest}"
    name, pinned = declaration.name, declaration.source.pinned if declaration.source else "no"
    risky = [path for path in plan.undeclared if path.lower().endswith((*WEIGHTS, *PROGRAMS))]
    undeclared = verdict.PASS
    if plan.undeclared:
        undeclared = verdict.FAIL if risky else verdict.WARN
    held = sum(dest.entries[path].size for path in plan.undeclared if path in dest.entries)
    told = f"{human_size(held)}; a server may load or run {', '.join(risky)}" if risky else evidence
    result["verdicts"] = verdict.as_dicts(
        [
            verdict.judge(
                "model_whole", not plan.builds or as_planned, subject=name,
                value="whole", limit="whole", evidence=evidence,
            ),
            verdict.judge(
                "model_pin", pinned != "no", subject=name, value=pinned, limit="files or source",
                evidence="what the declaration fixes", otherwise=verdict.WARN,
            ),
            verdict.Verdict(
                "model_undeclared", undeclared, name, plan.undeclared, [], "", told
            ),
        ]
    )  # fmt: skip


def _lines(tree: Tree) -> str:
    return "".join(_line(path, tree.entries[path].sha256) for path in sorted(tree.entries))


def _lines_after(tree: Tree, plan: Plan, wanted: Sequence[Wanted]) -> str:
    if not plan.builds:
        gone = any(step.action == REMOVE for step in plan.steps)
        return "" if gone else _lines(tree)
    after = {path: tree.entries[path].sha256 for path in plan.keep if path in tree.entries}
    for item in wanted:
        after[item.path] = after.get(item.path) or item.sha256 or f"git {item.git_sha1}"
    return "".join(_line(path, after[path]) for path in sorted(after))


def _line(path: str, checksum: str) -> str:
    return f"{path} {checksum[:16]}".rstrip() + "\n"
