# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import os
import threading

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_csv as bench
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Sample
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

ROW = bench.Baseline("2026-08-20T12:00:00Z", "qwen3:1.7b", 1640.0, 128.714)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "baseline.csv")


def content(path):
    with open(path, "rb") as stream:
        return stream.read()


def test_the_baseline_file_byte_for_byte(path):
    bench.append_baselines(path, [ROW])
    bench.append_baselines(path, [bench.Baseline("2026-08-21T12:00:00Z", "phi3:latest", 67, 93)])
    assert content(path) == (
        b"timestamp,model,first_token_ms,tokens_per_s\n"
        b"2026-08-20T12:00:00Z,qwen3:1.7b,1640.00,128.71\n"
        b"2026-08-21T12:00:00Z,phi3:latest,67.00,93.00\n"
    )


def test_the_results_file_byte_for_byte_with_zero_durations(path):
    full = Sample(1, "qwen3:1.7b", started_at="2026-08-20T12:00:00.999Z", latency_ms=600.0)
    full.total_duration_ms, full.prompt_tokens, full.prompt_eval_ms = 512.3456, 26, 40.5
    full.gen_tokens, full.gen_eval_ms, full.tokens_per_s = 64, 497.2, 128.72
    bare = Sample(2, "qwen3:1.7b", started_at="2026-08-20T12:00:01.000Z", latency_ms=600.0)
    bare.total_duration_ms = 0.0
    failed = Sample(3, "qwen3:1.7b", started_at="2026-08-20T12:00:02Z", error_kind="timeout")
    bench.append_results(path, [full, bare, failed])
    assert content(path) == (
        b"timestamp,model,iter,total_duration_ms,prompt_tokens,prompt_eval_ms,"
        b"gen_tokens,gen_eval_ms,tokens_per_s\n"
        b"2026-08-20T12:00:00Z,qwen3:1.7b,1,512.35,26,40.50,64,497.20,128.72\n"
        b"2026-08-20T12:00:01Z,qwen3:1.7b,2,0.00,0,0.00,0,0.00,0.00\n"
    )


def test_a_server_without_durations_gets_the_clients_total(path):
    openai = Sample(1, "m", started_at="2026-08-20T12:00:00.123+02:00", latency_ms=512.3456)
    openai.prompt_tokens, openai.gen_tokens, openai.tokens_per_s = 26, 64, 128.72
    bench.append_results(path, [openai])
    assert content(path).endswith(
        b"\n2026-08-20T12:00:00+02:00,m,1,512.35,26,0.00,64,0.00,128.72\n"
    )


def test_nothing_to_append_makes_no_file(path, tmp_path):
    bench.append_baselines(path, [])
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_is_read_again(path):
    odd = bench.Baseline("t", 'a,"b":1', 1.5, 2.5)
    bench.append_baselines(path, [ROW, odd])
    known = bench.read_baselines(path)
    assert known["qwen3:1.7b"].tokens_per_s == 128.71
    assert known['a,"b":1'] == odd


def test_the_last_row_of_a_model_counts():
    text = f"{bench.BASELINE_HEADER}\nt1,m,1,2\nt2,m,3,4\n\n"
    assert bench.parse_baselines(text, "x")["m"] == bench.Baseline("t2", "m", 3, 4)


def test_a_missing_or_empty_file_holds_no_baselines(path):
    assert bench.read_baselines(path) == {}
    assert bench.parse_baselines("", path) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,model\n", "wanted the header"),
        (f"{bench.BASELINE_HEADER}\nt,m,fast,1\n", "line 2 is 't,m,fast,1'"),
        (f"{bench.BASELINE_HEADER}\nt,m,1,1\nt,m\n", "line 3 is 't,m'"),
    ],
)
def test_a_file_that_is_no_baseline_file_is_refused(text, message):
    with pytest.raises(HostError, match=message):
        bench.parse_baselines(text, "/x/baseline.csv")


def test_a_file_with_another_header_is_not_touched(path):
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("other\n1\n")
    with pytest.raises(HostError, match="starts with 'other'"):
        bench.append_baselines(path, [ROW])
    assert content(path) == b"other\n1\n"


def test_a_row_cut_short_by_a_crash_does_not_swallow_the_next(path):
    bench.append_baselines(path, [ROW])
    with open(path, "a", encoding="utf-8") as stream:
        stream.write("2026-08-20T12")
    bench.append_baselines(path, [ROW])
    assert content(path).endswith(b"2026-08-20T12\n" + ROW.row().encode() + b"\n")


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(HostError, match=r"gone/baseline.csv cannot be written"):
        bench.append_baselines(str(tmp_path / "gone" / "baseline.csv"), [ROW])


def test_a_writer_waits_for_the_one_that_has_the_file(path):
    bench.append_baselines(path, [ROW])
    writer = threading.Thread(target=bench.append_baselines, args=(path, [ROW]))
    with open(path, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        writer.start()
        writer.join(0.2)
        assert len(stream.read().splitlines()) == 2
    writer.join(10)
    assert len(content(path).splitlines()) == 3


def test_writers_at_the_same_time_lose_and_mix_nothing(path):
    rows = [bench.Baseline("t", f"m{number}", number, number) for number in range(8)]
    threads = [
        threading.Thread(
            target=lambda row=row: [bench.append_baselines(path, [row]) for _turn in range(25)]
        )
        for row in rows
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = content(path).decode().splitlines()
    assert lines[0] == bench.BASELINE_HEADER
    assert sorted(lines[1:]) == sorted(row.row() for row in rows for _turn in range(25))


@pytest.mark.parametrize(
    "call", [lambda path: bench.append_baselines(path, [ROW]), bench.read_baselines]
)
def test_a_link_in_the_files_place_is_refused(path, tmp_path, call):
    other = tmp_path / "shadow"
    other.write_text(f"{bench.BASELINE_HEADER}\n")
    os.symlink(other, path)
    with pytest.raises(HostError, match=r"baseline.csv is a symbolic link"):
        call(path)
    assert other.read_text() == f"{bench.BASELINE_HEADER}\n"


def test_a_link_to_nowhere_creates_nothing(path, tmp_path):
    os.symlink(tmp_path / "new", path)
    with pytest.raises(HostError, match="symbolic link"):
        bench.append_baselines(path, [ROW])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "call", [lambda path: bench.append_baselines(path, [ROW]), bench.read_baselines]
)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_without_waiting(path, make, call):
    make(path)
    with pytest.raises(HostError, match=r"baseline.csv"):
        call(path)


def test_a_baseline_of_a_measurement_is_to_the_second():
    metrics = {"ttft_ms": {"median": 1.0}, "tokens_per_s": {"median": 2.0}}
    row = bench.baseline_of("m", "2026-08-20T12:00:00.123Z", metrics)
    assert row == bench.Baseline("2026-08-20T12:00:00Z", "m", 1.0, 2.0)


@pytest.mark.parametrize(("ttft", "rate"), [(None, 1.0), (1.0, None)])
def test_no_baseline_without_both_figures(ttft, rate):
    metrics = {"ttft_ms": {"median": ttft}, "tokens_per_s": {"median": rate}}
    assert bench.baseline_of("m", "t", metrics) is None
