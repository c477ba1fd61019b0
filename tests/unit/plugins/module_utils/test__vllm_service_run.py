# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One service on a host that is played: systemd, the endpoint, and who listens."""

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service as service
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_memory as memory
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_run as run
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Answer
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Listener

UNIT = "citadel-llm@tiny.service"
DIES = "RuntimeError: Unsupported CPU attention configuration: head_dim=16"


class Host:
    """Plays systemd for one unit; what its file holds decides whether it starts and answers.

    ``serves``: all is well. ``never ready``: the start fails. ``dies``: the first request fails.
    """

    def __init__(self, root):
        self.folder = str(root / "service")
        self.file = root / "tiny.yaml"
        self.file.write_text("serves 1")
        self.active, self.enabled = "inactive", "disabled"
        self.calls, self.foreign, self.lingering = [], "", False
        self.time = 0.0

    def target(self, **changes):
        declared = service.Declared(unit=UNIT, folder=self.folder, release="/v/1", **changes)
        return run.Target(declared, "llm-01", (str(self.file),), ("tiny",), 8001)

    def io(self):
        return run.Io(
            run=self.run,
            prepare=self.prepare,
            listeners=self.listeners,
            pids=self.pids,
            now=lambda: 1000.0 + self.time,
            monotonic=lambda: self.time,
            sleep=self.sleep,
        )

    def sleep(self, seconds):
        self.time += seconds

    def run(self, argv):
        if argv[0] == "journalctl":
            return 0, DIES if "dies" in self.file.read_text() else "ValueError: strange", ""
        verb = argv[1]
        if verb == "show":
            shown = {
                "LoadState": "loaded",
                "ActiveState": self.active,
                "UnitFileState": self.enabled,
                "NeedDaemonReload": "no",
                "ExecMainStatus": "1" if self.active == "failed" else "0",
            }
            return 0, "\n".join(f"{name}={value}" for name, value in shown.items()), ""
        self.calls.append(verb)
        if verb in ("start", "restart"):
            self.active = "failed" if "never ready" in self.file.read_text() else "active"
            return (0 if self.active == "active" else 1), "", "Job failed."
        if verb == "stop":
            self.active = "inactive"
        if verb in ("enable", "disable"):
            self.enabled = f"{verb}d"
        return 0, "", ""

    def listeners(self):
        if self.foreign:
            return [Listener("0.0.0.0", 8001, 9, "nginx", frozenset([self.foreign]))]
        if self.active == "active":
            return [Listener("0.0.0.0", 8001, 7, "vllm", frozenset([UNIT]))]
        return []

    def pids(self, _units):
        alive = self.active == "active" or self.lingering
        return {UNIT: frozenset([7, 8]) if alive else frozenset()}

    def prepare(self, method, _path, _body, _timeout):
        def send():
            if method == "GET":
                return Answer(200, iter([b'{"data": [{"id": "tiny"}]}']))
            if "dies" in self.file.read_text():
                return Answer(500, iter([b"EngineDeadError"]))
            event = {"choices": [{"text": "x", "finish_reason": "length"}]}
            return Answer(200, iter([f"data: {json.dumps(event)}\n\ndata: [DONE]\n".encode()]))

        return send

    def bring(self, **changes):
        target = self.target(**changes)
        state = service.observe(UNIT, self.run)
        now = memory.release_of(self.folder)
        steps = service.plan_started(target.declared, state, now, [])
        return run.apply_started(target, steps, self.io())


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_a_service_is_started_enabled_proven_and_remembered(host):
    proof = host.bring()
    assert proof["finish_reason"] == "length"
    assert (host.active, host.enabled) == ("active", "enabled")
    assert memory.release_of(host.folder) == "/v/1"
    assert memory.read(host.folder, memory.GOOD).release == "/v/1"
    host.calls.clear()
    host.bring()
    assert host.calls == []


@pytest.mark.parametrize(
    ("content", "said"), [("never ready", "strange"), ("dies", "head_dim is 16")]
)
def test_what_never_served_is_stopped_and_not_enabled(host, content, said):
    host.file.write_text(content)
    with pytest.raises(HostError, match=f"{said}.*never served before") as caught:
        host.bring()
    assert str(caught.value).startswith(f"llm-01: {UNIT} ")
    assert (host.active, host.enabled) == ("inactive", "disabled")
    assert memory.read(host.folder, memory.GOOD) is None


@pytest.mark.parametrize("content", ["never ready", "dies"])
def test_what_does_not_serve_is_undone_and_the_old_serves(host, content):
    host.bring()
    host.file.write_text(content)
    with pytest.raises(HostError, match="put back and serves on the release /v/1"):
        host.bring(changed=True)
    assert host.file.read_text() == "serves 1"
    assert (host.active, host.enabled) == ("active", "enabled")


def test_when_the_old_does_not_serve_either_both_are_told(host):
    host.bring()
    host.file.write_text("dies")
    memory_file = f"{host.folder}/good/0"
    with open(memory_file, "w") as stream:
        stream.write("never ready")
    with pytest.raises(HostError, match=r"head_dim.*does not serve either: .*strange"):
        host.bring(changed=True)


def test_a_service_that_is_as_it_was_is_left_to_systemd(host):
    host.bring()
    host.active = "inactive"
    host.file.write_text("serves 1")
    real = host.run

    def refuse(argv):
        return (1, "", "no") if argv[1:2] == ["start"] else real(argv)

    host.run = refuse
    with pytest.raises(HostError, match="Nothing was changed that could be put back"):
        host.bring()
    assert "stop" not in host.calls


def test_a_port_that_another_holds_is_refused_before_the_start(host):
    host.foreign = "nginx.service"
    with pytest.raises(HostError, match=r"port 8001 .* held by nginx \(pid 9, nginx.service\)"):
        host.bring()
    assert "start" not in host.calls


def test_an_answer_of_another_process_is_no_proof(host):
    host.bring()
    host.foreign = "nginx.service"
    with pytest.raises(HostError, match=r"nginx \(pid 9\) listens on port 8001, wanted a process"):
        host.bring()


def test_a_broken_service_that_nothing_changed_is_told_and_not_touched(host):
    host.bring()
    host.file.write_text("dies")
    host.calls.clear()
    with pytest.raises(HostError, match="first request failed with 'status 500: EngineDeadError'"):
        host.bring()
    assert host.calls == []


def roll_back(host):
    target = host.target()
    name, steps = service.plan_restored(
        target.declared,
        memory.read(host.folder, memory.GOOD),
        memory.read(host.folder, memory.PREVIOUS),
        memory.current(host.folder, target.files),
        "llm-01",
    )
    run.apply_restored(target, name, steps, host.io())


def test_a_rollback_serves_and_can_be_taken_back(host):
    host.bring()
    host.file.write_text("serves 2")
    host.bring(changed=True)
    for expected in ("serves 1", "serves 2"):
        roll_back(host)
        assert host.file.read_text() == expected


def test_a_rollback_to_a_port_that_another_holds_stops_nothing(host):
    host.bring()
    host.file.write_text("serves 2")
    host.bring(changed=True)
    host.foreign = "nginx.service"
    host.calls.clear()
    with pytest.raises(HostError, match="port 8001"):
        roll_back(host)
    assert host.calls == []
    assert host.file.read_text() == "serves 2"


def remove(host):
    target = host.target()
    state = service.observe(UNIT, host.run)
    steps = service.plan_absent(UNIT, state, target.files, host.folder)
    run.apply_absent(target, steps, host.io())


def test_a_removal_leaves_nothing(host):
    host.bring()
    remove(host)
    assert (host.active, host.enabled) == ("inactive", "disabled")
    assert not host.file.exists()
    assert memory.release_of(host.folder) == ""


def test_a_process_that_stays_is_told(host):
    host.bring()
    host.lingering = True
    with pytest.raises(HostError, match=r"processes 7, 8 of .* are still there, wanted none"):
        remove(host)


def test_a_port_that_is_not_free_after_a_removal_is_told(host):
    host.bring()
    host.foreign = "nginx.service"
    with pytest.raises(HostError, match="port 8001"):
        remove(host)
