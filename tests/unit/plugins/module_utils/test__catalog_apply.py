# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out a plan: what is looked at once more, and failures that stop nothing."""

from __future__ import annotations

import json
import os
import time

import pytest
from catalog_samples import declare

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog as catalog
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_apply as executor
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store

DIGEST = "e" * 64


class Engine:
    """Keeps what it was asked; fails for the models that it is told to."""

    def __init__(self, *failing):
        self.failing = failing
        self.asked = []

    def pull(self, name, *, insecure, on_progress):
        self.asked.append(("pull", str(name), insecure))
        on_progress("pulling manifest", 0, 0)
        on_progress("pulling aabbcc", 1, 2)
        if str(name) in self.failing:
            raise HostError(f"pulling {name} failed: no.")

    def copy(self, source, target):
        self.asked.append(("copy", str(source), str(target)))

    def delete(self, name):
        self.asked.append(("delete", str(name)))

    def prove(self, name):
        self.asked.append(("prove", str(name)))
        return 0.5


@pytest.fixture
def store(tmp_path):
    (tmp_path / "blobs").mkdir()
    path = tmp_path / "blobs" / f"sha256-{DIGEST}-partial"
    path.write_bytes(b"x")
    os.utime(path, (1, 1))
    return tmp_path


def carry_out(root, declaration, engine, disturb=lambda: None, **options):
    seen = read_store(str(root))
    plan = catalog.make_plan(declaration, seen, {}, catalog.Moment(time.time()))
    told = []
    work = executor.Executor(
        seen, declaration, engine, lambda *state: told.append(state), **options
    )
    disturb()
    return work.apply(plan), told


def test_pull_copy_and_prove(store):
    engine = Engine("bad:1")
    declaration = declare(
        {"name": "bad:1"}, {"name": "one", "source": "r:5/l/one:2", "insecure": True}
    )
    outcomes, told = carry_out(store, declaration, engine)
    assert [(found.action, found.target, found.ok) for found in outcomes] == [
        ("prune_partial", f"blobs/sha256-{DIGEST}-partial", True),
        ("pull", "bad:1", False),
        ("pull", "one:latest", True),
    ]
    assert outcomes[1].detail == "pulling bad:1 failed: no."
    assert outcomes[2].proof_s == 0.5
    assert engine.asked == [
        ("pull", "bad:1", False),
        ("pull", "r:5/l/one:2", True),
        ("copy", "r:5/l/one:2", "one:latest"),
        ("delete", "r:5/l/one:2"),
        ("prove", "one:latest"),
    ]
    assert told[-2:] == [
        ("one:latest", "pulling", 1, 2, ""),
        ("one:latest", "proving", 0, 0, "waiting for its first answer"),
    ]


def test_a_source_that_is_declared_too_stays(store):
    engine = Engine()
    declaration = declare("one", {"name": "two", "source": "one"})
    carry_out(store, declaration, engine, prove=False)
    assert [call[0] for call in engine.asked] == ["pull", "pull", "copy"]


def test_a_download_that_goes_on_after_all(store):
    path = store / "blobs" / f"sha256-{DIGEST}-partial"
    outcomes, _told = carry_out(store, declare(), Engine(), lambda: path.write_bytes(b"more"))
    assert [found.ok for found in outcomes] == [False]
    assert "was kept: its download has just gone on" in outcomes[0].detail
    assert path.exists()


def test_a_file_that_went_by_itself(store):
    path = store / "blobs" / f"sha256-{DIGEST}-partial"
    outcomes, _told = carry_out(store, declare(), Engine(), path.unlink)
    assert [found.ok for found in outcomes] == [True]


def test_an_orphan_that_a_model_refers_to_after_all(store):
    blob = store / "blobs" / f"sha256-{DIGEST}"
    blob.write_bytes(b"x")
    manifest = store / parse_name("new").manifest

    def pull_elsewhere():
        manifest.parent.mkdir(parents=True)
        layer = {"digest": f"sha256:{DIGEST}", "size": 1}
        manifest.write_text(json.dumps({"layers": [layer]}))

    outcomes, _told = carry_out(store, declare(prune_orphans=True), Engine(), pull_elsewhere)
    assert [(found.action, found.ok) for found in outcomes][-1] == (words.PRUNE_ORPHAN, False)
    assert blob.exists()


def test_a_forbidden_model_whose_manifest_cannot_be_read(store):
    manifest = store / parse_name("bad").manifest
    manifest.parent.mkdir(parents=True)
    manifest.write_text("")
    engine = Engine()
    outcomes, _told = carry_out(store, declare(forbidden=["bad"]), engine)
    assert all(found.ok for found in outcomes)
    assert engine.asked == []
    assert not manifest.exists()


def test_open_files_are_seen(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with path.open() as stream:
        status = os.fstat(stream.fileno())
        assert (status.st_dev, status.st_ino) in executor.open_inodes()[0]
    assert (status.st_dev, status.st_ino) not in executor.open_inodes()[0]
