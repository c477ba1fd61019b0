# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The calibration as a whole: our client against the server on loopback, two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _bench_calibrate,
    _bench_child,
    _bench_engine,
    _bench_loopback,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_calibrate import calibrate
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import PATHS


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = children()
    yield
    assert children() == before


def children():
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == os.getpid():
            found.add(stat.parent.name)
    return found


@pytest.mark.parametrize("dialect", PATHS)
def test_each_dialect(dialect):
    result = calibrate(4, dialect, seconds=0.8)
    assert result["failed"] == ""
    assert (result["concurrency"], result["tls"]) == (4, False)
    assert result["requests"] >= 8
    assert result["ttft_error_ms"]["count"] == result["requests"]
    assert -0.1 < result["ttft_error_ms"]["median"] < 5
    assert result["gap_error_ms"] < 5
    assert result["seconds"] < 4


def test_many_streams_take_no_longer():
    result = calibrate(64, "openai_chat", seconds=1.5)
    assert result["failed"] == ""
    assert result["requests"] >= 64
    assert result["seconds"] < 6
    assert 0 < result["cpu_percent_of_core"] <= 100
    assert result["loop_lag_p99_ms"] < 500
    assert result["tokens_per_s"] > 500


def test_without_the_kernels_stamps_the_clients_lateness_is_in_the_error(monkeypatch):
    monkeypatch.setattr(_bench_engine, "SO_TIMESTAMPNS", 9999)
    result = calibrate(8, "openai_chat", seconds=0.8)
    assert result["failed"] == ""
    assert result["kernel_stamps"] is False
    assert 0 < result["ttft_error_ms"]["median"] < 20
    assert result["loop_lag_p99_ms"] > 0


def test_a_slow_client_is_found_out(monkeypatch):
    """It sleeps for 20 ms before each turn, and has no stamps of the kernel to save it."""
    monkeypatch.setattr(_bench_engine, "SO_TIMESTAMPNS", 9999)
    turn = _bench_engine.Engine._turn

    def slow(self, wait):
        time.sleep(0.02)
        turn(self, wait)

    monkeypatch.setattr(_bench_engine.Engine, "_turn", slow)
    result = calibrate(4, "openai_chat", seconds=1.0)
    assert result["ttft_error_ms"]["mean"] > 3
    assert result["loop_lag_p99_ms"] > 10


def test_a_slow_client_is_found_out_by_its_lag_alone(monkeypatch):
    turn = _bench_engine.Engine._turn

    def slow(self, wait):
        time.sleep(0.02)
        turn(self, wait)

    monkeypatch.setattr(_bench_engine.Engine, "_turn", slow)
    result = calibrate(4, "openai_chat", seconds=1.0)
    assert result["loop_lag_p99_ms"] > 10


def test_a_server_that_cannot_listen(monkeypatch, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nread line\nexit 1\n")
    broken.chmod(0o755)
    result = calibrate(1, "openai_chat", python=str(broken))
    assert result["failed"] == "no calibration over loopback: its server ended"


def test_a_server_that_says_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(_bench_calibrate, "START_S", 0.3)
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    result = calibrate(1, "openai_chat", python=str(silent))
    assert result["failed"] == "no calibration over loopback: its server said nothing for 0.3 s"


def test_the_server_is_for_this_host_only_and_ends_with_its_input():
    settings = {
        "dialect": "openai_chat",
        "tls": False,
        "ttft_ms": 30.0,
        "gap_ms": 10.0,
        "tokens": 2,
        "limit_s": 30.0,
    }
    server = _bench_child.start_child(sys.executable, _bench_loopback, settings, subprocess.PIPE)
    try:
        port = int(server.stdout.readline().split(b":")[1].strip(b" }\n"))
        listening = Path("/proc/net/tcp").read_text()
        assert f"0100007F:{port:04X} 00000000:0000 0A" in listening
        socket.create_connection(("127.0.0.1", port), 2).close()
        server.stdin.close()
        assert server.wait(3) == 0
    finally:
        _bench_child.end_child(server)


def test_the_server_ends_by_itself_after_its_time():
    settings = {
        "dialect": "ollama_chat",
        "tls": False,
        "ttft_ms": 30.0,
        "gap_ms": 10.0,
        "tokens": 2,
        "limit_s": 0.2,
    }
    server = _bench_child.start_child(sys.executable, _bench_loopback, settings, subprocess.PIPE)
    try:
        assert server.wait(3) == 0
    finally:
        _bench_child.end_child(server)


def test_through_tls_or_it_says_that_it_was_not(monkeypatch):
    monkeypatch.setattr(_bench_calibrate, "START_S", 3.0)
    result = calibrate(4, "openai_chat", tls=True, seconds=0.8)
    assert result["failed"] == ""
    assert result["tls"] is True


def test_an_openssl_without_anonymous_suites(monkeypatch):
    def none(server):
        raise _bench_loopback.ssl.SSLError("no cipher can be selected")

    monkeypatch.setattr(_bench_loopback, "anonymous_tls", none)
    result = calibrate(2, "openai_chat", tls=True, seconds=0.5)
    assert (result["failed"], result["tls"]) == ("", False)
