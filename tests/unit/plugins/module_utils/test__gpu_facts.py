# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_facts as facts
from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_nvml as nvml
from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_process
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import (
    Outcome,
    run_killable,
)

DRIVER = {"driver": {"version": "575.64.03", "cuda_version": "12.9"}, "count": 2}
GPU = {"gpu": {"index": 0, "state": "ok", "errors": [], "name": "x"}}
DONE = {"done": True}


def lines(*entries):
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def understood(out, rc=0, err=""):
    return nvml.facts_from_lines(Outcome(rc, out, err), "/venv/bin/python", 5)


def test_whole_answer():
    found = understood(lines(DRIVER, {"reading": 0}, GPU, DONE))
    assert found["state"] == "ok"
    assert found["driver"]["version"] == "575.64.03"
    assert [gpu["index"] for gpu in found["gpus"]] == [0]
    assert found["errors"] == found["notes"] == []


def test_what_is_said_of_the_binding():
    package = {"name": "nvidia-ml-py", "version": "13.615.71"}
    notes = [{"what": "package", "message": "remove pynvml"}]
    found = understood(lines({**DRIVER, "package": package, "notes": notes}, GPU, DONE))
    assert found["driver"]["package"] == package
    assert found["notes"] == notes


@pytest.mark.parametrize(
    ("out", "rc", "state", "words"),
    [
        (lines({"error": {"state": "version_mismatch", "code": 18, "message": "m"}}), 1,
         "version_mismatch", "m"),
        (lines({"error": {"state": "no_binding", "message": "No module named pynvml"}}), 3,
         "no_binding", "pynvml"),
        (lines({"driver": {}, "count": 0}, DONE), 0, "no_gpu", "no GPU"),
        ("", None, "timeout", "reading the driver"),
        (lines(DRIVER, {"reading": 0}, GPU, {"reading": 1}), None, "timeout", "reading GPU 1"),
        (lines(DRIVER, {"reading": 0}), -11, "error", "status -11"),
        ("", 127, "no_reader", "status 127"),
        ("not json\n", 1, "no_reader", "status 1"),
    ],
)  # fmt: skip
def test_other_answers(out, rc, state, words):
    found = understood(out, rc)
    assert found["state"] == state
    assert words in found["errors"][0]["message"]


def test_what_was_read_before_a_hang_is_kept():
    found = understood(lines(DRIVER, {"reading": 0}, GPU, {"reading": 1}), None)
    assert [gpu["index"] for gpu in found["gpus"]] == [0]


def test_program_text_is_sent_to_the_interpreter():
    asked = []

    def run(argv, timeout):
        asked.append(argv)
        return Outcome(0, lines(DRIVER, GPU, DONE), "")

    nvml.read_nvml("/venv/bin/python", 5, run)
    assert asked[0][:4] == ["/venv/bin/python", "-I", "-B", "-c"]
    assert "import pynvml" in asked[0][4]


def runner(answers):
    def run(argv, timeout):
        return answers["nvidia-smi" if argv[0].endswith("nvidia-smi") else "nvml"]

    return run


XML = "<nvidia_smi_log><driver_version>1</driver_version><gpu><uuid>u</uuid></gpu></nvidia_smi_log>"
NO_BINDING = Outcome(3, lines({"error": {"state": "no_binding", "message": "none"}}), "")
MISMATCH = Outcome(
    1, lines({"error": {"state": "version_mismatch", "code": 18, "message": "x"}}), ""
)
GOOD = Outcome(0, lines(DRIVER, GPU, DONE), "")


@pytest.mark.parametrize(
    ("source", "python", "smi", "child", "used", "state"),
    [
        ("auto", "/venv/python", "/bin/nvidia-smi", GOOD, "nvml", "ok"),
        ("auto", "/venv/python", "/bin/nvidia-smi", NO_BINDING, "nvidia-smi", "ok"),
        ("auto", None, "/bin/nvidia-smi", GOOD, "nvidia-smi", "ok"),
        ("auto", "/venv/python", "/bin/nvidia-smi", MISMATCH, "nvml", "version_mismatch"),
        ("auto", "/venv/python", None, NO_BINDING, "none", "no_reader"),
        ("auto", None, None, GOOD, "none", "no_reader"),
        ("nvml", "/venv/python", "/bin/nvidia-smi", NO_BINDING, "nvml", "no_binding"),
        ("nvidia-smi", "/venv/python", "/bin/nvidia-smi", GOOD, "nvidia-smi", "ok"),
    ],
)
def test_which_source_is_used(source, python, smi, child, used, state):
    run = runner({"nvml": child, "nvidia-smi": Outcome(0, XML, "")})
    found = facts.read_gpus(source, python, smi, 5, run)
    assert (found["source"], found["state"]) == (used, state)
    assert found["state"] in facts.STATES
    assert found["notes"] == []


def test_a_fallback_says_why():
    run = runner({"nvml": NO_BINDING, "nvidia-smi": Outcome(0, XML, "")})
    found = facts.read_gpus("auto", "/venv/python", "/bin/nvidia-smi", 5, run)
    assert [error["source"] for error in found["errors"]] == ["nvml"]


def test_a_group_is_killed_at_the_deadline(tmp_path):
    sign = tmp_path / "still-here"
    grandchild = f"import time; time.sleep(1.2); open({str(sign)!r}, 'w')"
    program = (
        "import subprocess, sys, time\n"
        "print('begun', flush=True)\n"
        f"subprocess.Popen([sys.executable, '-c', {grandchild!r}])\n"
        "time.sleep(60)\n"
    )
    begin = time.monotonic()
    outcome = run_killable([sys.executable, "-c", program], 0.6)
    assert outcome.timed_out
    assert outcome.out == "begun\n"
    assert time.monotonic() - begin < 5
    time.sleep(1.2)
    assert not sign.exists()


def test_a_group_that_cannot_be_killed_holds_nobody_up(monkeypatch):
    kill, groups = os.killpg, []

    def refuse(group, _signal):
        groups.append(group)
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(_gpu_process, "REAP_SECONDS", 0.1)
    program = "import time; print('begun', flush=True); time.sleep(60)"
    outcome = run_killable([sys.executable, "-c", program], 1.0)
    kill(groups[0], signal.SIGKILL)  # it is still there
    assert (outcome.timed_out, outcome.out) == (True, "begun\n")


def test_a_program_that_cannot_be_started():
    outcome = run_killable(["/nowhere/python"], 1)
    assert outcome.rc == 127
    assert "No such file" in outcome.err
