# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Keeping the present version of a model while another one is tried, and going back to it.

Pure: a situation and what is wanted become steps. Each step may be the last one that is carried
out: what it leaves is a situation that the same wish starts from again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import SHORT
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_version_record import (
    ACCEPTED,
    NONE,
    PENDING,
    RESTORED,
    RESTORING,
    Record,
    Rejected,
    kept_name,
    rejected_name,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import ModelName
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import Store, StoredModel

KEPT, DROPPED = "kept", "dropped"
WISHES = (KEPT, ACCEPTED, RESTORED, DROPPED)
COPY, DELETE, NOTE = "copy", "delete", "note"


@dataclass(frozen=True)
class Situation:
    """How a model and its kept version stand.

    Attributes:
        name: the model.
        store: the store, as it was read.
        record: what the host remembers.
    """

    name: ModelName
    store: Store
    record: Record

    @property
    def present(self) -> StoredModel | None:
        """The model as it is now."""
        return self.store.find(self.name)

    @property
    def kept(self) -> StoredModel | None:
        """The version that is kept."""
        return self.store.find(kept_name(self.name))

    @property
    def replaced(self) -> StoredModel | None:
        """The version that a way back was about to remove."""
        return self.store.find(rejected_name(self.name))

    @property
    def undecided(self) -> bool:
        """Whether another version than the kept one is in use, and nobody has accepted it."""
        kept, present = self.kept, self.present
        if kept is None or self.record.state == ACCEPTED:
            return False
        return present is None or present.digest != kept.digest


@dataclass(frozen=True)
class VersionStep:
    """One thing to do.

    Attributes:
        action: ``copy``, ``delete`` or ``note``.
        target: the name that is made or removed; of a note the model.
        source: the name that is copied.
        digest: of what is copied or removed.
        record: what a note says.
        sentence: the step in words; empty for a note that belongs to another step.
    """

    action: str
    target: ModelName
    source: ModelName | None = None
    digest: str = ""
    record: Record | None = None
    sentence: str = ""


def plan_version(
    wish: str,
    now: Situation,
    at: str,
    *,
    offered: str = "",
    reason: str = "",
    remember: bool = True,
) -> list[VersionStep]:
    """Return the steps from a situation to what is wanted.

    Args:
        wish: one of ``WISHES``.
        now: the situation.
        at: the time, RFC 3339.
        offered: the digest that an update is to bring, for the record.
        reason: why the version in use is given up, for the record.
        remember: whether that version is remembered as one that was given up.

    Raises:
        HostError: it can't be had, or would lose the only version that is known to be good.
    """
    if wish == KEPT:
        return _keep(now, at, offered)
    if wish == RESTORED:
        return _restore(now, at, reason, remember)
    if wish == ACCEPTED:
        return _accept(now)
    return _drop(now)


def check_whole(store: Store, model: StoredModel, purpose: str) -> None:
    """Refuse a version whose blobs are not all there.

    Raises:
        HostError: the blob, and what is wrong with it.
    """
    defects = store.defects(model)
    if defects:
        layer, state = defects[0]
        more = f", and {len(defects) - 1} more are not whole" if len(defects) > 1 else ""
        raise HostError(
            f"{model.name} ({model.digest[:SHORT]}) can't be {purpose}: its blob"
            f" sha256-{layer.digest[:SHORT]} is {state}{more}.",
            "Have model_catalog repair the model.",
        )


def _keep(now: Situation, at: str, offered: str) -> list[VersionStep]:
    present, kept, record = now.present, now.kept, now.record
    if present is None:
        raise HostError(f"{now.name} is not there, wanted a version to keep.")
    check_whole(now.store, present, "kept")
    steps: list[VersionStep] = []
    if kept is not None and kept.digest != present.digest:
        if record.state != ACCEPTED:
            raise HostError(
                f"{now.name} is {present.digest[:SHORT]} and {kept.name} still keeps"
                f" {kept.digest[:SHORT]}: that update was not judged.",
                "Judge it first (playbooks/update_models.yml), or say accepted or restored.",
            )
        steps.append(_delete(kept, "an earlier version, which another one takes the place of"))
        kept = None
    if now.replaced is not None:
        steps.append(_delete(now.replaced, "a version that was given up"))
    same = record.state == PENDING and record.digest == present.digest
    if not same or (offered and record.offered != offered):
        since = record.since if same else at
        wanted = Record(PENDING, present.digest, since, offered, record.rejected)
        steps.append(_note(now.name, wanted))
    if kept is None:
        target = kept_name(now.name)
        words = f"Keep {now.name} ({present.digest[:SHORT]}) as {target}"
        steps.append(VersionStep(COPY, target, present.name, present.digest, sentence=words))
    return steps


def _restore(now: Situation, at: str, reason: str, remember: bool) -> list[VersionStep]:
    present, kept, record = now.present, now.kept, now.record
    if kept is None:
        raise HostError(f"no version of {now.name} is kept, wanted {kept_name(now.name)}.")
    check_whole(now.store, kept, "restored")
    steps: list[VersionStep] = []
    rejected = record.rejected
    replaced = now.replaced
    if present is None or present.digest != kept.digest:
        if record.state != RESTORING:  # else the record says already what is to be remembered
            if present is not None and remember:
                rejected = Rejected(present.digest, at, reason)
            going = replace(record, state=RESTORING, digest=kept.digest, rejected=rejected)
            steps.append(_note(now.name, going))
        if present is not None and (replaced is None or replaced.digest != present.digest):
            target = rejected_name(now.name)
            steps.append(VersionStep(COPY, target, present.name, present.digest))
            replaced = replace(present, name=target)
        words = f"Go back to {kept.digest[:SHORT]} of {now.name}"
        words += f", which is {present.digest[:SHORT]} now" if present else ", which is not there"
        steps.append(VersionStep(COPY, now.name, kept.name, kept.digest, sentence=words))
    if replaced is not None:
        steps.append(_delete(replaced, "the version that was given up"))
    if steps or record.state != RESTORED:
        back = Record(RESTORED, kept.digest, record.since, record.offered, rejected)
        steps.append(_note(now.name, back))
    return steps


def _accept(now: Situation) -> list[VersionStep]:
    present, kept, record = now.present, now.kept, now.record
    if kept is None and record.state == NONE:
        return []
    if present is None:
        raise HostError(f"{now.name} is not there, wanted a version to accept.")
    check_whole(now.store, present, "accepted")
    if record.state == ACCEPTED:
        return []
    if record.state == RESTORING:
        raise HostError(
            f"{now.name} is on its way back to {record.digest[:SHORT]}, so that"
            f" {present.digest[:SHORT]} can't be accepted.",
            "Say restored first.",
        )
    digest = kept.digest if kept else record.digest
    words = f"Accept {present.digest[:SHORT]} of {now.name}"
    accepted = Record(ACCEPTED, digest, record.since, record.offered)
    return [VersionStep(NOTE, now.name, record=accepted, digest=present.digest, sentence=words)]


def _drop(now: Situation) -> list[VersionStep]:
    kept, record = now.kept, now.record
    steps: list[VersionStep] = []
    if kept is not None:
        if now.undecided:
            found = now.present.digest[:SHORT] if now.present else "not there"
            raise HostError(
                f"{kept.name} is not dropped: {now.name} is {found}, and that was not accepted.",
                "Say accepted or restored first.",
            )
        if now.present is None:
            raise HostError(f"{kept.name} is not dropped: {now.name} is not there without it.")
        check_whole(now.store, now.present, "left without its earlier version")
        steps.append(_delete(kept, "the earlier version"))
    left = Record(rejected=record.rejected)
    if left != record:
        steps.append(_note(now.name, left))
    return steps


def _delete(model: StoredModel, what: str) -> VersionStep:
    words = f"Remove {model.name} ({model.digest[:SHORT]}), {what}"
    return VersionStep(DELETE, model.name, digest=model.digest, sentence=words)


def _note(name: ModelName, record: Record) -> VersionStep:
    return VersionStep(NOTE, name, record=record)


def carry_out(
    steps: list[VersionStep],
    *,
    copy: Callable[[ModelName, ModelName], None],
    delete: Callable[[ModelName], None],
    note: Callable[[ModelName, Record], None],
) -> None:
    """Carry out the steps in their order; the first one that fails ends it."""
    for step in steps:
        if step.action == COPY and step.source is not None:
            copy(step.source, step.target)
        elif step.action == DELETE:
            delete(step.target)
        elif step.record is not None:
            note(step.target, step.record)
