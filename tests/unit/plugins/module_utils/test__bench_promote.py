# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import threading

import pytest
from bench_samples import good, measured, sample

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_promote as bench
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_baselines import (
    Identity,
    file_name,
    read_baseline,
    record_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_metrics import metrics_of
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


def record(model="m", ttft=100.0, **identity):
    run = measured(*[sample(number, ttft=ttft) for number in range(5)])
    validity = {"state": "VALID", "reasons": []}
    return record_of(run, metrics_of(run), validity, Identity(model, **identity))


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "perf" / "baselines")


def tree(directory):
    """Every file below a directory with its content."""
    return {
        os.path.relpath(os.path.join(folder, name), directory): open(
            os.path.join(folder, name), "rb"
        ).read()
        for folder, _folders, names in os.walk(directory)
        for name in names
    }


def ttft(directory, name, model="m"):
    return [found.values["ttft_ms"][0] for found in read_baseline(directory, name, model)]


def test_what_setting_would_refuse_is_known_before(directory):
    labels = ["1 at once", "4 at once"]
    assert bench.labels_to_replace(directory, "release", "m", labels, replace=False) == []
    bench.set_baseline(directory, "release", [record("m")])
    with pytest.raises(HostError, match=r"another measurement of m \(1 at once\)"):
        bench.labels_to_replace(directory, "release", "m", labels, replace=False)
    assert bench.labels_to_replace(directory, "release", "m", labels, replace=True) == labels[:1]
    assert bench.labels_to_replace(directory, "release", "n", labels, replace=False) == []
    with pytest.raises(HostError, match="wanted a name without"):
        bench.labels_to_replace(directory, "a.previous", "m", labels, replace=True)


def test_setting_writes_what_check_mode_predicts(directory):
    records = [record("m"), record("m", concurrency=4), record("hub/n")]
    predicted = bench.set_baseline(directory, "release", records, check_mode=True)
    assert not os.path.exists(os.path.dirname(directory))
    done = bench.set_baseline(directory, "release", records)
    assert done == predicted
    assert done["changed"]
    assert done["actions"] == [
        "set baseline release of m (1 at once)",
        "set baseline release of m (4 at once)",
        "set baseline release of hub/n (1 at once)",
    ]
    assert done["plan"][2] == {
        "action": "set_baseline",
        "target": "hub/n",
        "path": os.path.join(directory, "release", "hub%2Fn.json"),
        "baseline": "release",
        "stage": "1 at once",
    }
    assert done["diff"]["before"] == ""
    assert len(done["diff"]["after"].splitlines()) == 3
    assert sorted(tree(directory)) == ["release/hub%2Fn.json", "release/m.json"]
    assert len(read_baseline(directory, "release", "m")) == 2


def test_setting_the_same_again_changes_nothing(directory):
    bench.set_baseline(directory, "release", [record()])
    before = os.stat(os.path.join(directory, "release", "m.json")).st_ino
    again = bench.set_baseline(directory, "release", [record()])
    assert (again["changed"], again["actions"], again["plan"]) == (False, [], [])
    assert again["diff"]["before"] == again["diff"]["after"] != ""
    assert os.stat(os.path.join(directory, "release", "m.json")).st_ino == before


@pytest.mark.parametrize("check_mode", [True, False])
def test_another_measurement_is_not_overwritten_unless_told(directory, check_mode):
    bench.set_baseline(directory, "release", [record()])
    before = tree(directory)
    new = [record("n"), record(ttft=50.0)]
    with pytest.raises(HostError, match=r"release has another measurement of m \(1 at once\)"):
        bench.set_baseline(directory, "release", new, check_mode=check_mode)
    assert tree(directory) == before  # nothing of n either
    done = bench.set_baseline(directory, "release", new, replace=True, check_mode=check_mode)
    assert done["actions"][1] == "replace baseline release of m (1 at once)"
    assert ttft(directory, "release") == ([100.0] if check_mode else [50.0])


def test_replacing_one_stage_keeps_the_others(directory):
    bench.set_baseline(directory, "release", [record(), record(concurrency=4)])
    bench.set_baseline(directory, "release", [record(ttft=50.0)], replace=True)
    assert sorted(ttft(directory, "release")) == [50.0, 100.0]


def test_a_damaged_file_is_replaced_only_when_told(directory):
    bench.set_baseline(directory, "release", [record()])
    path = os.path.join(directory, "release", "m.json")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("{")
    with pytest.raises(HostError, match="is no baseline"):
        bench.set_baseline(directory, "release", [record()])
    assert bench.set_baseline(directory, "release", [record()], replace=True)["changed"]
    assert ttft(directory, "release") == [100.0]


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", ".hidden", "x" * 65, "a b", "r.previous", "r.withdrawn", "a\n"]
)
def test_names_that_are_none_are_refused(directory, name):
    with pytest.raises(HostError, match="wanted"):
        bench.set_baseline(directory, name, [record()])
    with pytest.raises(HostError, match="wanted"):
        bench.promote_baseline(directory, "release", name)
    assert not os.path.exists(directory)


def test_a_link_in_a_baselines_place_is_refused(directory, tmp_path):
    os.makedirs(directory)
    os.symlink(tmp_path, os.path.join(directory, "release"))
    with pytest.raises(HostError, match="is no directory"):
        bench.set_baseline(directory, "release", [record()])
    assert not (tmp_path / "m.json").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"file/baselines cannot be written"):
        bench.set_baseline(str(tmp_path / "file" / "baselines"), "release", [record()])


def test_writers_at_the_same_time_lose_nothing(directory):
    threads = [
        threading.Thread(
            target=bench.set_baseline,
            args=(directory, "release", [record(concurrency=number)]),
        )
        for number in range(1, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_baseline(directory, "release", "m")
    assert sorted(one.identity.concurrency for one in found) == list(range(1, 9))


@pytest.fixture
def promoted(directory):
    """A release of models m and old, and a candidate of m and new."""
    bench.set_baseline(directory, "release", [record(), record("old")])
    bench.set_baseline(directory, "candidate", [record(ttft=50.0), record("new")])
    return directory


def test_promoting_keeps_the_old_one_as_check_mode_predicts(promoted):
    before = tree(promoted)
    predicted = bench.promote_baseline(promoted, "candidate", "release", check_mode=True)
    assert tree(promoted) == before
    done = bench.promote_baseline(promoted, "candidate", "release")
    assert done == predicted
    assert done["actions"] == [
        "keep baseline release as release.previous",
        "promote m from baseline candidate to release",
        "promote new from baseline candidate to release",
        "drop old from baseline release: candidate has none",
    ]
    assert done["plan"][0]["path"] == os.path.join(promoted, "release.previous")
    assert done["plan"][1]["path"] == os.path.join(promoted, "release", "m.json")
    assert "TTFT 100.00 ms" in done["diff"]["before"]
    assert "TTFT 50.00 ms" in done["diff"]["after"]
    after = tree(promoted)
    for file in ("m.json", "new.json"):
        assert after[f"release/{file}"] == after[f"candidate/{file}"] == before[f"candidate/{file}"]
    for file in ("m.json", "old.json"):
        assert after[f"release.previous/{file}"] == before[f"release/{file}"]
    assert len(after) == 6
    assert sorted(os.listdir(promoted)) == ["candidate", "release", "release.previous"]


def test_promoting_again_changes_nothing(promoted):
    bench.promote_baseline(promoted, "candidate", "release")
    before = tree(promoted)
    again = bench.promote_baseline(promoted, "candidate", "release")
    assert (again["changed"], again["plan"]) == (False, [])
    assert tree(promoted) == before


def test_promoting_to_a_new_name_keeps_nothing(promoted):
    done = bench.promote_baseline(promoted, "candidate", "first")
    assert [step["action"] for step in done["plan"]] == ["promote_baseline"] * 2
    assert bench.names_in(promoted) == ["candidate", "first", "release"]


def test_the_way_back_loses_nothing_and_doing_it_twice_is_doing_it_once(promoted):
    bench.promote_baseline(promoted, "candidate", "release")
    back = bench.promote_baseline(promoted, "release.previous", "release")
    assert back["actions"][0] == "keep baseline release as release.withdrawn"
    assert ttft(promoted, "release") == [100.0]
    assert ttft(promoted, "release.withdrawn") == [50.0]
    assert not bench.promote_baseline(promoted, "release.previous", "release")["changed"]


def test_only_the_latest_previous_one_is_kept(promoted):
    bench.promote_baseline(promoted, "candidate", "release")
    bench.set_baseline(promoted, "candidate", [record(ttft=25.0)], replace=True)
    bench.promote_baseline(promoted, "candidate", "release")
    assert ttft(promoted, "release") == [25.0]
    assert ttft(promoted, "release.previous") == [50.0]
    assert read_baseline(promoted, "release.previous", "old") == []


def test_what_is_not_there_cannot_be_promoted(promoted):
    with pytest.raises(HostError, match=r"no baseline gone.*There are: candidate, release"):
        bench.promote_baseline(promoted, "gone", "release")
    with pytest.raises(HostError, match="over itself"):
        bench.promote_baseline(promoted, "release", "release")


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_damaged_baseline_is_not_promoted(promoted, check_mode):
    with open(os.path.join(promoted, "candidate", "m.json"), "w", encoding="utf-8") as stream:
        stream.write("{}")
    before = tree(promoted)
    with pytest.raises(HostError, match=r"candidate/m.json is no baseline"):
        bench.promote_baseline(promoted, "candidate", "release", check_mode=check_mode)
    assert tree(promoted) == before


def test_a_damaged_baseline_can_be_replaced_and_is_kept_as_it_is(promoted):
    with open(os.path.join(promoted, "release", "m.json"), "w", encoding="utf-8") as stream:
        stream.write("{}")
    bench.promote_baseline(promoted, "candidate", "release")
    assert tree(promoted)["release.previous/m.json"] == b"{}"


@pytest.mark.parametrize("folder", ["release", "release.previous", "candidate"])
@pytest.mark.parametrize("check_mode", [True, False])
def test_other_files_are_not_swept_away(promoted, folder, check_mode):
    os.makedirs(os.path.join(promoted, folder), exist_ok=True)
    with open(os.path.join(promoted, folder, "notes.txt"), "w", encoding="utf-8") as stream:
        stream.write("mine")
    before = tree(promoted)
    with pytest.raises(HostError, match=r"notes.txt is no file of a baseline"):
        bench.promote_baseline(promoted, "candidate", "release", check_mode=check_mode)
    assert tree(promoted) == before


def test_a_run_that_was_killed_is_finished_by_the_next(promoted):
    before = tree(promoted)
    # Killed after the old one was kept, with an unfinished copy of the new one.
    os.makedirs(os.path.join(promoted, ".release.hx-new"))
    bench._put_directory(
        os.path.join(promoted, "release.previous"),
        {"m.json": before["release/m.json"], "old.json": before["release/old.json"]},
    )
    with open(os.path.join(promoted, "release", ".m.json.hx-new"), "wb") as stream:
        stream.write(b"half")
    bench.promote_baseline(promoted, "candidate", "release")
    assert ttft(promoted, "release") == [50.0]
    assert ttft(promoted, "release.previous") == [100.0]
    assert sorted(os.listdir(promoted)) == ["candidate", "release", "release.previous"]


def test_without_an_exchange_of_names_it_works_too(promoted, monkeypatch):
    def missing(first, second):
        raise OSError(errno.EINVAL, "no exchange")

    monkeypatch.setattr(bench, "exchange", missing)
    bench.promote_baseline(promoted, "candidate", "release")
    assert ttft(promoted, "release") == [50.0]
    assert ttft(promoted, "release.previous") == [100.0]
    assert sorted(os.listdir(promoted)) == ["candidate", "release", "release.previous"]


def test_a_full_disk_leaves_the_old_baseline(promoted, monkeypatch):
    def full(path, data, mode=0o644):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bench, "write_atomic", full)
    with pytest.raises(HostError, match=r"cannot be written: .*No space left"):
        bench.promote_baseline(promoted, "candidate", "release")
    assert ttft(promoted, "release") == [100.0]


def test_the_default_directory_is_beside_the_first_baselines():
    assert bench.directory_of("/opt/perf/baseline.csv") == "/opt/perf/baselines"


def test_names_of_a_directory_that_is_not_there(directory):
    assert bench.names_in(directory) == []


def test_setting_needs_no_other_samples_than_those_of_a_run(directory):
    run = good()
    one = record_of(run, metrics_of(run), {"state": "VALID", "reasons": []}, Identity("m"))
    bench.set_baseline(directory, "release", [one])
    assert os.path.exists(os.path.join(directory, "release", file_name("m")))
