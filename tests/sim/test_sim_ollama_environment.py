# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's environment variables and request fields are read as the real server does."""

from __future__ import annotations

import pytest
from harness import LAB
from sim_ollama import envconfig, fields
from sim_ollama.errors import ApiError
from sim_ollama.schedule import schedule_for
from sim_ollama.settings import Settings
from sim_ollama.version import at_least


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("http", "127.0.0.1", 11434)),
        ("0.0.0.0", ("http", "0.0.0.0", 11434)),
        ("0.0.0.0:8000", ("http", "0.0.0.0", 8000)),
        (":8000", ("http", "", 8000)),
        ("[::1]:8000", ("http", "::1", 8000)),
        ("http://host", ("http", "host", 80)),
        ("https://host", ("https", "host", 443)),
        ("http://host:1/path", ("http", "host", 1)),
        ("host:99999", ("http", "host", 11434)),
        ("host:x", ("http", "host", 11434)),
        (' "host:1" ', ("http", "host", 1)),
    ],
)
def test_host(monkeypatch, text, expected):
    monkeypatch.setenv("OLLAMA_HOST", text)
    assert envconfig.host() == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 300.0),
        ("10m", 600.0),
        ("90", 90.0),
        ("-1", envconfig.FOREVER),
        ("-1m", envconfig.FOREVER),
        ("0", 0.0),
        ("soon", 300.0),
        ("'1h'", 3600.0),
    ],
)
def test_keep_alive(monkeypatch, text, seconds):
    monkeypatch.setenv("OLLAMA_KEEP_ALIVE", text)
    assert envconfig.read().keep_alive == seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [("", False), ("0", False), ("false", False), ("1", True), ("off", True), ("no", True)],
)
def test_a_word_that_is_no_boolean_is_true(monkeypatch, text, value):
    monkeypatch.setenv("OLLAMA_NOPRUNE", text)
    assert envconfig.read().no_prune is value


@pytest.mark.parametrize(("text", "value"), [("", 512), ("7", 7), ("-3", 512), ("x", 512)])
def test_a_bad_number_is_the_default(monkeypatch, text, value):
    monkeypatch.setenv("OLLAMA_MAX_QUEUE", text)
    assert envconfig.read().max_queue == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h2m3.5s", 3723.5), ("-2m", -120.0), ("0", 0.0), ("100ms", 0.1), ("5", None), ("m", None)],
)
def test_durations(text, seconds):
    assert envconfig.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), (1.5, 1.5), (0, 0.0), (-1, envconfig.FOREVER), ("5m", 300.0), ("0", 0.0)],
)
def test_keep_alive_of_a_request(value, seconds):
    assert fields.keep_alive({"keep_alive": value}) == seconds


@pytest.mark.parametrize("value", ["300", "-1", "soon", True, [], {}])
def test_a_bad_keep_alive_of_a_request(value):
    with pytest.raises(ApiError):
        fields.keep_alive({"keep_alive": value})


def test_timestamps_reach_past_this_century():
    assert fields.timestamp(11_000_000_000.5, utc=True) == "2318-07-30T19:33:20.500000000Z"


def test_versions():
    assert at_least("0.32.15", "0.4.0")
    assert at_least("0.11.4", "0.11.4")
    assert not at_least("0.11.4", "0.12.6")
    assert at_least("v0.33.0-rc2", "0.33.0")


def test_the_example_names_every_model():
    settings = Settings(LAB / "sim_ollama" / "config.example.json")
    models = settings.section("models")
    assert len(models) == 8
    for name, values in models.items():
        assert values["vram_bytes"] > 1e9
        on_gpu = schedule_for(settings, name, 1, 1.0)
        on_cpu = schedule_for(settings, name, 1, 0.0)
        assert on_cpu.tokens_per_second < on_gpu.tokens_per_second / 4
        assert 0 < on_gpu.ttft_seconds < 1
