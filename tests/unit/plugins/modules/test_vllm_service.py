# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_memory as memory
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.modules import vllm_service

UNIT = "citadel-llm@tiny.service"
READY = {"url": "http://127.0.0.1:8001", "port": 8001, "models": ["tiny"], "key_file": ""}


class Module:
    """Plays the module's object: parameters, a host without the unit, and what was warned of."""

    check_mode = True

    def __init__(self, folder, **params):
        given = {name: option.get("default") for name, option in vllm_service.ARGUMENT_SPEC.items()}
        self.params = {**given, "unit": UNIT, "folder": str(folder / "service"), **params}
        self.warned, self.no_log_values = [], set()

    def warn(self, text):
        self.warned.append(text)

    def run_command(self, _argv):
        return 0, "LoadState=not-found\nActiveState=inactive\nUnitFileState=\n", ""


def work(module):
    result = {}
    vllm_service.work(module, vllm_service.target_of(module.params, "llm-01"), result)
    return result


@pytest.fixture
def ready(tmp_path):
    path = tmp_path / "tiny.ready.json"
    path.write_text(json.dumps(READY))
    return path


@pytest.fixture
def served(tmp_path, ready):
    """A service that has served with one state and then with another."""
    folder = str(tmp_path / "service")
    file = tmp_path / "tiny.yaml"
    for text in ("one", "two"):
        file.write_text(text)
        memory.remember(folder, [str(file), str(ready)])
    return {"files": [str(file)], "records": [str(ready)], "ready_file": str(ready)}


def test_a_rollback_is_planned_with_the_way_to_prove_it(tmp_path, served):
    result = work(Module(tmp_path, state="restored", **served))
    assert [step["action"] for step in result["plan"]] == [
        "restore",
        "reload_systemd",
        "enable",
        "start",
    ]


def test_a_unit_that_was_remembered_elsewhere_is_no_difference(tmp_path, served):
    """What a container's unit is called depends on the engine, which may not be there to ask."""
    folder = str(tmp_path / "service")
    quadlet = tmp_path / "tiny.container"
    quadlet.write_text("[Container]")
    memory.remember(folder, [*served["files"], *served["records"], str(quadlet)])
    module = Module(tmp_path, state="restored", **served)
    assert "enable" in [step["action"] for step in work(module)["plan"]]  # back to one without it
    memory.put_back(folder, "previous", [str(quadlet)])
    memory.swap(folder)
    assert not quadlet.exists()
    assert "enable" not in [step["action"] for step in work(module)["plan"]]  # and to it again


def test_a_release_that_is_empty_is_none_and_one_left_out_is_the_one_that_is_there(tmp_path):
    memory.place_release(str(tmp_path / "service"), "/v/1")
    for release, switched in ((None, []), ("", [""]), ("/v/1", []), ("/v/2", ["/v/2"])):
        found = work(Module(tmp_path, release=release))
        targets = [s["target"] for s in found["plan"] if s["action"] == "switch_release"]
        assert targets == switched
        assert ("diff" in found) is (release is not None)


DAMAGED = ["", "{", '{"url": "http', "[]", "{}", "null", '{"url": "", "port": [], "models": []}']


def endpoint(module, name=""):
    target = vllm_service.target_of(module.params, "llm-01")
    return vllm_service.proven_at(module, target, name)


@pytest.mark.parametrize("text", DAMAGED[1:])
def test_a_remembered_ready_file_that_is_damaged_names_host_and_file(tmp_path, served, ready, text):
    folder = str(tmp_path / "service")
    ready.write_text(text)
    memory.remember(folder, [*served["files"], *served["records"]])
    with pytest.raises(HostError) as caught:
        endpoint(Module(tmp_path, state="restored", **served), memory.GOOD)
    said = str(caught.value)
    assert said.startswith(f"llm-01: the remembered {ready} is damaged (")
    assert said.endswith("Run the playbook vllm, which writes it anew.")


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_ready_file_does_not_keep_a_service_from_being_removed(
    tmp_path, served, ready, text
):
    ready.write_text(text)
    module = Module(tmp_path, state="absent", **served)
    target, _io = endpoint(module)
    assert target.port == 0
    if text:
        [said] = module.warned
        assert said.startswith(f"llm-01: {ready} is damaged (")
        assert said.endswith(f"so the port of {UNIT} isn't known.")


def test_what_was_put_back_is_proven_where_its_own_ready_file_says(tmp_path, served, ready):
    ready.write_text(json.dumps({**READY, "port": 9001, "own_process": False}))
    target, _io = endpoint(Module(tmp_path, state="restored", **served), memory.GOOD)
    assert (target.port, target.models, target.own_process) == (8001, ("tiny",), True)
    target, _io = endpoint(Module(tmp_path, state="absent", **served))
    assert (target.port, target.own_process) == (9001, False)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("good/state.json", "It counts as not remembered."),
        ("previous/0", "checksum"),
    ],
)
def test_a_damaged_memory_is_warned_of(tmp_path, served, name, said):
    path = tmp_path / "service" / name
    path.write_text("{")
    module = Module(tmp_path, state="restored", **served)
    if name.startswith("good"):
        work(module)
    else:
        with pytest.raises(HostError, match=r"^llm-01: .* no earlier state .*checksum"):
            work(module)
    [warning] = module.warned
    assert warning.startswith(f"llm-01: {path} is damaged (")
    assert said in warning


def test_a_damaged_note_of_a_rollback_names_host_and_file(tmp_path, served):
    path = tmp_path / "service" / "rollback.json"
    path.write_text('{"release": ')
    with pytest.raises(HostError, match=rf"^llm-01: {path} is damaged .* Run the playbook vllm"):
        work(Module(tmp_path, state="restored", **served))


def test_a_damaged_memory_never_stops_a_run_that_serves(tmp_path, served):
    for name in ("good/state.json", "previous/state.json", "rollback.json"):
        (tmp_path / "service" / name).write_text("{")
    module = Module(tmp_path, **served)
    assert vllm_service.remembered_good(module, vllm_service.target_of(module.params, "x")) is None
    assert work(module)["plan"]
