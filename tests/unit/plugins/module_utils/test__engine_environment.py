# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _engine_environment as environment

PROCESS = {
    "PATH": "/usr/bin",
    "HOME": "/var/lib/ollama",
    "INVOCATION_ID": "5",
    "OLLAMA_NOPRUNE": "1",
    "OLLAMA_MODELS": "/mnt/models",
    "MODEL_OLD": "phi3:latest",
}
SHOWN = """\
Environment=HOME=/var/lib/ollama OLLAMA_NOPRUNE=1 "NOTE=a \\"b\\" \\$c"
EnvironmentFiles={path} (ignore_errors=no)
PassEnvironment=LANG
UnsetEnvironment=OLLAMA_DEBUG
"""


@pytest.fixture
def file(tmp_path):
    """An environment file as the running service has loaded it."""
    path = tmp_path / "ollama.env"
    path.write_text("OLLAMA_MODELS=/mnt/models\nMODEL_NEW=qwen3:1.7b\nOLLAMA_DEBUG=1\n")
    return path


def outdated(file, process=None, *, since=None, inherited=None):
    unit = environment.parse_show(SHOWN.format(path=file))
    since = os.stat(file).st_ctime + 1 if since is None else since
    return environment.outdated(
        unit, {**PROCESS, **(process or {})}, since=since, inherited=lambda: inherited or {}
    )


def test_what_systemd_has_loaded(file, tmp_path):
    other = tmp_path / "other.env"
    other.write_text("")
    text = SHOWN.format(path=file) + f"EnvironmentFiles={tmp_path}/oth*.env (ignore_errors=yes)\n"
    unit = environment.parse_show(text)
    assert unit.own == {"HOME": "/var/lib/ollama", "OLLAMA_NOPRUNE": "1", "NOTE": 'a "b" $c'}
    assert unit.files == (str(file), str(other))
    assert unit.left_alone == {"LANG", "OLLAMA_DEBUG"}
    assert environment.parse_show("Environment=\nEnvironmentFiles=\n").files == ()


def test_other_models_are_no_reason_for_a_restart(file):
    assert outdated(file) == []
    # Nor is a file that was written after the start, as long as it says the same.
    assert outdated(file, since=0.0) == []


def test_a_setting_that_the_process_lacks_is_one(file):
    assert outdated(file, {"OLLAMA_MODELS": "/data"}) == ["OLLAMA_MODELS"]
    with file.open("a") as stream:
        stream.write("OLLAMA_KEEP_ALIVE=1h\n")
    assert outdated(file) == ["OLLAMA_KEEP_ALIVE"]


def test_a_setting_that_is_gone_is_one_when_the_file_was_written_since(file):
    process = {"OLLAMA_KEEP_ALIVE": "1h"}
    assert outdated(file, process, since=0.0) == ["OLLAMA_KEEP_ALIVE"]
    assert outdated(file, process) == []
    assert outdated(file, process, since=0.0, inherited=process) == []
    assert outdated(file, {"SOMETHING_ELSE": "1"}, since=0.0) == []


def test_of_two_files_the_later_one_decides(file, tmp_path):
    later = tmp_path / "later.env"
    later.write_text("OLLAMA_MODELS=/data\n")
    unit = environment.UnitEnvironment(files=(str(file), str(later), "/nonexistent"))
    assert environment.outdated(
        unit, {**PROCESS, "OLLAMA_MODELS": "/data", "OLLAMA_DEBUG": "1"}, since=9e9, inherited=dict
    ) == []  # fmt: skip


def test_the_file_is_in_force_or_the_verdict_says_what_is_not(file):
    unit = environment.parse_show(SHOWN.format(path=file))
    assert environment.judge_files(str(file), unit, PROCESS).status == "PASS"
    with file.open("a") as stream:
        stream.write("HF_TOKEN=abc\nHTTPS_PROXY=http://me:secret@proxy\n")
    verdict = environment.judge_files(str(file), unit, PROCESS)
    assert verdict.status == "FAIL"
    assert verdict.evidence == (
        "HF_TOKEN is not set, wanted (hidden); HTTPS_PROXY is not set, wanted http://(hidden)@proxy"
    )
    verdict = environment.judge_files("/etc/other.env", unit, PROCESS)
    assert verdict.status == "FAIL"
    assert verdict.evidence == f"the unit loads {file}"


def test_commands_are_asked_in_the_ways_of_systemd(file):
    asked = []

    def run(command):
        asked.append(command)
        return 0, "LANG=C\nA=b=c\n" if "show-environment" in command else "Environment=A=b\n", ""

    assert environment.observe("o.service", run).own == {"A": "b"}
    assert environment.inherited(run) == {"LANG": "C", "A": "b=c"}
    assert asked[0][:3] == ["systemctl", "show", "o.service"]
