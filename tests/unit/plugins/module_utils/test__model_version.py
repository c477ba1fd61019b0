# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeping a version of a model, going back to it, and what a cut-off leaves."""

from __future__ import annotations

import contextlib
import json
import os

import pytest
from model_version_samples import AT, NAME, CutOffError, DiskEngine, DiskStore

from ansible_collections.hx_infra.llm.plugins.module_utils import _model_version_record as records
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_version_run import (
    VersionIo,
    run_version,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import StoreLock

KEPT = f"{NAME}-hx-previous"
REJECTED = f"{NAME}-hx-rejected"
OLD, NEW, NEWER = ("old", "template"), ("new", "template"), ("newer", "template")


class Host:
    """A host with a store and an engine."""

    def __init__(self, folder):
        self.store = DiskStore(folder / "store")
        self.engine = DiskEngine(self.store)
        self.state_dir = str(folder / "state")

    def run(self, state, check=False, engine=None, **options):
        params = {
            "name": NAME,
            "state": state,
            "store": str(self.store.root),
            "state_dir": self.state_dir,
            "offered": "",
            "reason": "",
            "verify": True,
            "prove": True,
            "remember": True,
            **options,
        }
        result = {}
        run_version(params, VersionIo(engine or self.engine, lambda: AT), check, result)
        return result

    def record(self):
        return records.read_record(self.state_dir, parse_name(NAME))

    def files(self):
        found = {}
        for root in (str(self.store.root), self.state_dir):
            for folder, _folders, names in os.walk(root):
                for name in names:
                    path = os.path.join(folder, name)
                    with open(path, "rb") as stream:
                        found[path] = stream.read()
        return found


@pytest.fixture
def host(tmp_path):
    found = Host(tmp_path)
    found.store.put(NAME, *OLD)
    return found


def updated(host):
    """Keep the old version, pull the new one."""
    host.run("kept")
    return host.store.put(NAME, *NEW)


def test_kept_is_the_same_digest_under_another_name(host):
    digest = host.store.digest(NAME)
    result = host.run("kept", offered="f" * 64)
    assert result["changed"]
    assert result["actions"] == [f"Keep {NAME} ({digest[:12]}) as {KEPT}"]
    assert result["plan"] == [{"action": "copy", "target": KEPT, "source": NAME, "digest": digest}]
    assert host.store.digest(KEPT) == digest
    assert host.store.texts() == set(OLD)  # no further blob
    version = result["version"]
    assert (version["state"], version["kept_as"], version["kept_whole"]) == ("kept", KEPT, True)
    assert (version["since"], version["offered"]) == (AT, "f" * 64)
    again = host.run("kept", offered="f" * 64)
    assert (again["changed"], again["actions"], again["plan"]) == (False, [], [])
    assert again["diff"]["before"] == again["diff"]["after"]


def test_the_way_back_gives_the_old_digest_and_leaves_nothing_of_the_new_version(host):
    old = host.store.digest(NAME)
    new = updated(host)
    host.engine.in_memory[parse_name(NAME).key] = new
    result = host.run("restored", reason="slower by 31 %")
    assert result["actions"] == [
        f"Go back to {old[:12]} of {NAME}, which is {new[:12]} now",
        f"Remove {REJECTED} ({new[:12]}), the version that was given up",
    ]
    assert host.store.digest(NAME) == old
    assert host.store.names() == [NAME, KEPT]
    assert host.store.texts() == set(OLD)
    assert host.engine.proven == [NAME]
    assert result["version"]["state"] == "restored"
    assert result["version"]["rejected"] == {"digest": new, "at": AT, "reason": "slower by 31 %"}
    assert not host.run("restored")["changed"]
    assert host.run("dropped")["changed"]
    assert host.store.names() == [NAME]
    assert host.record().rejected.digest == new
    assert not host.run("dropped")["changed"]


@pytest.mark.parametrize("changes", range(4))
def test_a_version_that_is_not_to_be_remembered_can_be_tried_again(host, changes):
    old = host.store.digest(NAME)
    updated(host)
    host.run("restored", reason="slower")
    host.run("dropped")
    barred = host.record().rejected
    host.run("kept")
    host.store.put(NAME, *NEWER)
    with contextlib.suppress(CutOffError):
        engine = DiskEngine(host.store, changes)
        host.run("restored", engine=engine, reason="the host was lost", remember=False)
    host.run("restored")  # what completes it says nothing of that
    assert host.store.digest(NAME) == old
    assert host.record().rejected == barred


def test_an_accepted_version_stays_and_the_earlier_one_can_go(host):
    new = updated(host)
    result = host.run("accepted")
    assert result["actions"] == [f"Accept {new[:12]} of {NAME}"]
    assert host.store.names() == [NAME, KEPT]
    assert not host.run("accepted")["changed"]
    host.run("dropped")
    assert host.store.names() == [NAME]
    assert host.store.texts() == set(NEW)
    assert not os.path.exists(records.record_path(host.state_dir, parse_name(NAME)))
    assert not host.run("accepted")["changed"]  # there is nothing to decide


def test_an_accepted_update_can_be_taken_back_as_long_as_the_earlier_version_is_kept(host):
    old = host.store.digest(NAME)
    updated(host)
    host.run("accepted")
    host.run("restored")
    assert host.store.digest(NAME) == old


def test_the_next_update_takes_the_place_of_an_accepted_one(host):
    new = updated(host)
    host.run("accepted")
    result = host.run("kept")
    assert [step["action"] for step in result["plan"]] == ["delete", "copy"]
    assert host.store.digest(KEPT) == new
    assert host.store.texts() == set(NEW)


def test_what_was_not_judged_is_neither_kept_over_nor_dropped(host):
    updated(host)
    for state, words in (("kept", "was not judged"), ("dropped", "was not accepted")):
        with pytest.raises(HostError, match=words):
            host.run(state)
    host.store.put(NAME, *NEWER)
    with pytest.raises(HostError, match="was not judged"):
        host.run("kept")


def test_the_last_version_is_not_dropped(host):
    host.run("kept")
    (host.store.root / parse_name(NAME).manifest).unlink()
    for state in ("dropped", "kept", "accepted"):
        with pytest.raises(HostError, match="not there"):
            host.run(state)
    host.run("restored")
    assert host.store.names() == [NAME, KEPT]


def test_a_record_that_is_lost_or_damaged_counts_as_not_judged(host):
    old = host.store.digest(NAME)
    updated(host)
    path = records.record_path(host.state_dir, parse_name(NAME))
    with open(path, "w", encoding="utf-8") as stream:
        stream.write('{"format": 1, "state": "accepted"')
    with pytest.raises(HostError, match="was not accepted"):
        host.run("dropped")
    host.run("restored")
    assert host.store.digest(NAME) == old


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"model": "other:1b"},
        {"state": "odd"},
        {"digest": "xyz"},
        {"rejected": {"digest": "f" * 64, "odd": 1}},
        {"rejected": []},
    ],
)
def test_a_record_of_something_else_is_none(host, change):
    host.run("kept")
    path = records.record_path(host.state_dir, parse_name(NAME))
    with open(path, encoding="utf-8") as stream:
        content = json.load(stream)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({**content, **change}, stream)
    assert host.record() == records.Record()


def test_a_record_survives_being_written_and_read(host):
    record = records.Record(
        records.RESTORING, "a" * 64, AT, "b" * 64, records.Rejected("c" * 64, AT, "why")
    )
    name = parse_name(f"registry.example.com:5000/{'n' * 70}/{'m' * 70}:{'t' * 60}")
    records.write_record(host.state_dir, name, record)
    path = records.record_path(host.state_dir, name)
    assert records.read_record(host.state_dir, name) == record
    assert len(os.path.basename(path)) < 255
    assert os.stat(path).st_mode & 0o777 == 0o600
    records.write_record(host.state_dir, name, records.Record())
    assert not os.path.exists(path)


def test_a_link_in_the_place_of_a_record_is_refused(host, tmp_path):
    path = records.record_path(host.state_dir, parse_name(NAME))
    os.makedirs(os.path.dirname(path))
    os.symlink(tmp_path, path)
    with pytest.raises(HostError, match="can't be read"):
        host.run("kept")


def test_blobs_that_are_not_whole_are_refused(host):
    blob = host.store.blob("old")
    blob.write_text("ol")
    with pytest.raises(HostError, match=r"can't be kept: its blob sha256-[0-9a-f]{12} is wrong"):
        host.run("kept")
    blob.write_text("bad")  # as long as it has to be
    with pytest.raises(HostError, match=r"can't be kept: its blob sha256-[0-9a-f]{12} is corrupt"):
        host.run("kept")
    host.run("kept", verify=False)
    host.store.put(NAME, *NEW)
    with pytest.raises(HostError, match="can't be restored"):
        host.run("restored")
    assert not host.run("restored", check=True, verify=False).get("failed")
    blob.unlink()
    with pytest.raises(HostError, match=r"can't be restored: .* is missing"):
        host.run("restored", verify=False)


def test_what_is_not_there_is_refused(host):
    with pytest.raises(HostError, match="no version of tiny:1b is kept"):
        host.run("restored")
    with pytest.raises(HostError, match="other:1b is not there, wanted a version to keep"):
        host.run("kept", name="other:1b")
    with pytest.raises(HostError, match="is not there, wanted the one with"):
        host.run("kept", store=str(host.store.root / "nowhere"))


@pytest.mark.parametrize("name", [KEPT, REJECTED, "tiny:" + "t" * 75])
def test_a_name_that_can_not_have_a_kept_version_is_refused(host, name):
    with pytest.raises(HostError, match=r"wanted the model's own name|wanted at most 68"):
        host.run("kept", name=name)


def test_kept_versions_are_told_from_undeclared_models():
    listed = [NAME, KEPT, "Other:2b-HX-Previous", "third:1b-hx-previous", "x-hx-previous"]
    found = records.kept_versions(listed, [NAME, "other:2b"])
    assert found == {KEPT, "Other:2b-HX-Previous"}


def test_check_mode_predicts_and_changes_nothing(host):
    for prepare, state in (
        (lambda: None, "kept"),
        (lambda: updated(host), "restored"),
        (lambda: None, "accepted"),
        (lambda: host.run("accepted"), "dropped"),
    ):
        prepare()
        before = host.files()
        planned = host.run(state, check=True)
        assert host.files() == before, state
        if state == "restored":
            continue  # a real run would end what the others go on from
        done = host.run(state)
        for key in ("changed", "actions", "plan", "diff"):
            assert planned[key] == done[key], (state, key)


def test_an_engine_that_serves_another_store_is_found_out(host):
    host.engine.deaf = True
    with pytest.raises(HostError, match="not there after the engine was asked"):
        host.run("kept")


def test_a_store_that_somebody_works_on_is_left_alone(host):
    with StoreLock(str(host.store.root), "a pull"):
        for check in (False, True):
            with pytest.raises(HostError, match="another run works on the model store"):
                host.run("kept", check=check)
    host.run("kept")


@pytest.mark.parametrize("changes", range(4))
def test_a_way_back_that_was_cut_off_anywhere_is_completed(host, changes):
    old = host.store.digest(NAME)
    new = updated(host)
    with_end = DiskEngine(host.store, changes)
    try:
        host.run("restored", engine=with_end, reason="slower")
        assert changes >= 3
    except CutOffError:
        assert host.record().state == records.RESTORING
        with pytest.raises(HostError):
            host.run("accepted")
    result = host.run("restored")
    assert host.store.digest(NAME) == old
    assert host.store.names() == [NAME, KEPT]
    assert host.store.texts() == set(OLD)
    assert result["version"]["rejected"] == {"digest": new, "at": AT, "reason": "slower"}


@pytest.mark.parametrize("changes", range(3))
def test_a_replacement_of_a_kept_version_that_was_cut_off_is_completed(host, changes):
    new = updated(host)
    host.run("accepted")
    try:
        host.run("kept", engine=DiskEngine(host.store, changes))
        assert changes >= 2
    except CutOffError:
        pass
    host.run("kept")
    assert host.store.digest(KEPT) == new
    assert host.record().state == records.PENDING
