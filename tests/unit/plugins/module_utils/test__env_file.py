# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _env_file, _model_config
from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import Model, Settings
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

MODELS = [
    Model(
        "llama3.2:3b",
        2_019_393_189,
        "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72",
    ),
    Model("qwen3:1.7b", 1_359_293_444, "8f68893c685c"),
    Model("mistral-small3.2:latest", 15_000_000_000),
]

CANONICAL = """\
# Environment of the Ollama service.
# Rendered from the model catalog by hx_infra.llm.ollama_env: change the catalog,
# not this file.

OLLAMA_MODELS="/mnt/active_llm_models"
OLLAMA_HOST="127.0.0.1:11434"

# Further settings
OLLAMA_KEEP_ALIVE="10m"

# Model registry
# Size: 2.0GB, digest a80c4f17acd5
MODEL_LLAMA3_2_3B="llama3.2:3b"
# Size: 1.4GB, digest 8f68893c685c
MODEL_QWEN3_1_7B="qwen3:1.7b"
# Size: 15GB
MODEL_MISTRAL_SMALL3_2="mistral-small3.2:latest"

OLLAMA_MODELS_AVAILABLE="llama3.2:3b,qwen3:1.7b,mistral-small3.2:latest"
OLLAMA_MODELS_COUNT=3
OLLAMA_MODELS_TOTAL_SIZE="18.4GB"
"""


def settings(**extra):
    return Settings("/mnt/active_llm_models", "127.0.0.1:11434", extra)


def test_canonical_text():
    assert _env_file.render(MODELS, settings(OLLAMA_KEEP_ALIVE="10m")) == CANONICAL


def test_rendered_text_passes_its_own_cross_check():
    config = _model_config.parse(_env_file.render(MODELS, settings()))
    names = [model.name for model in MODELS]
    verdicts = _model_config.cross_check(
        config, subject="x", expected=names, models_dir="/mnt/active_llm_models"
    )
    assert {verdict.status for verdict in verdicts} == {"PASS"}


def test_unknown_size_makes_the_total_unknown():
    text = _env_file.render([*MODELS, Model("new:1b")], settings())
    assert '# Size: unknown\nMODEL_NEW_1B="new:1b"' in text
    assert 'OLLAMA_MODELS_TOTAL_SIZE="unknown"' in text


def test_no_models():
    text = _env_file.render([], settings())
    assert 'OLLAMA_MODELS_AVAILABLE=""\nOLLAMA_MODELS_COUNT=0' in text
    assert _model_config.parse(text).malformed == []


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.0KB"),
        (999_949, "999.9KB"),
        (999_950, "1.0MB"),
        (28_311_552, "28.3MB"),
        (2_019_393_189, "2.0GB"),
        (10_000_000_000, "10GB"),
        (15_177_384_862, "15.2GB"),
        (18_400_000_000, "18.4GB"),
        (7_300_000_000_000, "7.3TB"),
    ],
)
def test_human_size(size, text):
    assert _env_file.human_size(size) == text


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("llama3.2:3b", "MODEL_LLAMA3_2_3B"),
        ("qwen3:1.7b", "MODEL_QWEN3_1_7B"),
        ("mistral-small3.2:latest", "MODEL_MISTRAL_SMALL3_2"),
        ("phi3", "MODEL_PHI3"),
        ("hf.co/org/Some-Model_GGUF:Q4_K_M", "MODEL_HF_CO_ORG_SOME_MODEL_GGUF_Q4_K_M"),
    ],
)
def test_variable_of_a_model(name, variable):
    assert _env_file.model_variables([name]) == {name: variable}


def test_colliding_variables_do_not_depend_on_the_order():
    names = ["a-b:1", "a.b:1", "c:1"]
    first = _env_file.model_variables(names)
    assert first == _env_file.model_variables(names[::-1])
    assert len(set(first.values())) == 3
    assert first["c:1"] == "MODEL_C_1"
    assert all(re.fullmatch(r"MODEL_A_B_1_[0-9A-F]{8}", first[name]) for name in names[:2])


AWKWARD = "sp ace \"quote\" 'single' $HOME `id` back\\slash # hash = equals ü !x ~"


def test_awkward_values_survive_parser_and_shell(tmp_path):
    text = _env_file.render(MODELS, settings(OLLAMA_AWKWARD=AWKWARD))
    assert _model_config.parse(text).settings["OLLAMA_AWKWARD"] == AWKWARD
    path = tmp_path / "ollama.env"
    path.write_text(text, encoding="utf-8")
    script = f'set -euo pipefail; source {shlex.quote(str(path))}; printf %s "$OLLAMA_AWKWARD"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == AWKWARD


def test_every_line_means_the_same_to_systemd():
    # systemd takes everything behind the '=' for the value, comments included, and undoes only
    # these four escapes within double quotes.
    text = _env_file.render(MODELS, settings(OLLAMA_AWKWARD=AWKWARD))
    line = re.compile(r'^(?:#.*|[A-Z0-9_]+=(?:[0-9]+|"(?:[^"\\$`]|\\["\\$`])*"))?$')
    assert all(line.match(item) for item in text.split("\n"))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": ""}], "entry 1 has the name ''"),
        ([{"name": "a b"}], "'a b'"),
        ([{"name": 'a"b'}], "wanted a model name"),
        ([{"name": "a,b"}], "wanted a model name"),
        ([{"name": "a:1\n"}, {"name": "a:1"}], "listed twice"),
        ([{"name": "a"}, {"name": "a:latest"}], "model a:latest is listed twice"),
        ([{"name": "a", "digest": "xyz"}], "has the digest 'xyz'"),
        ([{"name": "a", "size_bytes": -1}], "size_bytes -1"),
    ],
)
def test_catalog_errors_name_host_and_value(entries, message):
    with pytest.raises(HostError) as caught:
        _env_file.read_models(entries, "llm-01")
    assert message in str(caught.value)
    assert str(caught.value).startswith("llm-01: ")


def test_digest_forms():
    (model,) = _env_file.read_models([{"name": "a", "digest": "SHA256:ABCDEF012345"}], "h")
    assert model.digest == "abcdef012345"


@pytest.mark.parametrize("name", ["OLLAMA_MODELS", "OLLAMA_HOST", "MODEL_X", "a-b", "", "1A"])
def test_extra_may_not_name_what_is_rendered(name):
    with pytest.raises(HostError):
        _env_file.read_extra({name: "x"}, "llm-01")


def test_extra_values():
    extra = _env_file.read_extra({"A": True, "B": 3, "C": "x"}, "llm-01")
    assert extra == {"A": "true", "B": "3", "C": "x"}
    with pytest.raises(HostError, match="line end"):
        _env_file.read_extra({"A": "x\nB=1"}, "llm-01")


def test_diff_hides_secrets():
    text = 'API_KEY="hunter2"\nexport HF_TOKEN = hunter2\n#PASSWORD=hunter2\nDB_PASS hunter2\nA=b'
    shown = _env_file.hide_secrets(text)
    assert "hunter2" not in shown
    assert shown.endswith("\nA=b")
    proxy = "HTTPS_PROXY=http://ann:hunter2@proxy.example.com:3128/"
    assert _env_file.hide_secrets(proxy) == "HTTPS_PROXY=http://(hidden)@proxy.example.com:3128/"
