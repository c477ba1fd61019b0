# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_flags as flags
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_flags_data as data

RECORDED = Path(__file__).parents[2] / "fixtures" / "vllm" / "0.32.0_flags.txt"
LINES = [line for line in RECORDED.read_text().splitlines() if not line.startswith("#")]
HAS = {line.rstrip("!"): line.endswith("!") for line in LINES}
V = "0.32.0"


def allowed(extra, version=V):
    return [(p["field"], p["allowed"]) for p in flags.check_extra_args("a", extra, version)]


def test_every_listed_flag_exists_and_switches_have_a_negative_form():
    listed = data.VERSIONS["0.32"]["flags"]
    assert set(listed) <= set(HAS)
    assert {name for name, kind in listed.items() if kind == "switch"} == {
        name for name in listed if HAS[name]
    }
    assert set(data.OWNED) | set(data.DANGEROUS) <= set(HAS)


def test_retired_flags_are_gone_or_announced_as_gone():
    retired = data.VERSIONS["0.32"]["retired"]
    assert {name for name in retired if name in HAS} == {"disable-cascade-attn", "log-config-file"}
    assert all("0.33" in retired[name] for name in retired if name in HAS)


def test_no_flag_is_on_two_lists():
    lists = [data.VERSIONS["0.32"]["flags"], data.OWNED, data.DANGEROUS]
    lists.append(data.VERSIONS["0.32"]["retired"])
    names = [name for entries in lists for name in entries]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "extra",
    [
        {"seed": 1},
        {"block_size": 32},
        {"enable-prefix-caching": False},
        {"hf-overrides": {"x": 1}},
        {"max-lora-rank": 16},
        {"allowed-media-domains": ["example.org"]},
        {"mm-processor-cache-gb": 0},
    ],
)
def test_allowed(extra):
    assert allowed(extra) == []


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"api-key": "x"}, "credential file"),
        ({"max_model_len": 1}, "declare model.max_model_len"),
        ({"trust-remote-code": True}, "model.trust_remote_code"),
        ({"enable-prompt-embeds": True}, "never: it takes tensors"),
        ({"no-enable-prompt-embeds": True}, "never"),
        ({"allowed-local-media-path": "/"}, "never: it lets requests read files"),
        ({"ssl-certfile": "/etc/a.pem"}, "never: it makes the service speak TLS"),
        ({"swap-space": 4}, "any more"),
        ({"guided-decoding-backend": "x"}, "use structured-outputs-config"),
        ({"log-config-file": "/x"}, "0.33"),
        ({"enable-prefix-cacheing": True}, "did you mean enable-prefix-caching?"),
        ({"no-enable-prefix-caching": True}, "enable-prefix-caching: false"),
        ({"load-format": "gguf"}, "GGUF left vLLM's core"),
        ({"load-format": "pt"}, "safetensors"),
        ({"seed": "1"}, "a whole number"),
        ({"seed": True}, "a whole number"),
        ({"max-lora-rank": 17}, "16"),
        ({"enable-lora": "yes"}, "true or false"),
        ({"hf-overrides": "{}"}, "a mapping"),
        ({"allowed-media-domains": "x"}, "a list"),
        ({"tokenizer": ""}, "a text"),
    ],
)
def test_refused(extra, words):
    found = allowed(extra)
    assert len(found) == 1
    assert found[0][0] == f"extra_args.{next(iter(extra))}"
    assert words in found[0][1]


def test_a_flag_in_two_spellings_is_refused():
    assert allowed({"block-size": 16, "block_size": 32}) == [
        ("extra_args.block_size", "each flag once")
    ]


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("VLLM_SERVER_DEV_MODE", "never: it opens control routes"),
        ("HF_TOKEN", "credential file"),
        ("NCCL_P2P_DISABEL", "did you mean NCCL_P2P_DISABLE?"),
    ],
)
def test_variables_are_refused_without_their_value(variable, words):
    (found,) = flags.check_environment("a", {variable: "geheim"}, V)
    assert words in found["allowed"]
    assert "geheim" not in str(found)
    assert flags.check_environment("a", {"NCCL_P2P_DISABLE": 1}, V) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [("gguf", "GGUF left"), ("bitsandbytes", "plugin now"), ("awk", "did you mean awq?")],
)
def test_quantisation(value, words):
    (found,) = flags.check_choice("a", "model.quantization", value, V, "quantization")
    assert words in found["allowed"]
    assert flags.check_choice("a", "model.quantization", "awq", V, "quantization") == []
    assert flags.check_choice("a", "model.quantization", None, V, "quantization") == []


def test_rendering_knows_the_true_form_alone():
    extra = {
        "enable_prefix_caching": False,
        "enable-lora": True,
        "disable-log-stats": False,
        "seed": None,
        "block_size": 32,
    }
    assert flags.render(extra, V) == {
        "no-enable-prefix-caching": True,
        "enable-lora": True,
        "block-size": 32,
    }


@pytest.mark.parametrize(("version", "known"), [("0.32.0+cpu", True), ("0.33.1", False)])
def test_versions(version, known):
    assert (flags.for_version(version) is not None) == known
