# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _runtime_observe as observe
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Answer
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_model import Service
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Host, Listener

UNIT = "ollama.service"
SERVICE = Service("ollama", "ollama", UNIT, "http://127.0.0.1:11434")
SHOWN = "ActiveState=active\nMainPID=100\nInvocationID=abc\n"
# As Ollama 0.11.4 and 0.32 write it; without a GPU there is one line for the CPU.
LOG_OLD = (
    'time=2026-11-20T10:00:00Z level=INFO source=types.go:130 msg="inference compute" id=GPU-1'
    ' library=cuda variant=v12 compute=8.9 driver=12.9 name="NVIDIA GeForce RTX 4070 Ti"'
    ' total="11.6 GiB" available="11.1 GiB"\n'
)
LOG_NEW = LOG_OLD.replace("GPU-1", "GPU-2").replace("library=cuda", "library=CUDA")
LOG_CPU = 'level=INFO source=types.go:130 msg="inference compute" id=0 library=cpu total="31 GiB"\n'


def transport(**pages):
    """Answer GETs by path; a path that isn't there refuses the connection."""

    def prepare(_method, path, _body, _timeout):
        def send():
            found = pages.get(path.strip("/").replace("/", "_"))
            if found is None:
                raise ConnectionRefusedError("connection refused")
            status, body = found if isinstance(found, tuple) else (200, found)
            return Answer(status, iter([json.dumps(body).encode()]))

        return send

    return prepare


PAGES = {
    "api_version": {"version": "0.11.4"},
    "api_tags": {"models": [{"name": "phi3:latest", "digest": "74d1"}]},
    "api_ps": {"models": [{"name": "phi3:latest", "size": 1, "size_vram": 1}]},
}


def look(*, shown=SHOWN, log="", host=None, environment=None, service=SERVICE, pages=None):
    commands = []

    def run(argv, timeout_s):
        commands.append((argv[0], timeout_s))
        if argv[0] == "systemctl":
            return Outcome(0, shown, "") if shown is not None else Outcome(None, "", "")
        return Outcome(0 if log else 1, log, "")

    [seen] = observe.look(
        [service],
        run,
        lambda _service: transport(**(PAGES if pages is None else pages)),
        7.0,
        observed=lambda _units: host or Host(),
        environment_of=lambda _pid: environment or {},
    )
    return seen, commands


def test_everything_that_is_there_is_found():
    listener = Listener("::", 11434, 100)
    host = Host(
        listeners=(listener,),
        unit_memory={UNIT: 50},
        unit_pids={UNIT: frozenset([100, 101])},
    )
    environment = {"CUDA_VISIBLE_DEVICES": "GPU-1"}
    seen, commands = look(log=LOG_OLD, host=host, environment=environment)
    assert (seen.active, seen.main_pid, seen.pids) == (True, 100, frozenset([100, 101]))
    assert (seen.listeners, seen.resident) == ((listener,), 50)
    assert (seen.limited_to, seen.logged_gpus) == (1, 1)
    assert (seen.api.version, seen.api.problem) == ("0.11.4", "")
    assert [item["name"] for item in seen.api.loaded] == ["phi3:latest"]
    assert commands == [("systemctl", 7.0), ("journalctl", 7.0)]


def test_a_service_that_does_not_run_is_not_asked():
    seen, commands = look(shown="ActiveState=failed\nMainPID=0\n", pages={})
    assert not seen.active
    assert seen.api.problem == "not asked"
    assert [name for name, _timeout in commands] == ["systemctl"]


def test_a_systemd_that_hangs_leaves_the_state_unknown():
    seen, _commands = look(shown=None)
    assert seen.state == {}
    assert seen.api.version == "0.11.4"


def test_the_main_process_counts_where_the_control_group_cannot_be_read():
    seen, _commands = look()
    assert seen.pids == frozenset([100])


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        (LOG_OLD, 1),
        (LOG_OLD + LOG_NEW, 2),
        (LOG_OLD + LOG_OLD, 1),
        (LOG_CPU, 0),
        ("", None),
        ("[GIN] 200 | GET /api/tags\n", None),
    ],
)
def test_the_gpus_of_the_log(log, wanted):
    assert observe.logged_gpus(log) == wanted


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, 1),
        ({"ROCR_VISIBLE_DEVICES": "0"}, 1),
        ({"OTHER": "0"}, None),
    ],
)
def test_what_an_environment_limits_to(environment, wanted):
    assert observe.limit_of(environment) == wanted


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ({}, "GET /api/version failed: connection refused."),
        ({"api_version": (503, {})}, "GET /api/version answered status 503, wanted 200."),
        ({"api_version": {}}, "GET /api/version answered no version."),
        ({"api_version": ["x"]}, "GET /api/version answered no version."),
    ],
)
def test_an_api_that_says_nothing(pages, said):
    seen, _commands = look(pages=pages)
    assert seen.api.problem == said


def test_a_list_of_models_that_is_none():
    seen, _commands = look(pages={**PAGES, "api_tags": {"error": "x"}})
    assert (seen.api.problem, seen.api.models) == ("", None)
    assert seen.api.models_problem == "the answer holds no list 'models'."


def test_an_openai_engine():
    service = Service("qwen3", "openai", "citadel-llm@qwen3.service", "http://llm-01:8001")
    pages = {"version": {"version": "0.32.0"}, "v1_models": {"data": [{"id": "qwen3"}]}}
    seen, commands = look(service=service, pages=pages)
    assert (seen.api.version, seen.api.models) == ("0.32.0", ({"name": "qwen3"},))
    assert [name for name, _timeout in commands] == ["systemctl"]
    seen, _commands = look(service=service, pages={"v1_models": (401, {})})
    assert seen.api.problem == "GET /v1/models answered status 401, wanted 200."
    seen, _commands = look(service=service, pages={"v1_models": {"data": []}})
    assert (seen.api.version, seen.api.models) == ("", ())
