# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The verdicts of the model catalog: what a run leaves, judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _verdict as verdict
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_bring import Outcome
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    DISCARD,
    RESTORE,
    SHORT,
    Declaration,
    Plan,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_report import Entry
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import Store


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
    kept = {model.name.key for model in plan.kept_versions}
    judged = [_exact(declaration, found, kept, evidence)]
    for item in declaration.wanted:
        judged += _model_verdicts(item, found.get(item.name.key), store, evidence)
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


def _exact(
    declaration: Declaration, found: Mapping[str, Entry], kept: Set[str], evidence: str
) -> verdict.Verdict:
    """Judge the list of models; versions that an update keeps to go back to belong to it."""
    bad = declaration.keys - set(found) or declaration.forbidden_keys & set(found)
    extra = set(found) - declaration.keys - kept
    status = verdict.PASS
    if bad or (extra and declaration.exclusive):
        status = verdict.FAIL
    elif extra:
        status = verdict.WARN
    return verdict.Verdict(
        "catalog_exact",
        status,
        "models",
        sorted(entry["name"] for key, entry in found.items() if key not in kept),
        sorted(str(item.name) for item in declaration.wanted),
        "",
        evidence,
    )


def _model_verdicts(
    item: Wanted, entry: Entry | None, store: Store, evidence: str
) -> list[verdict.Verdict]:
    name = str(item.name)
    if entry is None:
        return [verdict.Verdict("model_whole", verdict.FAIL, name, "absent", "whole", "", evidence)]
    state = "whole" if entry["complete"] else _defect(item, store)
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


def _defect(item: Wanted, store: Store) -> str:
    """Say what is wrong with a model that isn't whole."""
    model = store.find(item.name)
    defects = store.defects(model) if model else []
    if not defects:
        return "not whole"
    layer, state = defects[0]
    blob = store.blobs.get(layer.digest)
    flaw = f" ({blob.flaw})" if blob and blob.flaw else ""
    more = f" and {len(defects) - 1} more" if len(defects) > 1 else ""
    return f"blob sha256-{layer.digest[:SHORT]} is {state}{flaw}{more}"


def _left_over(plan: Plan, store: Store, evidence: str) -> list[verdict.Verdict]:
    """Judge what takes up space or hides something without being a model."""
    judged = []
    settled = {step.target for step in plan.changes if step.action in (RESTORE, DISCARD)}
    aside = [file for file in store.aside.values() if file.path not in settled]
    for check, files in (
        ("store_partials", plan.kept_partials),
        ("store_orphans", plan.orphans),
        ("store_aside", aside),
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
    named = {parse_name(step.target).manifest.lower() for step in plan.changes if step.names_model}
    bad = [path for path in (*store.corrupt, *store.stray) if path.lower() not in named]
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
