# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The audit of a store: what is wrong with it, in sentences and as verdicts; pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized

from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    MANIFESTS,
    PRESENT,
    WRONG_SIZE,
    StoredFile,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_access import (
    Access,
    links,
    wrong_access,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_info import Inventory, Row
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    WARN,
    Verdict,
    judge,
)

SHOWN = 20  # sentences of one kind
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_NAMED = 3  # things named in a sentence
_SHORT = 12  # digits of a digest that people read
_NAME_PARTS = 4  # of a manifest's path: host, namespace, model and tag


class Audit:
    """What is wrong with a store.

    Args:
        inventory: what it holds.
        access: whom its files have to belong to.
        checked: whether its blobs were to be verified, so that one that wasn't is worth a word.

    Attributes:
        access: what belongs to others or has a wrong mode.
        links: the symbolic links.
        orphans: the blobs that no model refers to and nobody works on.
        unverified: the blobs that look right, but were not read since they last changed.
        stopped: the unfinished downloads that nobody goes on with.
        aside: the blobs that a repair has set aside, unless a run is at work on the store.
        copies: the unfinished copies, likewise.
    """

    def __init__(self, inventory: Inventory, access: Access, *, checked: bool = False) -> None:
        self._inventory = inventory
        self._store = inventory.store
        self._checked = checked
        self.access = wrong_access(inventory.seen.entries, access)
        self.links = links(inventory.seen.entries)
        self.orphans = [blob for blob in inventory.orphans if not inventory.seen.active([blob])]
        self.orphans.sort(key=lambda blob: (-blob.held, blob.path))
        self.stopped = [row for row in inventory.partials() if not row["going_on"]]
        idle = not inventory.seen.holder
        self.aside = list(self._store.aside.values()) if idle else []
        self.copies = list(self._store.incoming) if idle else []
        self.unverified = [
            blob
            for digest, blob in self._store.blobs.items()
            if inventory.state(digest) == PRESENT and digest not in inventory.seen.verified
        ]

    def verdicts(self) -> list[Verdict]:
        """Judge the store, one verdict for each kind of thing that can be wrong."""
        store, inventory = self._store, self._inventory
        if not store.exists:
            return [Verdict("store_exists", FAIL, store.root, False, True)]
        missing, bad = inventory.missing, inventory.bad
        held = human_size(sum(blob.held for blob in self.orphans))
        alien = [*store.stray, *store.foreign, *(row for row in self.links if row["odd"])]
        found = [
            self._none("manifests", store.corrupt, "manifests that can't be used", FAIL),
            self._none(
                "blobs",
                [*missing, *bad],
                f"{len(missing)} blobs missing, {len(bad)} with a wrong size or content",
                FAIL,
            ),
            self._none("orphans", self.orphans, f"blobs of no model, which hold {held}"),
            self._none("partials", self.stopped, "downloads that stopped or can't go on"),
            self._none("foreign", alien, "files that are neither manifest nor blob, and links"),
            self._none(
                "names",
                [*store.twins, *store.old_names],
                "manifests of one model, and blobs named as by old servers",
            ),
            self._none("leftovers", [*self.aside, *self.copies], "files of unfinished repairs"),
            self._none("access", self.access, "files and directories with a wrong owner or mode"),
        ]
        if self._checked:
            evidence = "blobs that were not read in full since they last changed"
            found.append(self._none("verified", self.unverified, evidence))
        return found

    def _none(self, check: str, things: Sized, evidence: str, otherwise: str = WARN) -> Verdict:
        count = len(things)
        return judge(
            f"store_{check}",
            count == 0,
            subject=self._store.root,
            value=count,
            limit=0,
            evidence=evidence,
            otherwise=otherwise,
        )

    def findings(self) -> list[str]:
        """Say in sentences what is wrong, the gravest first."""
        if not self._store.exists:
            return [f"{self._store.root} isn't there."]
        kinds = (
            self._manifests(),
            self._missing(),
            self._bad(),
            self._downloads(),
            self._orphans(),
            self._strays(),
            self._foreign(),
            self._names(),
            self._leftovers(),
            self._links(),
            self._access(),
            self._unverified(),
        )
        return [text for kind in kinds for text in _capped(kind)]

    def _manifests(self) -> list[str]:
        return [
            f"{path} can't be used: {why}. The engine doesn't list the model, and cleans nothing up"
            " when it starts. A pull replaces it."
            for path, why in self._store.corrupt.items()
        ]

    def _missing(self) -> list[str]:
        return [
            f"Blob sha256-{row['digest'][:_SHORT]} ({human_size(row['size_bytes'])}) of"
            f" {_named(row['models'])} is missing{_tail(self._inventory.detail(row['digest']))}."
            f" {_effect(row['media_type'])}"
            for row in self._inventory.missing_blobs()
        ]

    def _bad(self) -> list[str]:
        return [self._bad_blob(blob) for blob in self._inventory.bad]

    def _bad_blob(self, blob: StoredFile) -> str:
        inventory = self._inventory
        state, word = inventory.state(blob.digest), "corrupt"
        if state == WRONG_SIZE:
            word = "cut" if blob.size < inventory.layers[blob.digest].size else "of a wrong size"
        whose = _named(inventory.users.get(blob.digest, [])) or "no model"
        return (
            f"{blob.path} of {whose} is {word}{_tail(inventory.detail(blob.digest))}."
            " The engine takes it for whole, and a pull doesn't replace it."
        )

    def _downloads(self) -> list[str]:
        return [_download(row) for row in self.stopped]

    def _orphans(self) -> list[str]:
        if not self.orphans:
            return []
        held = human_size(sum(blob.held for blob in self.orphans))
        maybe = ", unless to one whose manifest can't be used" if self._store.corrupt else ""
        return [
            f"{_counted(self.orphans, 'blob')} ({held}) in all belong to no model{maybe}:"
            f" {_named([blob.path for blob in self.orphans])}."
        ]

    def _strays(self) -> list[str]:
        return [
            f"{path} is no manifest"
            + (", and keeps the engine from cleaning up when it starts." if _deep(path) else ".")
            for path in self._store.stray
        ]

    def _foreign(self) -> list[str]:
        return _group(
            "no blob, which the engine removes when it starts unless OLLAMA_NOPRUNE is set",
            [file.path for file in self._store.foreign],
        )

    def _names(self) -> list[str]:
        twins = [
            f"{model.path} differs from {self._store.models[model.name.key].path} in upper and"
            " lower case only. The engine takes both for the same model."
            for model in self._store.twins
        ]
        old = [file.path for file in self._store.old_names]
        return twins + _group("named as by old servers, which new ones put right at start", old)

    def _leftovers(self) -> list[str]:
        aside = [file.path for file in self.aside]
        copies = [file.path for file in self.copies]
        return [
            *_group("set aside by a repair, which the next run of model_catalog ends", aside),
            *_group("an unfinished copy, which the next run of model_catalog goes on with", copies),
        ]

    def _links(self) -> list[str]:
        return [
            f"{row['path']} is a link to {row['target']}"
            + (", which isn't there." if row["dangling"] else ".")
            for row in self.links
            if row["odd"]
        ]

    def _access(self) -> list[str]:
        groups: dict[str, list[str]] = {}
        for row in self.access:
            groups.setdefault(row["problem"], []).append(row["path"])
        return [f"Of {_named(paths)} {problem}." for problem, paths in groups.items()]

    def _unverified(self) -> list[str]:
        if not self._checked:
            return []
        return _group("not read in full yet", [blob.path for blob in self.unverified])


def _capped(texts: Sequence[str]) -> Iterable[str]:
    more = len(texts) - SHOWN
    return [*texts[:SHOWN], f"There are {more} more of this kind."] if more > 0 else texts


def _group(what: str, paths: Sequence[str]) -> list[str]:
    return [f"{_named(paths)}: {what}."] if paths else []


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _counted(things: Sized, noun: str) -> str:
    return f"{len(things)} {noun}" + ("" if len(things) == 1 else "s")


def _tail(detail: str) -> str:
    return f": {detail}" if detail else ""


def _effect(media_type: str) -> str:
    if media_type == CONFIG_TYPE:
        return "Without it the engine doesn't list the model."
    return "The engine lists the model as if it were whole."


def _deep(path: str) -> bool:
    """Whether a stray file stands where the engine looks for manifests."""
    return len(path[len(MANIFESTS) + 1 :].split("/")) == _NAME_PARTS


def _download(row: Row) -> str:
    subject = f"The download of sha256-{row['digest'][:_SHORT]}"
    whose = f" for {_named(row['models'])}" if row["models"] else ""
    if row["damaged"]:
        return f"{subject}{whose} has a damaged record: pulls fail with EOF until its files go."
    done = human_size(row["completed_bytes"])
    of = f" of {human_size(row['size_bytes'])}" if row["size_bytes"] else ""
    return f"{subject}{whose} stopped {_age(row['age_s'])} ago at {done}{of}."


def _age(seconds: int) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return _counted(range(seconds // length), unit)
    return _counted(range(seconds), "second")
