# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

import pytest
from bench_samples import good, measured, sample

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_baselines as bench
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_metrics import metrics_of
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import Stage
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

MODEL = "qwen3:1.7b"
SOUND = {"state": "VALID", "reasons": []}
WEAK = {"state": "UNRELIABLE", "reasons": ["GPU 0 was throttled"]}
IDENTITY = bench.Identity(
    MODEL, "sha256:1", "ollama", "0.5.7", "ollama_generate", gpus=("L4", "L4"), driver="550"
)


def record(run=None, identity=IDENTITY, validity=None, **more):
    run = run or good()
    return bench.record_of(run, metrics_of(run), validity or SOUND, identity, **more)


def test_a_record_holds_the_figures_of_the_answered_requests():
    run = measured(sample(1, ttft=90.0), sample(2, error="timeout"), sample(3), gaps=[20.0, 30.0])
    run.begun_at = "2026-08-20T12:00:00.000Z"
    found = record(run)
    assert found.values["ttft_ms"] == [90.0, 100.0]
    assert found.counts == dict.fromkeys(bench.ARRAYS, 2)
    assert (found.gap_p99_ms, found.recorded_at) == (29.9, "2026-08-20T12:00:00.000Z")


def test_many_values_are_thinned_out_evenly_and_that_is_said():
    found = record(measured(*[sample(number, ttft=float(number)) for number in range(5000)]))
    assert found.counts["ttft_ms"] == 5000
    assert len(found.values["ttft_ms"]) == bench.MOST_VALUES
    assert found.values["ttft_ms"][:3] == [0.0, 2.0, 5.0]


def test_what_cannot_be_trusted_becomes_no_baseline():
    with pytest.raises(HostError, match="UNRELIABLE, wanted VALID for a baseline: GPU 0 was"):
        record(validity=WEAK)
    assert record(validity=WEAK, accept_unreliable=True).validity == "UNRELIABLE"
    with pytest.raises(HostError, match="is INVALID, wanted VALID or UNRELIABLE"):
        record(validity={"state": "INVALID", "reasons": ["x"]}, accept_unreliable=True)


def test_no_answer_becomes_no_baseline():
    with pytest.raises(HostError, match=r"no request to qwen3:1\.7b"):
        record(measured(sample(1, error="timeout")))


def test_what_was_written_is_read_again():
    other = record(identity=bench.Identity(MODEL, shape="poisson", concurrency=8, rate=2.5))
    written = bench.render([other, record()])
    assert sorted(bench.parse(written, bench.file_name(MODEL)), key=str) == sorted(
        [record(), other], key=str
    )
    assert bench.render([record(), other]) == written


def test_a_file_of_before_the_identity_grew_is_still_read():
    content = json.loads(bench.render([record()]))
    for name in ("extra_digest", "unique_prompts", "run_from"):
        del content["measured"][0]["identity"][name]
    assert bench.parse(json.dumps(content).encode(), bench.file_name(MODEL)) == [record()]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("qwen3:1.7b", "qwen3%3A1.7b.json"),
        ("hub/Meta/Llama-3_1", "hub%2FMeta%2FLlama-3_1.json"),
        ("..", "...json"),
        ("../../etc/passwd", "..%2F..%2Fetc%2Fpasswd.json"),
        ("a%3Ab", "a%253Ab.json"),
        ("é\n", "%C3%A9%0A.json"),
    ],
)
def test_names_of_models_become_safe_names_of_files(model, name):
    assert bench.file_name(model) == name
    assert os.path.basename(name) == name


def test_long_names_stay_apart():
    names = {bench.file_name("m" * 300), bench.file_name("m" * 301)}
    assert len(names) == 2
    assert all(len(name) < 240 for name in names)


def store(tmp_path, data, model=MODEL):
    folder = tmp_path / "release"
    folder.mkdir(exist_ok=True)
    (folder / bench.file_name(model)).write_bytes(data)
    return str(tmp_path)


def test_reading_a_baseline(tmp_path):
    assert bench.read_baseline(str(tmp_path), "release", MODEL) == []
    directory = store(tmp_path, bench.render([record()]))
    assert bench.read_baseline(directory, "release", MODEL) == [record()]
    assert bench.read_baseline(directory, "release", "other") == []
    assert bench.read_baseline(directory, "other", MODEL) == []


def test_a_name_leads_nowhere_else(tmp_path):
    with pytest.raises(HostError, match=r"named '\.\./other', wanted at most 64 letters"):
        bench.read_baseline(str(tmp_path), "../other", MODEL)


def changed(**change):
    content = json.loads(bench.render([record()]))
    entry = content["measured"][0]
    for path, value in change.items():
        *parents, last = path.split("__")
        target = entry
        for parent in parents:
            target = target[parent]
        if value is KeyError:
            del target[last]
        else:
            target[last] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema": 2, "model": "qwen3:1.7b", "measured": []}',
        b'{"schema": 1, "model": "qwen3:1.7b", "measured": []}',
        b'{"schema": 1, "model": "qwen3:1.7b", "measured": [1]}',
        bench.render([record()])[:-40],
        bench.render([record(identity=bench.Identity("another"))]),
        changed(identity=None),
        changed(identity__gpus=None),
        changed(identity__gpus=KeyError),
        changed(identity__concurrency="four"),
        changed(identity__prompt_tokens="many"),
        changed(identity__model=KeyError),
        changed(identity__model="\ud800"),
        changed(values__ttft_ms=KeyError),
        changed(values__ttft_ms=["fast"]),
        changed(values__ttft_ms=[float("nan")]),
        changed(values__ttft_ms=[True]),
        changed(counts=[]),
        changed(gap_p99_ms="x"),
        changed(wall_s=None),
        changed(wall_s=10**400),
        changed(values__ttft_ms=[10**400]),
        changed(counts__ttft_ms=float("inf")),
    ],
)
def test_a_damaged_file_is_named(tmp_path, data):
    directory = store(tmp_path, data)
    with pytest.raises(HostError, match=r"qwen3%3A1.7b.json is no baseline.* Set the baseline"):
        bench.read_baseline(directory, "release", MODEL)


def test_a_field_that_a_later_version_adds_does_no_harm(tmp_path):
    directory = store(tmp_path, changed(identity__colour="blue"))
    assert bench.read_baseline(directory, "release", MODEL) == [record()]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/hosts", path)])
def test_what_is_no_file_is_refused_without_waiting(tmp_path, make):
    (tmp_path / "release").mkdir()
    make(tmp_path / "release" / bench.file_name(MODEL))
    with pytest.raises(HostError, match="is no regular file"):
        bench.read_baseline(str(tmp_path), "release", MODEL)


def test_a_file_beyond_all_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "FILE_LIMIT", 100)
    directory = store(tmp_path, bench.render([record()]))
    with pytest.raises(HostError, match="at most 100 bytes"):
        bench.read_baseline(directory, "release", MODEL)


def test_a_record_is_found_by_its_load_whatever_its_length():
    closed, poisson = record(), record(identity=bench.Identity(MODEL, shape="poisson", rate=2.0))
    records = [closed, poisson]
    assert bench.find(records, Stage(requests=500, duration_s=60.0)) is closed
    assert bench.find(records, Stage("poisson", 1, 2.0, 90, seed=7)) is poisson
    assert bench.find(records, Stage("poisson", 1, 3.0)) is None


def test_a_line_says_what_a_record_holds():
    line = bench.line_of(record())
    assert line.startswith("qwen3:1.7b, 1 at once: TTFT 100.00 ms, rate 51.00 tokens/s (3 requests")
    whole = record(measured(sample(1, ttft=None, tokens_per_s=None)))
    assert "TTFT not known ms" in bench.line_of(whole)
