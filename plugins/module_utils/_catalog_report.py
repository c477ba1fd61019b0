# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a run of the model catalog reports: the models before and after, verdicts, a diff."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _verdict as verdict
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog import Remotes
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_apply import Outcome
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    REMOVE,
    SHORT,
    Declaration,
    Plan,
    Step,
    Wanted,
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
    found = {key: _entry(model, store, declaration) for key, model in store.models.items()}
    return _in_order(found, declaration)


def predicted(plan: Plan, store: Store, declaration: Declaration, remotes: Remotes) -> list[Entry]:
    """List the models that the store will have when the plan was carried out."""
    found = {key: _entry(model, store, declaration) for key, model in store.models.items()}
    for step in plan.steps:
        if step.action == REMOVE:
            found.pop(parse_name(step.target).key, None)
    wanted = {str(item.name): item for item in declaration.wanted}
    for step in plan.pulls:
        item = wanted[step.target]
        found[item.name.key] = _predicted(step, item, store, remotes)
    return _in_order(found, declaration)


def environment(after: Sequence[Entry]) -> list[Entry]:
    """Return what the environment file says about the models."""
    return [{key: entry[key] for key in ("name", "digest", "size_bytes")} for entry in after]


def freed(before: Store, after: Store) -> dict[str, int]:
    """Count the files that are gone; a finished download isn't."""
    left = {(file.path, file.inode, file.size) for file in _files(after)}
    finished = set(after.blobs) - set(before.blobs)
    gone = [
        file
        for file in _files(before)
        if (file.path, file.inode, file.size) not in left and file.digest not in finished
    ]
    return {
        "reclaimed_bytes": sum(file.held for file in gone),
        "reclaimed_apparent_bytes": sum(file.size for file in gone),
        "reclaimed_files": len(gone),
    }


def to_be_freed(plan: Plan, store: Store) -> dict[str, int]:
    """Count the files that a plan removes, in the same terms."""
    after = Store(store.root, blobs=dict(store.blobs), partials=list(store.partials))
    gone = {path for step in plan.changes for path in step.frees}
    after.blobs = {key: file for key, file in after.blobs.items() if file.path not in gone}
    after.partials = [file for file in after.partials if file.path not in gone]
    return freed(store, after)


def downloaded(before: Store, after: Store) -> int:
    """Return the bytes of the blobs that are new, without what an earlier pull had left."""
    had = {(file.path, file.size) for file in before.blobs.values()}
    new = [file for file in after.blobs.values() if (file.path, file.size) not in had]
    return sum(max(0, blob.size - before.resumable(blob.digest)) for blob in new)


def verdicts(
    declaration: Declaration,
    after: Sequence[Entry],
    plan: Plan,
    store: Store,
    outcomes: Iterable[Outcome] = (),
    *,
    evidence: str,
) -> list[dict[str, Any]]:
    """Judge the catalog that a run leaves, or that a plan would leave."""
    found = {parse_name(entry["name"]).key: entry for entry in after}
    judged = [_exact(declaration, found, evidence)]
    for item in declaration.wanted:
        judged += _model_verdicts(item, found.get(item.name.key), evidence)
    for entry in after:
        if not entry["declared"] and not entry["complete"]:
            judged.append(
                verdict.Verdict(
                    "model_whole", verdict.WARN, entry["name"], "blobs missing", "", "", evidence
                )
            )
    judged += [
        verdict.Verdict(
            "model_answers", verdict.PASS, outcome.target, round(outcome.proof_s, 3), None, "s",
            "one prompt after the pull",
        )
        for outcome in outcomes
        if outcome.proof_s is not None
    ]  # fmt: skip
    return verdict.as_dicts([*judged, *_left_over(plan, store, evidence)])


def diff_text(models: Sequence[Entry], partials: Sequence[StoredFile]) -> str:
    """Show a catalog as lines that compare well."""
    lines = []
    for entry in sorted(models, key=lambda item: item["name"]):
        size = "?" if entry["size_bytes"] is None else human_size(entry["size_bytes"])
        state = "" if entry["complete"] else " incomplete"
        lines.append(f"{entry['name']} {entry['digest'][:SHORT]} {size}{state}")
    if partials:
        held = human_size(sum(file.held for file in partials))
        lines.append(f"{len(partials)} files of partial downloads, {held}")
    return "".join(f"{line}\n" for line in lines)


def _files(store: Store) -> list[StoredFile]:
    return [*store.blobs.values(), *store.partials]


def _in_order(found: Mapping[str, Entry], declaration: Declaration) -> list[Entry]:
    declared = [item.name.key for item in declaration.wanted if item.name.key in found]
    others = sorted(key for key in found if key not in declaration.keys)
    return [found[key] for key in (*declared, *others)]


def _entry(model: StoredModel, store: Store, declaration: Declaration) -> Entry:
    item = next((item for item in declaration.wanted if item.name.key == model.name.key), None)
    return {
        "name": str(model.name),
        "digest": model.digest,
        "size_bytes": model.size,
        "declared": item is not None,
        "pinned": bool(item and item.pin and model.digest.startswith(item.pin)),
        "complete": not store.defects(model),
    }


def _predicted(step: Step, item: Wanted, store: Store, remotes: Remotes) -> Entry:
    remote, model = remotes.get(item.name.key), store.find(item.name)
    size = remote.size if remote else (model.size if model else None)
    return {
        "name": str(item.name),
        "digest": step.digest,
        "size_bytes": size,
        "declared": True,
        "pinned": bool(item.pin),
        "complete": True,
    }


def _exact(declaration: Declaration, found: Mapping[str, Entry], evidence: str) -> verdict.Verdict:
    forbidden = {name.key for name in declaration.forbidden}
    bad = declaration.keys - set(found) or forbidden & set(found)
    extra = set(found) - declaration.keys
    status = verdict.PASS
    if bad or (extra and declaration.exclusive):
        status = verdict.FAIL
    elif extra:
        status = verdict.WARN
    return verdict.Verdict(
        "catalog_exact",
        status,
        "models",
        sorted(entry["name"] for entry in found.values()),
        sorted(str(item.name) for item in declaration.wanted),
        "",
        evidence,
    )


def _model_verdicts(item: Wanted, entry: Entry | None, evidence: str) -> list[verdict.Verdict]:
    name = str(item.name)
    if entry is None:
        return [verdict.Verdict("model_whole", verdict.FAIL, name, "absent", "whole", "", evidence)]
    state = "whole" if entry["complete"] else "blobs missing or of wrong size"
    judged = [
        verdict.judge(
            "model_whole",
            entry["complete"],
            subject=name,
            value=state,
            limit="whole",
            evidence=evidence,
        )
    ]
    if item.pin:
        judged.append(
            verdict.judge(
                "model_pin",
                entry["pinned"],
                subject=name,
                value=entry["digest"][:SHORT],
                limit=item.pin[:SHORT],
                evidence=evidence,
            )
        )
    return judged


def _left_over(plan: Plan, store: Store, evidence: str) -> list[verdict.Verdict]:
    """Judge what takes up space or hides something without being a model."""
    judged = []
    for check, files in (
        ("store_partials", plan.kept_partials),
        ("store_orphans", plan.orphans),
        ("store_foreign_files", store.foreign),
    ):
        held = sum(file.held for file in files)
        text = f"{len(files)} files; {evidence}" if files else evidence
        judged.append(
            verdict.judge(
                check,
                not files,
                subject="store",
                value=held,
                limit=0,
                unit="bytes",
                evidence=text,
                otherwise=verdict.WARN,
            )
        )
    settled = {
        parse_name(step.target).manifest.lower() for step in plan.changes if step.names_model
    }
    bad = [path for path in (*store.corrupt, *store.stray) if path.lower() not in settled]
    judged.append(
        verdict.judge(
            "store_manifests",
            not bad,
            subject="store",
            value=bad,
            limit=[],
            evidence=evidence,
            otherwise=verdict.WARN,
        )
    )
    return judged
