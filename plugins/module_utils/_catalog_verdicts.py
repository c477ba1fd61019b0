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
    PRUNE_ORPHAN,
    PRUNE_PARTIAL,
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
    planned: bool = True,
) -> list[dict[str, Any]]:
    """Judge the catalog that a run leaves, or that a plan would leave.

    Args:
        declaration: what was declared.
        after: the models then.
        plan: the plan; of a run that has ended, one that was made anew.
        store: the store that it was made for.
        outcomes: how the steps of the run went.
        evidence: where that is known from.
        planned: whether what the plan removes counts as gone.
    """
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
    return verdict.as_dicts([*judged, *_left_over(plan, store, evidence, planned)])


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


def _left_over(plan: Plan, store: Store, evidence: str, planned: bool) -> list[verdict.Verdict]:
    """Judge what takes up space or hides something without being a model."""
    judged = []
    steps = plan.changes if planned else []
    left = {} if planned else {step.target: step.action for step in plan.changes}
    settled = {step.target for step in steps if step.action in (RESTORE, DISCARD)}
    aside = [file for file in store.aside.values() if file.path not in settled]
    unfinished = (*store.partials, *store.incoming)
    partials = [file for file in unfinished if left.get(file.path) == PRUNE_PARTIAL]
    orphans = [file for file in store.blobs.values() if left.get(file.path) == PRUNE_ORPHAN]
    for check, files in (
        ("store_partials", [*plan.kept_partials, *partials]),
        ("store_orphans", [*plan.orphans, *orphans]),
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
    named = {parse_name(step.target).manifest.lower() for step in steps if step.names_model}
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
