# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a run of the model catalog reports: the models before and after, sizes, a diff."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_bring import Outcome
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_bytes import begun
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    DISCARD,
    REMOVE,
    RESTORE,
    SHORT,
    Declaration,
    Plan,
    Step,
    Wanted,
    sentences,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    Store,
    StoredFile,
    StoredModel,
)

Entry = dict[str, Any]


def entries(store: Store, declaration: Declaration) -> list[Entry]:
    """List the models of a store: the declared ones in their order, then the others."""
    return _in_order(_found(store, declaration), declaration)


def predicted(plan: Plan, store: Store, declaration: Declaration) -> list[Entry]:
    """List the models that the store will have when the plan was carried out.

    What a download brings makes other models whole, too.
    """
    found = _found(store, declaration)
    brought = {layer.digest for step in plan.pulls for layer in step.layers}
    for key, model in store.models.items():
        lacking = {layer.digest for layer, _state in store.defects(model)}
        found[key]["complete"] = lacking <= brought
    for step in plan.steps:
        if step.action == REMOVE:
            found.pop(parse_name(step.target).key, None)
    wanted = {str(item.name): item for item in declaration.wanted}
    for step in plan.pulls:
        item = wanted[step.target]
        found[item.name.key] = _predicted(step, item)
    return _in_order(found, declaration)


def planned(plan: Plan, store: Store, before: list[Entry], after: list[Entry]) -> dict[str, Any]:
    """Return the part of a result that a plan decides."""
    kept_aside = _kept_aside(plan, store)
    return {
        "changed": bool(plan.changes),
        "actions": sentences(plan.steps),
        "plan": [step.as_dict() for step in plan.steps],
        "totals": {
            "bytes_to_download": plan.bytes_to_download,
            "bytes_to_free": plan.bytes_to_free,
            "space_needed": plan.space_needed,
        },
        "catalog": {"before": before, "after": after},
        "undeclared": [str(model.name) for model in plan.undeclared],
        "kept_versions": [str(model.name) for model in plan.kept_versions],
        "unasked": list(plan.unasked),
        "unavailable": [{"name": step.target, "reason": step.reason} for step in plan.unavailable],
        "aside": [file.path for file in kept_aside],
        **to_be_freed(plan, store),
        "downloaded_bytes": plan.bytes_to_download,
        "verdicts": [],
        "outcomes": [],
        "env": environment(after, plan.kept_versions),
        "env_before": environment(before, plan.kept_versions),
        "diff": {
            "before": diff_text(before, _unfinished(store), store.aside.values()),
            "after": diff_text(after, plan.kept_partials, kept_aside),
        },
    }


def untouched(plan: Plan, store: Store, before: list[Entry]) -> dict[str, Any]:
    """Return what takes the place of a part of that while nothing has been done yet.

    It is what remains of a run that is refused.
    """
    shown = diff_text(before, _unfinished(store), store.aside.values())
    return {
        "changed": False,
        "catalog": {"before": before, "after": before},
        "aside": [file.path for file in store.aside.values()],
        **freed(store, store),
        "downloaded_bytes": 0,
        "env": environment(before, plan.kept_versions),
        "diff": {"before": shown, "after": shown},
    }


def done(
    before: Store,
    now: Store,
    plan: Plan,
    declaration: Declaration,
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """Return what takes its place when the plan was carried out.

    Args:
        before: the store as it was.
        now: the store as it is.
        plan: what a plan made now would do.
        declaration: what was declared.
        outcomes: how the steps went.
    """
    was, after = entries(before, declaration), entries(now, declaration)
    return {
        **freed(before, now),
        "downloaded_bytes": downloaded(before, now),
        "outcomes": [outcome.as_dict() for outcome in outcomes],
        "catalog": {"before": was, "after": after},
        "env": environment(after, plan.kept_versions),
        "undeclared": [str(model.name) for model in plan.undeclared],
        "kept_versions": [str(model.name) for model in plan.kept_versions],
        "aside": [file.path for file in now.aside.values()],
        "diff": {
            "before": diff_text(was, _unfinished(before), before.aside.values()),
            "after": diff_text(after, _unfinished(now), now.aside.values()),
        },
    }


def environment(after: Sequence[Entry], kept: Iterable[StoredModel] = ()) -> list[Entry]:
    """Return what the environment file says about the models; kept versions are for going back."""
    hidden = {str(model.name) for model in kept}
    shown = [entry for entry in after if entry["name"] not in hidden]
    return [{key: entry[key] for key in ("name", "digest", "size_bytes")} for entry in shown]


def freed(before: Store, after: Store) -> dict[str, int]:
    """Count the files that are gone; a finished download isn't, and neither is what moved back."""
    left = {(file.path, *_identity(file)) for file in _files(after)}
    finished = _finished(before, after)
    gone = [
        file
        for file in _files(before)
        if (file.path, *_identity(file)) not in left and file.path not in finished
    ]
    return {
        "reclaimed_bytes": sum(file.held for file in gone),
        "reclaimed_apparent_bytes": sum(file.size for file in gone),
        "reclaimed_files": len(gone),
    }


def to_be_freed(plan: Plan, store: Store) -> dict[str, int]:
    """Count the files that a plan removes, in the same terms."""
    gone = {path for step in plan.changes for path in step.frees}
    files = [file for file in _files(store) if file.path in gone]
    return {
        "reclaimed_bytes": sum(file.held for file in files),
        "reclaimed_apparent_bytes": sum(file.size for file in files),
        "reclaimed_files": len(files),
    }


def downloaded(before: Store, after: Store) -> int:
    """Return the bytes of the blobs that are new, without what an earlier pull had left."""
    had = {(file.path, file.size) for file in before.blobs.values()}
    moved = {_identity(file) for file in (*before.blobs.values(), *before.aside.values())}
    new = [
        file
        for file in after.blobs.values()
        if ((file.path, file.size) not in had or before.blobs[file.digest].bad)
        and _identity(file) not in moved
    ]
    return sum(max(0, blob.size - begun(before, blob)) for blob in new)


def diff_text(
    models: Sequence[Entry], partials: Sequence[StoredFile], aside: Iterable[StoredFile] = ()
) -> str:
    """Show a catalog as lines that compare well."""
    lines = []
    for entry in sorted(models, key=lambda item: item["name"]):
        size = "?" if entry["size_bytes"] is None else human_size(entry["size_bytes"])
        state = "" if entry["complete"] else " incomplete"
        lines.append(f"{entry['name']} {entry['digest'][:SHORT]} {size}{state}")
    if partials:
        held = human_size(sum(file.held for file in partials))
        lines.append(f"{len(partials)} files of partial downloads, {held}")
    lines += [f"{file.path}, {human_size(file.held)}" for file in aside]
    return "".join(f"{line}\n" for line in lines)


def _finished(before: Store, after: Store) -> set[str]:
    """Return the paths of the files that have become blobs; damaged ones never do."""
    found: set[str] = set()
    for group in (before.partials, before.incoming, before.aside.values()):
        damaged = {file.digest for file in group if file.damaged}
        done = {
            file.digest
            for file in group
            if file.digest in after.blobs and after.blobs[file.digest].inode == file.inode
        }
        found |= {file.path for file in group if file.digest in done - damaged}
    return found


def _identity(file: StoredFile) -> tuple[Any, ...]:
    """Tell a file from a later one, which may get the inode of one that is gone."""
    return file.digest, file.inode, file.size, file.mtime_ns


def _files(store: Store) -> list[StoredFile]:
    return [*store.blobs.values(), *_unfinished(store), *store.aside.values()]


def _unfinished(store: Store) -> list[StoredFile]:
    return [*store.partials, *store.incoming]


def _kept_aside(plan: Plan, store: Store) -> list[StoredFile]:
    """List the set-aside blobs that stay where they are."""
    settled = {step.target for step in plan.changes if step.action in (RESTORE, DISCARD)}
    return [file for file in store.aside.values() if file.path not in settled]


def _in_order(found: Mapping[str, Entry], declaration: Declaration) -> list[Entry]:
    declared = [item.name.key for item in declaration.wanted if item.name.key in found]
    others = sorted(set(found) - declaration.keys)
    return [found[key] for key in (*declared, *others)]


def _found(store: Store, declaration: Declaration) -> dict[str, Entry]:
    wanted = {item.name.key: item for item in declaration.wanted}
    return {key: _entry(model, store, wanted.get(key)) for key, model in store.models.items()}


def _entry(model: StoredModel, store: Store, item: Wanted | None) -> Entry:
    return {
        "name": str(model.name),
        "digest": model.digest,
        "size_bytes": model.size,
        "declared": item is not None,
        "pinned": bool(item and item.pin and model.digest.startswith(item.pin)),
        "complete": not store.defects(model),
    }


def _predicted(step: Step, item: Wanted) -> Entry:
    return {
        "name": str(item.name),
        "digest": step.digest,
        "size_bytes": step.model_size,
        "declared": True,
        "pinned": bool(item.pin),
        "complete": True,
    }
