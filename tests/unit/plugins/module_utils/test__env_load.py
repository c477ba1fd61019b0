# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _env_file as env_file
from ansible_collections.hx_infra.llm.plugins.module_utils import _env_models as env_models
from ansible_collections.hx_infra.llm.plugins.module_utils._env_load import load, settings
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


# As the parser of systemd 252 reads them; its generator for environment.d prints what it read.
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("A=b\n", {"A": "b"}),
        ("A=b", {"A": "b"}),
        ("\n  A = b c \t\r\n", {"A": "b c"}),
        ("A=b # c\n", {"A": "b # c"}),
        ("# A=b\n;C=d\nE=f", {"E": "f"}),
        ("# a \\\nA=b\nC=d\n", {"C": "d"}),
        ("export A=b\nB\nC=d\n", {"C": "d"}),
        ("A=\nB=''\nC=\"\"\n", {"A": "", "B": "", "C": ""}),
        ("A='b \\ $c'\n", {"A": "b \\ $c"}),
        ('A="b \\" \\\\ \\$ \\` \\n"\n', {"A": 'b " \\ $ ` \\n'}),
        ('A="b\\\nc"\nB="d\ne"\n', {"A": "bc", "B": "d\ne"}),
        ("A='b' \"c\" d'e' \n", {"A": "bcd'e'"}),
        ("A=b\\\nc\\ \nD=e\\'f\n", {"A": "bc ", "D": "e'f"}),
        ("A='b\nC=d\n", {"A": "b\nC=d\n"}),
        ("A=1\nA=2\n1A=3\nA-B=4\n", {"A": "2"}),
        ('A="b\x07"\nB="c\td"\n', {"B": "c\td"}),
    ],
)
def test_load(text, wanted):
    assert load(text.encode()) == wanted


def test_bytes_that_are_no_text_are_no_value():
    assert load(b"A=\xff\nB=\xc3\xa9\n") == {"B": "é"}


def test_a_rendered_file_means_what_was_declared():
    extra = {"A": 'b " \\ $c `d`', "B": "", "C": " e ", "D": "#f"}
    models = [env_file.Model("llama3.2:3b", 2_000_000_000)]
    text = env_file.render(models, env_file.Settings("/mnt/models", "0.0.0.0:11434", extra))
    found = load(text.encode())
    assert found["MODEL_LLAMA3_2_3B"] == "llama3.2:3b"
    assert settings(found) == {
        "OLLAMA_MODELS": "/mnt/models",
        "OLLAMA_HOST": "0.0.0.0:11434",
        **extra,
    }


HAND_MADE = """\
# By hand, 2025
OLLAMA_MODELS=/data/models
export HF_TOKEN=abc
MODEL_OLD=phi3:latest
  OLLAMA_MODEL_TWO = 'gemma2:2b'
# Size: 2.0GB
OLLAMA_KEEP_ALIVE=1h
OLLAMA_MODELS_AVAILABLE="phi3:latest,gemma2:2b"
not a line of ours
OLLAMA_MODELS_COUNT=2

"""


def test_the_block_replaces_what_people_wrote_about_models_and_nothing_else():
    models = [env_file.Model("qwen3:1.7b", 1_400_000_000, "8f68893c685c")]
    result = env_models.with_registry(HAND_MADE.encode(), models, "/x.env").decode()
    assert result == (
        "# By hand, 2025\n"
        "OLLAMA_MODELS=/data/models\n"
        "export HF_TOKEN=abc\n"
        "OLLAMA_KEEP_ALIVE=1h\n"
        "not a line of ours\n"
        "\n"
        "# Model registry\n"
        "# Size: 1.4GB, digest 8f68893c685c\n"
        'MODEL_QWEN3_1_7B="qwen3:1.7b"\n'
        "\n"
        'OLLAMA_MODELS_AVAILABLE="qwen3:1.7b"\n'
        "OLLAMA_MODELS_COUNT=1\n"
        'OLLAMA_MODELS_TOTAL_SIZE="1.4GB"\n'
    )
    again = env_models.with_registry(result.encode(), models, "/x.env").decode()
    assert again == result


def test_settings_behind_the_block_survive():
    models = [env_file.Model("a:b", 1)]
    text = env_file.render(models, env_file.Settings("/m", "h:1")) + "OLLAMA_DEBUG=1\n"
    result = env_models.with_registry(text.encode(), [], "/x.env")
    assert load(result)["OLLAMA_DEBUG"] == "1"


def test_a_value_over_several_lines_is_not_torn_apart():
    text = b'OLLAMA_MODELS_AVAILABLE="a:b,\nA=c:d"\n'
    with pytest.raises(HostError, match=r"/x\.env can't be replaced .* Run the phase services"):
        env_models.with_registry(text, [], "/x.env")


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (None, b"", True),
        (b"", b"", False),
        (b"A=1\n", b'# x\nA="1"\nMODEL_X=x:1\nOLLAMA_MODELS_COUNT=1\n', False),
        (b"A=1\n", b"A=2\n", True),
        (b"A=1\nB=2\n", b"A=1\n", True),
        (b"A=1 # one\n", b"A=1\n", True),
    ],
)
def test_settings_changed(before, after, changed):
    assert env_models.settings_changed(before, after) is changed
