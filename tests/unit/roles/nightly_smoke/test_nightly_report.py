# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import stat

import nightly_files as files
import nightly_report as report
import pytest
from nightly_engines import Outcome

PASSED = Outcome("model", "phi3:latest", "ollama", seconds=0.25, load_seconds=1.5, gpu_ratio=1.0)
SUITE = Outcome("suite", "smoke.sh", seconds=2.0)


def failed(model="gemma2:2b"):
    return Outcome("model", model, "ollama").fail("the answer is empty")


def record(outcomes, before=None, **more):
    fields = {"host": "llm-02", "invocation": "i1", "started": 1000.0, "ended": 1060.5, **more}
    return report.record_of(outcomes, before or {}, **fields)


def test_a_run_that_passed():
    found = record([SUITE, PASSED], {"failures_total": 4, "last_success": 5.0})
    assert (found["ok"], found["failures"], found["failures_total"]) == (True, 0, 4)
    assert found["last_success"] == 1060.5


def test_a_run_that_failed_remembers_the_last_success():
    found = record([PASSED, failed()], {"failures_total": 4, "last_success": 5.0})
    assert (found["ok"], found["failures"], found["failures_total"]) == (False, 1, 5)
    assert found["last_success"] == 5.0
    assert record([failed()])["last_success"] is None


def test_a_run_that_was_ended_or_checked_nothing_has_not_passed():
    ended = record([PASSED], broken="signal SIGTERM")
    assert (ended["ok"], ended["failures"]) == (False, 1)
    assert not record([])["ok"]


def test_what_is_left_of_a_damaged_record_is_not_counted():
    found = record([failed()], {"failures_total": "many", "last_success": True})
    assert (found["failures_total"], found["last_success"]) == (1, None)


def test_metrics():
    lines = report.metrics_of(record([SUITE, PASSED, failed()])).splitlines()
    prefix = "hx_infra_nightly_smoke_"
    for line in (
        "success 0",
        "last_run_timestamp_seconds 1060.500",
        "duration_seconds 60.500",
        "checks 3",
        "checks_failed 1",
        "failures_total 1",
        'suite_success{suite="smoke.sh"} 1',
        'suite_seconds{suite="smoke.sh"} 2.000',
        'model_success{engine="ollama",model="phi3:latest"} 1',
        'model_success{engine="ollama",model="gemma2:2b"} 0',
        'model_seconds{engine="ollama",model="phi3:latest"} 0.250',
        'model_load_seconds{engine="ollama",model="phi3:latest"} 1.500',
        'model_gpu_ratio{engine="ollama",model="phi3:latest"} 1.000',
    ):
        assert prefix + line in lines, line
    assert f"# TYPE {prefix}failures_total counter" in lines
    # What isn't known is left out, never 0.
    assert not [line for line in lines if "last_success" in line]
    assert not [line for line in lines if "seconds{" in line and "gemma" in line]


def test_metrics_can_be_read_by_prometheus():
    parser = pytest.importorskip("prometheus_client.parser")
    text = report.metrics_of(record([SUITE, Outcome("model", 'a"b\\c\nd', "e")]))
    names = [family.name for family in parser.text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    [family] = [
        item
        for item in parser.text_string_to_metric_families(text)
        if item.name == "hx_infra_nightly_smoke_model_success"
    ]
    assert family.samples[0].labels == {"engine": "e", "model": 'a"b\\c\nd'}


def test_a_check_in_one_line():
    line = report.line_of(json.loads(json.dumps(vars(PASSED))))
    assert line == ("PASS  model  ollama: phi3:latest (0.25 s, loaded in 1.50 s, 100% on the GPU)")
    assert report.line_of(vars(failed())).endswith("gemma2:2b - the answer is empty")


def test_the_record_is_kept_when_the_metrics_cannot_be(tmp_path):
    with pytest.raises(files.FileError, match="could not be written"):
        report.save(record([PASSED]), tmp_path, tmp_path / "none" / "x.prom")
    assert report.load_record(tmp_path)["ok"]
    with pytest.raises(files.FileError):
        report.save(record([PASSED]), tmp_path / "none", tmp_path / "x.prom")
    assert "success 1" in (tmp_path / "x.prom").read_text()


def test_a_file_is_put_in_place_whole(tmp_path):
    path = tmp_path / "x.prom"
    path.write_text("old")
    files.replace_file(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.prom"]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("sk-1\n", "sk-1"),
        ("# a comment\nVLLM_API_KEY='sk-1'\nOTHER=2\n", "sk-1"),
        ("two words\n", "two words"),
        ("", None),
        ("a\nb\n", None),
        ("VLLM_API_KEY=\n", None),
    ],
)
def test_what_a_secret_file_may_hold(text, secret):
    if secret is None:
        with pytest.raises(files.FileError, match="wanted one with the secret"):
            files.parse_secret(text, "key")
    else:
        assert files.parse_secret(text, "key") == secret


@pytest.mark.parametrize(
    ("mode", "forbidden", "ok"),
    [
        (0o600, files.OWNER_ALONE, True),
        (0o400, files.OWNER_ALONE, True),
        (0o640, files.OWNER_ALONE, False),
        (0o604, files.OWNER_ALONE, False),
        (0o640, files.OWNER_AND_GROUP, True),
        (0o644, files.OWNER_AND_GROUP, False),
    ],
)
def test_a_secret_that_others_can_read_is_refused(tmp_path, mode, forbidden, ok):
    path = tmp_path / "key"
    path.write_text("sk-1")
    path.chmod(mode)
    if ok:
        assert files.read_secret(str(path), "c", forbidden) == "sk-1"
    else:
        with pytest.raises(files.FileError, match=f"has mode {mode:04o}, wanted 06"):
            files.read_secret(str(path), "c", forbidden)


def test_the_copy_of_systemd_is_read_first(tmp_path, monkeypatch):
    (tmp_path / "key").write_text("own")
    (tmp_path / "key").chmod(0o600)
    loaded = tmp_path / "loaded"
    loaded.mkdir()
    (loaded / "engine-a").write_text("given")
    (loaded / "engine-a").chmod(0o440)  # an access list shows like this
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(loaded))
    assert files.read_secret(str(tmp_path / "key"), "engine-a") == "given"
    assert files.read_secret(str(tmp_path / "key"), "engine-b") == "own"


def test_a_credential_that_systemd_could_not_hand_over_is_told(tmp_path, monkeypatch):
    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(files.Path, "is_file", refuse)
    with pytest.raises(files.FileError, match="key, can't be read: Permission denied"):
        files.read_secret(str(tmp_path / "key"), "engine-a")


def test_one_at_a_time(tmp_path):
    path = tmp_path / "lock"
    with files.only_one(path) as first, files.only_one(path) as second:
        assert (first, second) == (True, False)
    with files.only_one(path) as third:
        assert third
