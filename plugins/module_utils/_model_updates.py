# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Which declared models have another version at their registry, and what is to be done about it.

Nothing is written. A registry that gives no answer is asked once, not once per model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import SHORT, Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_version import Situation
from ansible_collections.hx_infra.llm.plugins.module_utils._model_version_record import (
    ACCEPTED,
    PENDING,
    RESTORED,
    RESTORING,
    read_record,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_version_run import (
    described,
    state_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    PRESENT,
    Store,
    StoredModel,
    unique,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import (
    RegistryError,
    Remote,
    ask,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Http

AS_SERVED = (0, 19)  # since this version Ollama stores the registry's manifest as it is
BY_DIGEST, BY_LAYERS = "digest", "layers"
NOTHING, UPDATE, JUDGE, GO_BACK, DROP = "none", "update", "judge", "go_back", "drop"


@dataclass(frozen=True)
class Answer:
    """What a registry said about a model; without ``remote``, ``problem`` says why."""

    remote: Remote | None = None
    problem: str = ""


NOT_ASKED = Answer(problem="it was not asked")


def ask_all(http: Http, wanted: Iterable[Wanted]) -> dict[str, Answer]:
    """Ask the registries about models; return the answers by the keys of the declared names."""
    answers: dict[str, Answer] = {}
    silent: dict[str, str] = {}  # by host of a registry: why it gives no answer
    for item in wanted:
        host = item.source.host.lower()
        if host in silent:
            answers[item.name.key] = Answer(problem=silent[host])
            continue
        try:
            remote = ask(http, item.source, insecure=item.insecure)
        except RegistryError as error:
            answers[item.name.key] = Answer(problem=f"{item.source.host}: {error.problem}")
            if not error.reachable:
                silent[host] = f"{item.source.host}: {error.problem}"
            continue
        except HostError as error:  # what it answers is no manifest
            answers[item.name.key] = Answer(problem=str(error).rstrip("."))
            continue
        login = f"{item.source.host}: it asks for a login that only the engine's key can give"
        answers[item.name.key] = Answer(remote, "" if remote else login)
    return answers


def has_moved(model: StoredModel, remote: Remote, version: str) -> tuple[bool, str]:
    """Say whether a registry offers another version than the present one, and what told it.

    The same digest is the same version. Other digests mean another one only when the layers
    differ too: servers before 0.19 store a manifest written anew, and what they have stored stays
    so when they are brought up to date.
    """
    if model.digest in remote.digests:
        return False, BY_DIGEST
    if {layer.digest for layer in model.layers} == {layer.digest for layer in remote.layers}:
        return False, BY_LAYERS
    return True, BY_DIGEST if _release(version) >= AS_SERVED else BY_LAYERS


def to_download(store: Store, remote: Remote) -> int:
    """Return the bytes that a pull brings: what isn't there, less what an earlier one has left."""
    return sum(
        max(0, layer.size - store.resumable(layer.digest))
        for layer in unique(remote.layers)
        if store.blob_state(layer) != PRESENT
    )


def describe_update(
    item: Wanted, store: Store, answer: Answer, version: str, state_dir: str, *, retry: bool
) -> dict[str, Any]:
    """Return what a result says about one declared model.

    Args:
        item: the declared model.
        store: the store, as it was read.
        answer: of its registry.
        version: of the engine; empty when it isn't known.
        state_dir: where updates are remembered.
        retry: whether a version that was gone back from is tried again.
    """
    now = Situation(item.name, store, read_record(state_dir, item.name))
    present, remote = now.present, answer.remote
    moved: bool | None = None
    by = ""
    if present is not None and remote is not None:
        moved, by = has_moved(present, remote, version)
    entry: dict[str, Any] = {
        "name": str(item.name),
        "source": str(item.source),
        "present": present is not None,
        "digest": present.digest if present else "",
        "size_bytes": present.size if present else 0,
        "pinned": bool(item.pin),
        "registry_digest": remote.digests[0] if remote else "",
        "moved": moved,
        "compared_by": by,
        "bytes_to_download": to_download(store, remote) if remote and moved else 0,
        "version": described(now),
    }
    rejected = now.record.rejected
    again = bool(rejected and remote and rejected.digest in remote.digests)
    wanted = bool(moved) and not item.pin and (retry or not again)
    entry["todo"] = _todo(now, wanted)
    entry["reason"] = _reason(item, now, answer, moved, by, again=again and not retry)
    return entry


def counts(entries: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the names of the models that have moved, that are unknown, and that are undecided."""
    listed = list(entries)

    def names(holds: Callable[[dict[str, Any]], bool]) -> list[str]:
        return [entry["name"] for entry in listed if holds(entry)]

    return {
        "moved": names(lambda entry: entry["moved"] is True),
        "unknown": names(lambda entry: entry["moved"] is None),
        "pending": names(lambda entry: entry["todo"] in (JUDGE, GO_BACK)),
        "to_update": names(lambda entry: entry["todo"] == UPDATE),
    }


def _todo(now: Situation, wanted: bool) -> str:
    state = state_of(now)
    if state == RESTORING or (state == PENDING and now.present is None):
        return GO_BACK
    if state == PENDING:
        return JUDGE
    if wanted:
        return UPDATE
    return DROP if now.kept is not None else NOTHING


def _reason(
    item: Wanted, now: Situation, answer: Answer, moved: bool | None, by: str, *, again: bool
) -> str:
    """Say in a part of a sentence how a model stands."""
    told = _on_the_host(item, now)
    if told:
        return told
    if answer.remote is None:
        return f"its registry can't tell: {answer.problem}"
    offered = answer.remote.digests[0][:SHORT]
    if item.pin:
        tail = f"; the registry has {offered}" if moved else ""
        return f"it is pinned to {item.pin[:SHORT]}{tail}"
    if moved:
        rejected = now.record.rejected if again else None
        why = f": {rejected.reason}" if rejected and rejected.reason else ""
        earlier = f", which was gone back from at {rejected.at}{why}" if rejected else ""
        return f"the registry has {offered}{earlier}"
    return _not_moved(now, by, offered)


def _on_the_host(item: Wanted, now: Situation) -> str:
    """Say what outweighs whatever a registry offers; empty when nothing does."""
    state, present, kept = state_of(now), now.present, now.kept
    if state == RESTORING:
        return f"the way back to {now.record.digest[:SHORT]} was broken off"
    if present is None:
        lost = f", and {kept.name} keeps {kept.digest[:SHORT]}" if kept else ""
        corrupt = now.store.corrupt_reason(item.name)
        return (f"its manifest can't be used: {corrupt}" if corrupt else "it is not there") + lost
    if state == PENDING and kept is not None:
        return f"it was updated from {kept.digest[:SHORT]}, and that was not judged"
    return ""


def _not_moved(now: Situation, by: str, offered: str) -> str:
    if by == BY_LAYERS:
        return f"every layer is the registry's, whose manifest has the digest {offered}"
    kept, state = now.kept, state_of(now)
    kept_on = f"; {kept.name} keeps {kept.digest[:SHORT]}" if state == ACCEPTED and kept else ""
    left = "; an update of it was broken off before its pull" if _left(now) else ""
    return f"the registry has the same version{kept_on}{left}"


def _left(now: Situation) -> bool:
    return now.kept is not None and state_of(now) not in (ACCEPTED, RESTORED)


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return tuple(int(part) for part in found.groups()) if found else (0, 0)
