# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a plan of the model catalog takes out of a store: models, orphans, downloads, bad blobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_picture import Picture
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    DISCARD,
    PRUNE_ORPHAN,
    PRUNE_PARTIAL,
    REMOVE,
    RESTORE,
    Step,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_staging import same_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    PRESENT,
    Layer,
    StoredFile,
    StoredModel,
)


def remove_steps(picture: Picture) -> tuple[list[Step], list[Step], set[str]]:
    """Plan removals: those for the beginning, those for the end, and which blobs they free.

    Those that share blobs with a download come after it, so that it finds them; but not what is
    left of a pull whose declared model is whole, since that one has all of its blobs.
    """
    store, needed = picture.store, picture.needed
    early: list[Step] = []
    late: list[Step] = []
    freed_blobs: set[str] = set()
    users = Counter(
        digest for model in (*store.models.values(), *store.twins) for digest in _refs(model)
    )
    manifests = {key: same_name(store, key) for key in picture.removed}
    refs = {key: set().union(*map(_refs, found)) for key, found in manifests.items()}
    left = picture.leftovers
    waits = {
        key: left[key].coming if key in left else not refs[key].isdisjoint(needed) for key in refs
    }
    coming = {key: found for key, found in picture.decisions.items() if found.downloads}
    replaced = [store.models[key] for key in coming if key in store.models]
    for key in {found.item.source.key for found in coming.values() if found.by_engine}:
        if waits.get(key):  # nothing but the name is left of it when a pull has gone by that
            replaced += manifests.pop(key)
            refs[key] = set()
    for key in sorted(picture.removed, key=lambda key: (waits[key], key)):
        model, reason = picture.removed[key]
        while waits[key] and replaced:  # by then they have their new blobs
            users.subtract(_refs(replaced.pop()))
        for manifest in manifests.get(key, ()):
            users.subtract(_refs(manifest))
        gone = [
            store.blobs[digest]
            for digest in refs[key]
            if users[digest] <= 0 and digest not in needed and digest in store.blobs
        ]
        freed = sum(file.held for file in gone)
        freed_blobs.update(file.digest for file in gone)
        step = Step(
            REMOVE,
            str(model.name),
            reason,
            freed,
            len(gone),
            model.digest,
            frees=tuple(sorted(file.path for file in gone)),
            freed=freed,
            keeper=str(left[key].keeper) if key in left else "",
        )
        (late if waits[key] else early).append(step)
    return early, late, freed_blobs


def orphan_steps(
    picture: Picture, freed: set[str]
) -> tuple[list[Step], list[Step], list[StoredFile]]:
    """Plan what happens to the blobs that nothing refers to now, or that nothing will refer to.

    While a manifest can't be read and stays so, nobody knows what it refers to: all stay then. They
    do as well while a source that gives no answer may want them, and while somebody downloads: an
    engine takes what it finds for downloaded, and writes the manifest at the end.

    Args:
        picture: what is known.
        freed: the blobs that go with removed models.

    Returns:
        Steps for the beginning, steps for the end, and the orphans that stay.
    """
    if picture.unreadable:
        return [], [], []
    store = picture.store
    used, now = picture.staying | set(picture.needed) | freed, store.referenced()
    spared = (
        not picture.declaration.prune_orphans
        or picture.unknown
        or any(file.inode in picture.moment.busy for file in store.partials)
    )
    early: list[Step] = []
    late: list[Step] = []
    kept: list[StoredFile] = []
    for digest, blob in sorted(store.blobs.items()):
        if digest in used:
            continue
        if spared or picture.in_use(blob):
            kept.append(blob)
        elif digest in now:
            late.append(_file_step(PRUNE_ORPHAN, blob, "its model was replaced"))
        else:
            early.append(_file_step(PRUNE_ORPHAN, blob, "no model refers to it"))
    # What unreadable manifests refer to is known when they are repaired or gone.
    if store.corrupt or picture.healing:
        early, late = [], [replace(step, after=picture.healing) for step in early + late]
    return early, late, kept


def partial_steps(picture: Picture) -> tuple[list[Step], list[Step], list[StoredFile]]:
    """Decide about unfinished downloads and copies, blob by blob.

    One that is going on stays, and so does one that a download of this plan resumes, or may
    resume later when its sources answer again. One that another source makes useless goes when the
    blob is there, since that source may fail.

    Returns:
        Steps for the beginning, steps for the end, and the files that stay and aren't resumed.
    """
    early: list[Step] = []
    late: list[Step] = []
    kept: list[StoredFile] = []
    for by_engine, groups in ((True, picture.pulled), (False, picture.copied)):
        for digest, group in groups.items():
            bringer = picture.bringers.get(digest)
            damaged = any(file.damaged for file in group)
            fatal = damaged and digest in picture.pullable
            if bringer and bringer.by_engine == by_engine and not damaged:
                continue  # resumed
            wanted = bringer is None and picture.unknown and not damaged
            spared = wanted or not picture.declaration.prune_partials
            if spared or _going_on(picture, group, fatal=fatal):
                kept += group
            elif fatal:
                early += [
                    _file_step(PRUNE_PARTIAL, file, "a pull would fail on it") for file in group
                ]
            elif bringer:
                why = f"its blob comes from another source, {bringer.offers[0].source}"
                late += [_file_step(PRUNE_PARTIAL, file, why, after=(digest,)) for file in group]
            else:
                why, healing = "a download that nobody finishes", picture.healing
                steps = [_file_step(PRUNE_PARTIAL, file, why, after=healing) for file in group]
                (late if healing else early).extend(steps)
    return early, late, kept


def _going_on(picture: Picture, files: Sequence[StoredFile], *, fatal: bool) -> bool:
    """Say whether somebody downloads it; one that would fail is only spared when that is sure."""
    if fatal and picture.moment.sees_all:
        return any(file.inode in picture.moment.busy for file in files)
    return any(picture.in_use(file) for file in files)


def aside_steps(picture: Picture) -> tuple[list[Step], list[Step]]:
    """Decide about the bad blobs that a repair has set aside and that its end left there.

    One that no known manifest refers to stays while there are manifests that can't be read.

    Returns:
        Steps for the beginning and steps for the end.
    """
    early: list[Step] = []
    late: list[Step] = []
    store = picture.store
    staying, now = picture.staying, store.referenced()
    bad = {layer.digest for layer in _known_layers(picture) if store.blob_state(layer) != PRESENT}
    for digest, file in sorted(store.aside.items()):
        blob = store.blobs.get(digest)
        if digest in picture.bringers:
            late.append(_file_step(DISCARD, file, "a good one comes", after=(digest,)))
        elif blob and digest not in bad and not blob.bad:
            early.append(_file_step(DISCARD, file, "a good one is in place", after=(digest,)))
        elif digest in staying:
            if not blob:
                early.append(_file_step(RESTORE, file, "its repair was cut off", frees=False))
        elif not picture.unreadable:
            steps = late if digest in now or store.corrupt else early
            steps.append(_file_step(DISCARD, file, "no model will refer to it"))
    return early, late


def _known_layers(picture: Picture) -> Iterable[Layer]:
    wanted = picture.store.aside
    for model in (*picture.store.models.values(), *picture.store.twins):
        yield from (layer for layer in model.layers if layer.digest in wanted)
    yield from (layer for layer in picture.needed.values() if layer.digest in wanted)


def _file_step(
    action: str, file: StoredFile, reason: str, *, after: tuple[str, ...] = (), frees: bool = True
) -> Step:
    return Step(
        action,
        file.path,
        reason,
        file.held,
        1,
        file.digest,
        frees=(file.path,) if frees else (),
        freed=file.held if frees else 0,
        after=after,
    )


def _refs(model: StoredModel) -> set[str]:
    return {layer.digest for layer in model.layers}
