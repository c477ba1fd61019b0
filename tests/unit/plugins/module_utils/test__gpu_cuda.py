# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_cuda, _gpu_cuda_child
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

GOOD = {"index": 0, "ok": True, "uuid": "GPU-0", "message": "", "milliseconds": 12.5}
BAD = {"index": 1, "ok": False, "message": "cuMemAlloc_v2: out", "call": "cuMemAlloc_v2", "code": 2}


def result(rc, *lines, err=""):
    text = "".join(line if isinstance(line, str) else f"{json.dumps(line)}\n" for line in lines)
    return _gpu_cuda.from_lines(Outcome(rc, text, err), 3.0)


def test_ok():
    found = result(0, {"step": "cuInit"}, {"count": 1}, {"gpu": GOOD}, {"done": True})
    assert found == {"state": "ok", "message": "", "gpus": [GOOD]}


def test_one_of_two_fails():
    found = result(0, {"gpu": GOOD}, {"gpu": BAD}, {"done": True})
    assert (found["state"], found["gpus"]) == ("failed", [GOOD, BAD])
    assert found["message"] == "GPU 1: cuMemAlloc_v2: out"


def test_no_device_is_a_failure():
    assert result(0, {"count": 0}, {"done": True})["state"] == "failed"


@pytest.mark.parametrize("state", ["no_library", "failed", "not_tried"])
def test_cuda_as_a_whole_does_not_work(state):
    found = result(1, {"step": "load"}, {"error": {"state": state, "message": "why"}})
    assert (found["state"], found["message"], found["gpus"]) == (state, "why", [])
    assert "code" not in found


def test_the_code_of_the_whole_is_kept():
    error = {"state": "failed", "message": "cuInit: no device", "code": 100}
    assert result(1, {"error": error})["code"] == 100


def test_a_hang_tells_where():
    found = result(None, {"gpu": GOOD}, {"step": "cuMemcpyHtoD_v2", "index": 1}, '{"st')
    assert found["state"] == "timeout"
    assert found["message"] == "GPU 1: cuMemcpyHtoD_v2 did not return within 3 s"
    assert [gpu["ok"] for gpu in found["gpus"]] == [True, False]
    assert found["gpus"][1]["call"] == "cuMemcpyHtoD_v2"


def test_a_hang_before_the_first_gpu():
    found = result(None, {"step": "cuInit"})
    assert found["message"] == "cuInit did not return within 3 s"
    assert found["gpus"] == []


def test_a_hang_before_the_first_word():
    found = result(None)
    assert (found["state"], found["message"]) == ("timeout", "its start did not return within 3 s")


def test_a_crash():
    found = result(-6, {"step": "cuCtxSetCurrent", "index": 0})
    assert found["state"] == "failed"
    assert "signal 6 ended the child in cuCtxSetCurrent" in found["message"]


def test_a_child_that_never_ran():
    found = result(127, err="python: No such file or directory")
    assert (found["state"], found["message"]) == (
        "not_tried",
        "python: No such file or directory",
    )


def test_states_are_all_documented():
    states = {result(0, {"gpu": GOOD}, {"done": True})["state"], result(None)["state"]}
    assert {*states, _gpu_cuda.not_tried("")["state"]} <= set(_gpu_cuda.STATES)


def test_patterns():
    first, second = _gpu_cuda_child.patterns()
    assert len(first) == len(second) == _gpu_cuda_child.SIZE
    assert all(one ^ other == 0xFF for one, other in zip(first[:5000], second))
    blocks = {first[at : at + 4096] for at in range(0, len(first), 4096)}
    assert len(blocks) == 256


def test_compare():
    _gpu_cuda_child.compare(b"abc", b"abc")
    with pytest.raises(_gpu_cuda_child.CudaError, match=r"2 of 3 bytes came back wrong.* at 1"):
        _gpu_cuda_child.compare(b"axx", b"abc")
