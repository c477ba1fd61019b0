# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _model_config

FIXTURES = Path(__file__).parents[2] / "fixtures" / "model_config"
BOM = b"\xef\xbb\xbf"
LINES = json.loads((FIXTURES / "lines.json").read_text(encoding="utf-8"))


def read(name):
    return _model_config.parse((FIXTURES / name).read_bytes())


def named(config):
    return {item.name: item.model for item in config.variables}


@pytest.mark.parametrize("case", LINES, ids=lambda case: ascii(case["line"])[:40])
def test_single_lines(case):
    config = _model_config.parse(case["line"])
    if case["value"] is None:
        assert config.settings == {}
    else:
        [(name, value)] = list(config.settings.items())
        assert value == case["value"]
        assert _model_config.is_model_variable(name) is case["model_variable"]
    is_model = case["model_variable"] and bool(case["value"])
    assert len(config.variables) == int(is_model)


def test_canonical_file():
    config = read("canonical.env")
    assert named(config) == {
        "MODEL_LLAMA3_2_3B": "llama3.2:3b",
        "MODEL_QWEN3_1_7B": "qwen3:1.7b",
        "MODEL_MISTRAL_SMALL3_2": "mistral-small3.2:latest",
    }
    assert config.available == ["llama3.2:3b", "qwen3:1.7b", "mistral-small3.2:latest"]
    assert config.only_in_variables == config.only_in_available == config.malformed == []


def test_pinned_entries_are_compared_without_their_pins():
    config = read("pinned.env")
    assert [(item.model, item.pin) for item in config.variables] == [
        ("phi3:latest", "4f222292793889a9"),
        ("gemma2:2b", "8ccf136fdd52"),
        ("cogito:32b", ""),
    ]
    assert config.available == ["phi3:latest", "gemma2:2b@sha256:8ccf136f", "cogito:32b"]
    assert config.only_in_variables == config.only_in_available == config.pin_conflicts == []


def test_two_pins_of_one_model_conflict():
    config = _model_config.parse(
        "MODEL_A=a:1b@sha256:aaaaaa\nOLLAMA_MODELS_AVAILABLE=a:1b@sha256:bbbbbb"
    )
    assert config.pin_conflicts == ["a:1b"]
    (verdict, *_others) = _model_config.cross_check(config, subject="x")
    assert verdict.status == "FAIL"
    assert "two digests" in verdict.evidence


def test_drifted_file_reports_every_line_it_cannot_read():
    config = read("drifted.env")
    assert named(config) == {
        "OLLAMA_MODEL_LLAMA": "llama3.2:3b",
        "OLLAMA_MODEL_qwen_Small": "qwen3:1.7b",
        "OLLAMA_MODEL_HASH": "model#inside:tag",
        "OLLAMA_MODEL_BARE": "bare#inside:tag",
        "MODEL_TWICE": "second:1b",
        "MODEL_SPACES": "two words:latest",
    }
    assert config.duplicates == ["MODEL_TWICE", "MODEL_GONE"]
    assert config.only_in_available == ["other:7b"]
    assert config.only_in_variables == [
        "qwen3:1.7b",
        "model#inside:tag",
        "bare#inside:tag",
        "second:1b",
        "two words:latest",
    ]
    assert [(item.line, item.reason) for item in config.malformed] == [
        (6, "is not the name of a model"),
        (7, "is not the name of a model"),
        (8, "has no closing quote"),
        (9, "has text after the closing quote"),
        (10, "names no model"),
        (11, "has no '='"),
        (15, "names no model"),
        (17, "has no valid variable name before the '='"),
        (18, "has no valid variable name before the '='"),
        (19, "has white space but no quotes"),
        (19, "is not the name of a model"),
        (23, "has no '='"),
    ]


def test_secrets_are_never_shown():
    config = _model_config.parse(
        "OPENAI_API_KEY hunter2\nHF_TOKEN=hunter2\nDB_PASSWORD='hunter2\nMODEL_TOKENIZER=t:1b"
    )
    described = _model_config.describe(config)
    assert "hunter2" not in repr(described)
    assert described["settings"]["MODEL_TOKENIZER"] == "t:1b"
    assert [item["text"] for item in described["malformed"]] == [
        "OPENAI_API_KEY (hidden)",
        "DB_PASSWORD (hidden)",
    ]


def test_windows_file_reads_like_any_other():
    text = (FIXTURES / "plain.env").read_bytes()
    config = _model_config.parse(BOM + text.replace(b"\n", b"\r\n"))
    assert named(config) == {"MODEL_A": "a:1b", "OLLAMA_MODEL_B": "b:2b", "MODEL_C": "c:3b"}
    assert config.malformed == []
    assert all(v.status == "PASS" for v in _model_config.cross_check(config, subject="x")[:1])


def test_file_without_models():
    config = read("empty.env")
    assert config.variables == config.available == config.malformed == []
    assert config.settings == {"OLLAMA_MODELS_AVAILABLE": "", "OTHER_VAR": "not a model"}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("phi3", ("phi3:latest", "")),
        ("phi3:mini", ("phi3:mini", "")),
        ("registry:5000/lib/phi3", ("registry:5000/lib/phi3:latest", "")),
        ("a:b@sha256:ABCDEF123456", ("a:b", "abcdef123456")),
        ("a@sha256:abc", ("a@sha256:abc", "")),  # too short to be a pin
        ("", ("", "")),
    ],
)
def test_split_pin(entry, expected):
    assert _model_config.split_pin(entry) == expected


def statuses(config, **wanted):
    verdicts = _model_config.cross_check(config, subject="/etc/x.env", **wanted)
    return {verdict.check: verdict.status for verdict in verdicts}


def test_cross_check_of_a_file_that_agrees():
    models = ["llama3.2:3b", "qwen3:1.7b", "mistral-small3.2"]
    found = statuses(read("canonical.env"), expected=models, models_dir="/mnt/active_llm_models/")
    assert set(found.values()) == {"PASS"}
    assert len(found) == 6


def test_cross_check_of_a_file_that_does_not():
    found = statuses(read("drifted.env"), expected=["llama3.2:3b"], models_dir="/mnt/models")
    assert found == {
        "model_lists_agree": "FAIL",
        "model_count": "FAIL",
        "env_file_lines": "WARN",
        "env_file_duplicates": "WARN",
        "env_file_catalog": "FAIL",
        "env_file_models_dir": "FAIL",
    }


def test_fuzz_random_bytes_never_crash():
    source = random.Random(20260101)
    alphabet = b"MODEL_OLLAMA=\"'# \t\r\n\\$`@:sha256,export\xef\xbb\xbf\x00\xff;abcAZ09-"
    for round_number in range(400):
        if round_number % 2:
            content = source.randbytes(source.randrange(300))
        else:
            content = bytes(source.choice(alphabet) for _turn in range(source.randrange(300)))
        config = _model_config.parse(content)
        _model_config.describe(config)
        verdicts = _model_config.cross_check(config, subject="x", expected=[], models_dir="/m")
        assert len(verdicts) == 6
        assert all(1 <= item.line <= content.count(b"\n") + 1 for item in config.malformed)
