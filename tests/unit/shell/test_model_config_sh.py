# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import random
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _model_config

ROOT = Path(__file__).parents[3]
LIBRARY = ROOT / "roles/operator_scripts/files/opt/scripts/lib/model-config.sh"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "model_config"
LINES = json.loads((FIXTURES / "lines.json").read_text(encoding="utf-8"))
SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:/usr/bin")
STRICT = f"set -euo pipefail; source {shlex.quote(str(LIBRARY))}; "


def bash(script, *arguments):
    done = subprocess.run(
        ["bash", "-c", STRICT + script, "bash", *arguments],
        capture_output=True,
        timeout=60,
        check=False,
    )
    # Decoded here: the text mode of subprocess would turn a bare \r into a line end.
    done.stdout, done.stderr = (
        stream.decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr)
    )
    return done


def references(path):
    done = bash('extract_model_references "$1"', str(path))
    assert done.returncode == 0, done.stderr
    first, *variables, last = done.stdout.split("\n")[:-1]
    assert first == "Individual model variables:"
    assert all(line.startswith("  ") for line in variables)
    assert last.startswith("Available models list: ")
    pairs = [line[2:].split(" = ", 1) for line in variables]
    return pairs, last[len("Available models list: ") :]


def parsed(path):
    config = _model_config.parse(Path(path).read_bytes())
    pairs = [[item.name, item.value] for item in config.variables]
    return pairs, config.settings.get(_model_config.AVAILABLE, "")


@pytest.mark.parametrize("case", LINES, ids=lambda case: ascii(case["line"])[:40])
def test_single_lines(case):
    done = bash('extract_model_value "$1"', case["line"])
    if case["value"] is None:
        assert (done.returncode, done.stdout) == (1, "")
    else:
        assert (done.returncode, done.stdout) == (0, case["value"] + "\n")
    done = bash('is_model_variable "$1"', case["line"])
    assert done.returncode == (0 if case["model_variable"] else 1)
    assert done.stdout == done.stderr == ""


def test_output_of_extract_model_references():
    done = bash('extract_model_references "$1"', str(FIXTURES / "canonical.env"))
    assert done.stderr == ""
    assert done.stdout == (
        "Individual model variables:\n"
        "  MODEL_LLAMA3_2_3B = llama3.2:3b\n"
        "  MODEL_QWEN3_1_7B = qwen3:1.7b\n"
        "  MODEL_MISTRAL_SMALL3_2 = mistral-small3.2:latest\n"
        "Available models list: llama3.2:3b,qwen3:1.7b,mistral-small3.2:latest\n"
    )


@pytest.mark.parametrize("name", ["canonical", "pinned", "drifted", "plain", "empty"])
def test_library_and_parser_agree_on_files(name):
    path = FIXTURES / f"{name}.env"
    assert references(path) == parsed(path)


def test_library_and_parser_agree_on_a_windows_file(tmp_path):
    path = tmp_path / "windows.env"
    text = (FIXTURES / "plain.env").read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert references(path) == references(FIXTURES / "plain.env") == parsed(path)


def test_library_and_parser_agree_on_random_lines(tmp_path):
    source = random.Random(20260102)
    pieces = ["MODEL_A", "OLLAMA_MODEL_b", "X", "=", "=", " ", "\t", "#", '"', "'", "\\", "$", "`"]
    pieces += ["export ", "a:1b", "é", "@sha256:abcdef", ",", "*", "OLLAMA_MODELS_AVAILABLE", "\r"]
    path = tmp_path / "random.env"
    lines = ["".join(source.choices(pieces, k=source.randrange(1, 9))) for _turn in range(1500)]
    # Few of them are assignments of a model by chance alone.
    lines += [f"MODEL_{n}={''.join(source.choices(pieces, k=4))}" for n in range(1500)]
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    assert references(path) == parsed(path)


def test_random_bytes_never_stop_the_library(tmp_path):
    path = tmp_path / "random.env"
    path.write_bytes(random.Random(20260103).randbytes(20_000))
    done = bash('extract_model_references "$1"', str(path))
    assert done.returncode == 0
    assert "Available models list: " in done.stdout


def test_malformed_model_lines_are_warned_about():
    done = bash('extract_model_references "$1"', str(FIXTURES / "drifted.env"))
    assert "line 8: the value of OLLAMA_MODEL_OPEN can't be read" in done.stderr
    assert "OLLAMA_MODEL_OPEN" not in done.stdout


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_file_that_cannot_be_read(tmp_path, kind):
    path = tmp_path / "none.env"
    if kind == "directory":
        path.mkdir()
    done = bash('extract_model_references "$1"', str(path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"{path} does not exist or is not readable" in done.stderr


def test_wrong_number_of_arguments():
    done = bash("extract_model_references")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Usage: extract_model_references FILE" in done.stderr


def test_functions_leave_the_caller_alone(tmp_path):
    script = (
        "LC_ALL=C.UTF-8; name=mine; line=mine; values=mine; number=7; "
        'extract_model_references "$1" >/dev/null; '
        'if is_model_variable "X=y"; then exit 9; fi; '
        'echo "$name $line $values $number $LC_ALL"'
    )
    done = bash(script, str(FIXTURES / "canonical.env"))
    assert (done.returncode, done.stdout) == (0, "mine mine mine 7 C.UTF-8\n")


def test_values_are_never_evaluated(tmp_path):
    path = tmp_path / "evil.env"
    path.write_text(f"MODEL_A=$(touch {tmp_path}/a)\nMODEL_B=`touch {tmp_path}/b`\nMODEL_C=*\n")
    assert references(path) == parsed(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.env"]


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_executing_the_library_is_refused(shell):
    done = subprocess.run([shell, str(LIBRARY)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ERROR: model-config.sh" in done.stderr


@pytest.mark.skipif(not SHELLCHECK, reason="shellcheck is not installed")
def test_shellcheck():
    done = subprocess.run([SHELLCHECK, str(LIBRARY)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
