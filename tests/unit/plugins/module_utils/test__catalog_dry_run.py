# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode on stores on disk: it says what the run right after it does, and changes nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from catalog_runs import Host, write
from hypothesis import event, given, settings
from hypothesis import strategies as st
from store_samples import LONG_AGO, blob_path, digest_of, write_blob, write_partial

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import PREVIOUS_SUFFIX
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name

SOURCE = "r:5000/library/one"
KEPT = f"one:latest{PREVIOUS_SUFFIX}"
NAMES = ("one", "two", "x", SOURCE)
STORED = (*NAMES, KEPT)
CONTENTS = (b"first weights", b"second, longer weights", b"third", b"config")
WEIGHTS = CONTENTS[:3]
VERSIONS = ((0,), (0, 1), (2,), (1, 2))  # what a model may consist of
MAYBE = st.sampled_from((False, False, True))
# What goes wrong with a blob; None for nothing. The configuration's content stays as it is: where
# an undeclared model has it, only a run that is to change models reads it, as the engine doesn't
# list that model.
DAMAGE = st.sampled_from((None, None, None, "short", "missing", "flipped"))
CONFIG_DAMAGE = DAMAGE.filter(lambda damage: damage != "flipped")
# What an earlier run left of a blob: a download or a copy that broke off, a blob set aside.
LEFT = st.sampled_from((None, None, None, "begun", "damaged", "copied", "aside"))
# All that a dry run says and the real run says as well, whether it planned or measured it.
SAID = (
    "changed",
    "actions",
    "plan",
    "totals",
    "catalog",
    "undeclared",
    "kept_versions",
    "unasked",
    "unavailable",
    "aside",
    "reclaimed_bytes",
    "reclaimed_apparent_bytes",
    "reclaimed_files",
    "downloaded_bytes",
    "env",
    "diff",
    "msg",
)


@st.composite
def scenes(draw):
    """Draw what a store and a registry hold, and what is declared."""
    versions = st.none() | st.sampled_from(VERSIONS)
    declared = draw(st.lists(st.sampled_from(NAMES), unique=True))
    models = {name: {"name": name, "update": draw(MAYBE)} for name in declared}
    offered = {name: draw(versions) for name in NAMES}
    for name in ("one", "x"):
        if name in models and draw(st.booleans()):
            models[name]["source"] = SOURCE
    others = [name for name in STORED if name not in declared]
    prune = draw(st.booleans())  # what makes a pull fail is drawn only where it goes before that
    left = [draw(LEFT) for _content in CONTENTS]
    return {
        "registry": offered,
        "stored": {name: draw(versions | st.just("unreadable")) for name in STORED},
        "damage": [*(draw(DAMAGE) for _content in WEIGHTS), draw(CONFIG_DAMAGE)],
        "left": ["begun" if what == "damaged" and not prune else what for what in left],
        "orphan": draw(st.booleans()),
        "pinned": draw(st.sets(st.sampled_from(declared))) - {SOURCE} if declared else set(),
        "models": list(models.values()),
        "options": {
            "forbidden": draw(st.lists(st.sampled_from(others), unique=True)) if others else [],
            "exclusive": draw(MAYBE),
            "prune_partials": prune,
            "prune_orphans": draw(st.booleans()),
            "verify": draw(st.sampled_from(("changed", "full"))),
        },
    }


def build(scene, folder):
    """Write a scene to a folder; return its host and the declared models."""
    host = Host(folder)
    for model in ("one", "two"):
        (host.registry / parse_name(model).manifest).unlink()
    for root, models in ((host.registry, scene["registry"]), (host.root, scene["stored"])):
        for name, version in models.items():
            path = root / parse_name(name).manifest
            if version == "unreadable":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("")
            elif version:
                write(root, name, *(WEIGHTS[index] for index in version))
    for content, damage, left in zip(CONTENTS, scene["damage"], scene["left"]):
        _damage(host.root, content, damage)
        _leave(host.root, content, left)
    if scene["orphan"]:
        write_blob(host.root, b"nobody's")
    return host, [_pinned(entry, host, scene["pinned"]) for entry in scene["models"]]


def _damage(root, content, damage):
    path = blob_path(root, content)
    if not path.exists() or damage is None:
        return
    if damage == "missing":
        path.unlink()
        return
    path.write_bytes(content[:-1] if damage == "short" else content.upper())
    os.utime(path, (LONG_AGO, LONG_AGO))


def _leave(root, content, left):
    if left in ("begun", "damaged"):
        write_partial(root, content, 3, "" if left == "damaged" else None)
    elif left:
        name = f"sha256-{digest_of(content)}"
        part = {"copied": f"incoming/{name}.part", "aside": f"aside/{name}"}[left]
        path = root / ".hx" / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[:3] if left == "copied" else b"bad")
        os.utime(path, (LONG_AGO, LONG_AGO))


def _pinned(entry, host, names):
    """Pin a model to what its registry has, where it has something."""
    path = host.registry / parse_name(entry.get("source", entry["name"])).manifest
    if entry["name"] not in names or not path.exists():
        return entry
    return {**entry, "digest": digest_of(path.read_bytes())}


def said(result):
    return {key: result.get(key) for key in SAID}


def files(host):
    """Return all files of store, registry and state folder with size, time and content."""
    found = {}
    for path in sorted(host.tmp.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[str(path)] = (status.st_size, status.st_mtime_ns, content)
    return found


def dry(host, models, options):
    """Make a dry run; it changes nothing."""
    before = files(host)
    result = host.run(*models, check=True, **options)
    assert files(host) == before
    assert not any(outcome["ok"] for outcome in result["outcomes"])
    return result


def carried_out(result):
    """Return what a run did: action, target, and the bytes that came or went."""
    sizes = {(step["action"], step["target"]): step["bytes"] for step in result["plan"]}
    return [
        (
            outcome["action"],
            outcome["target"],
            outcome["bytes"]
            if outcome["action"] in words.DOWNLOADS
            else sizes[outcome["action"], outcome["target"]],
        )
        for outcome in result["outcomes"]
    ]


@settings(deadline=None, max_examples=60)
@given(scenes())
def test_a_dry_run_says_what_the_run_does_and_changes_nothing(scene):
    with tempfile.TemporaryDirectory() as folder:
        host, models = build(scene, Path(folder))
        options = scene["options"]
        predicted = dry(host, models, options)
        result = host.run(*models, **options)
        for step in predicted["plan"]:
            event(step["action"])
        assert said(result) == said(predicted)
        planned = [
            (step["action"], step["target"], step["bytes"])
            for step in predicted["plan"]
            if step["action"] != words.ADOPT
        ]
        assert carried_out(result) == planned
        settled(host, models, options)


def settled(host, models, options):
    """Neither a dry run nor a second real one finds anything to do."""
    again = dry(host, models, options)
    assert (again["changed"], again["downloaded_bytes"], again["reclaimed_files"]) == (False, 0, 0)
    before = files(host)
    result = host.run(*models, **options)
    assert said(result) == said(again)
    assert not [outcome for outcome in result["outcomes"] if outcome["ok"]]
    own = [str(host.root / ".hx" / "lock")]  # it says who held it last
    if options["verify"] == "full":  # when what was read is remembered as well
        own.append(str(host.tmp / "state"))
    assert _without(files(host), own) == _without(before, own)


def _without(found, paths):
    return {path: what for path, what in found.items() if not path.startswith(tuple(paths))}
