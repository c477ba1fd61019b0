# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One service on a host that is played: systemd, the endpoint, and who listens."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service as service
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_memory as memory
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_run as run
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_stable as stable
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
        root.mkdir(exist_ok=True)
        self.folder = str(root / "service")
        self.file = root / "tiny.yaml"
        self.file.write_text("serves 1")
        self.active, self.enabled = "inactive", "disabled"
        self.calls, self.foreign, self.lingering = [], "", False
        self.time = 0.0
        self.process, self.restarts = 100, 0
        self.others, self.oom_kills, self.memory = {"citadel-llm@other.service"}, 3, 8 * 2**30
        self.later = lambda: None  # what happens while it settles
        self.refuses = ""  # a content that doesn't start, although it served once

    def target(self, **changes):
        declared = service.Declared(
            **{"unit": UNIT, "folder": self.folder, "release": "/v/1", **changes}
        )
        return run.Target(declared, "llm-01", (str(self.file),), ("tiny",), 8001)

    def io(self):
        return run.Io(
            run=self.run,
            prepare=self.prepare,
            listeners=self.listeners,
            pids=self.pids,
            look=self.look,
            now=lambda: 1000.0 + self.time,
            monotonic=lambda: self.time,
            sleep=self.sleep,
        )

    def sleep(self, seconds):
        self.time += seconds
        self.later()

    def look(self, unit, _run):
        own = {unit} if self.active == "active" else set()
        return stable.Sight(frozenset(self.others | own), self.oom_kills, self.memory)

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
                "MainPID": str(self.process),
                "NRestarts": str(self.restarts),
            }
            return 0, "\n".join(f"{name}={value}" for name, value in shown.items()), ""
        self.calls.append(verb)
        if verb in ("start", "restart"):
            content = self.file.read_text()
            bad = "never ready" in content or content == self.refuses
            self.active = "failed" if bad else "active"
            self.process += 1
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
    host.refuses = "serves 1"
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


def plan_back(host):
    target = host.target()
    return service.plan_restored(
        target.declared,
        service.observe(UNIT, host.run),
        memory.recall(host.folder),
        memory.current(host.folder, target.files),
        "llm-01",
    )


def roll_back(host):
    name, steps = plan_back(host)
    host.calls.clear()
    return run.apply_restored(host.target(), name, steps, host.io())


@pytest.fixture
def upgraded(host):
    """A host whose service has served with one state and then with another."""
    host.bring()
    host.file.write_text("serves 2")
    host.bring(changed=True)
    host.calls.clear()
    return host


def test_a_rollback_serves_and_can_be_taken_back(upgraded):
    for expected in ("serves 1", "serves 2"):
        roll_back(upgraded)
        assert upgraded.file.read_text() == expected


def test_a_rollback_tells_what_it_has_proven(upgraded):
    proof = roll_back(upgraded)
    assert upgraded.calls == ["stop", "daemon-reload", "reset-failed", "start"]
    assert {name: proof[name] for name in ("port", "port_free", "release", "stable_seconds")} == {
        "port": 8001,
        "port_free": True,
        "release": "/v/1",
        "stable_seconds": 5.0,
    }
    assert (proof["main_pid"], proof["restarts"]) == (upgraded.process, 0)
    assert (proof["oom_kills"], proof["memory_available_bytes"]) == (0, 8 * 2**30)
    assert proof["active_units"] == ["citadel-llm@other.service"]
    assert proof["sentence"].startswith(f"llm-01: {UNIT} serves again on /v/1: port 8001 was free")
    assert "for 5 s it stayed active" in proof["sentence"]


def test_a_rollback_to_a_port_that_another_holds_stops_nothing(upgraded):
    upgraded.foreign = "nginx.service"
    with pytest.raises(HostError, match="port 8001"):
        roll_back(upgraded)
    assert upgraded.calls == []
    assert upgraded.file.read_text() == "serves 2"


def test_a_port_that_is_held_after_the_stop_is_told_and_nothing_is_put_back(upgraded):
    real = upgraded.listeners

    def listeners():
        # Its own process still listens, which a check for others does not see.
        stopped = upgraded.active != "active"
        return [Listener("0.0.0.0", 8001, 7, "vllm", frozenset([UNIT]))] if stopped else real()

    upgraded.listeners = listeners
    with pytest.raises(HostError, match=r"port 8001 .* after its stop; nothing was put back"):
        roll_back(upgraded)
    assert upgraded.calls == ["stop"]
    assert upgraded.file.read_text() == "serves 2"


def test_a_port_that_becomes_free_some_moments_after_the_stop_is_free(upgraded):
    real = upgraded.listeners

    def listeners():
        if upgraded.active != "active" and upgraded.time < 3:
            return [Listener("0.0.0.0", 8001, 9, "docker-proxy", frozenset(["docker.service"]))]
        return real()

    upgraded.listeners = listeners
    assert roll_back(upgraded)["port_free"]


def test_a_container_s_port_is_its_own_until_the_stop(upgraded):
    # The listener is the engine's, not the unit's: it must not count as a stranger's.
    upgraded.listeners = lambda: (
        [Listener("0.0.0.0", 8001, 9, "docker-proxy", frozenset(["docker.service"]))]
        if upgraded.active == "active"
        else []
    )
    name, steps = plan_back(upgraded)
    target = replace(upgraded.target(), own_process=False)
    assert run.apply_restored(target, name, steps, upgraded.io())["port_free"]


def test_a_process_that_stays_after_the_stop_is_told(upgraded):
    upgraded.lingering = True
    with pytest.raises(HostError, match=r"processes 7, 8 of .* are still there"):
        roll_back(upgraded)
    assert upgraded.file.read_text() == "serves 2"


def change(host, **values):
    """Return a function that changes the host once."""
    return lambda: vars(host).update(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"active": "failed"}, "was not stable: 5 s later .* is failed, wanted active"),
        ({"process": 555}, "MainPID=555, wanted 103 as after its start"),
        ({"restarts": 1}, "NRestarts=1, wanted 0"),
        ({"others": set()}, "citadel-llm@other.service was active before and isn't any more"),
        ({"oom_kills": 4}, "the kernel has killed 1 times for want of memory"),
        ({"memory": 100 * 2**20}, "100 MiB of memory are available, wanted at least 256 MiB"),
    ],
)
def test_a_rollback_on_a_host_that_is_not_stable_is_not_done(upgraded, values, said):
    upgraded.later = change(upgraded, **values)
    with pytest.raises(HostError, match=rf"llm-01: .*{said}.*The rollback isn't finished"):
        roll_back(upgraded)
    assert memory.recall(upgraded.folder).unfinished is not None


def test_a_rollback_that_failed_is_gone_on_with_and_not_undone(upgraded):
    upgraded.refuses = "serves 1"
    with pytest.raises(HostError, match="The rollback isn't finished"):
        roll_back(upgraded)
    upgraded.refuses = ""
    roll_back(upgraded)
    assert upgraded.file.read_text() == "serves 1"
    assert memory.recall(upgraded.folder).unfinished is None


class Killed(BaseException):
    """Plays SIGKILL: nothing catches it."""


def kill_before(host, monkeypatch, number):
    """Kill the run before it changes files, links or the service for the n-th time."""
    left = [number]

    def deadly(real):
        def call(*args, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*args, **options)

        return call

    for name in ("rename", "unlink"):
        monkeypatch.setattr(memory.os, name, deadly(getattr(os, name)))
    for name in ("write_atomic", "place_symlink"):
        monkeypatch.setattr(memory, name, deadly(getattr(memory, name)))
    for name in ("_plain", "_systemctl", "prove"):
        monkeypatch.setattr(run, name, deadly(getattr(run, name)))


@pytest.mark.parametrize("never_served", [False, True])
def test_a_rollback_that_was_killed_anywhere_is_gone_on_with(tmp_path, monkeypatch, never_served):
    expected, taken_back = ("serves 2", "serves 1") if never_served else ("serves 1", "serves 2")
    for number in range(99):
        host = Host(tmp_path / str(number))
        host.bring()
        host.file.write_text("serves 2")
        host.bring(changed=True, release="/v/2")
        if never_served:
            host.file.write_text("never ready")
        with monkeypatch.context() as patch:
            kill_before(host, patch, number)
            try:
                roll_back(host)
                break
            except Killed:
                pass
        roll_back(host)
        assert host.file.read_text() == expected, number
        assert memory.release_of(host.folder) == f"/v/{expected[-1]}", number
        assert memory.recall(host.folder).unfinished is None
        assert memory.recall(host.folder).damage == ()
        roll_back(host)
        assert host.file.read_text() == taken_back, number
    assert number > (12 if not never_served else 8)


def test_a_new_state_takes_the_place_of_an_unfinished_rollback(upgraded):
    upgraded.refuses = "serves 1"
    with pytest.raises(HostError):
        roll_back(upgraded)
    upgraded.file.write_text("serves 3")
    upgraded.bring(changed=True)
    roll_back(upgraded)
    assert upgraded.file.read_text() == "serves 2"


# --- what a full disk or a kill has left of the memories ------------------------------------------


def damage(host, name, content="{"):
    path = f"{host.folder}/{name}"
    with open(path, "w") as stream:
        stream.write(content)
    return path


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"release": 1}', '{"files": [1], "release": ""}']
)
def test_a_damaged_good_state_counts_as_none(upgraded, content):
    path = damage(upgraded, "good/state.json", content)
    [said] = memory.recall(upgraded.folder).damage
    assert said.startswith(f"{path} is damaged (")
    roll_back(upgraded)
    assert upgraded.file.read_text() == "serves 1"


def test_a_copy_that_is_not_what_was_remembered_is_never_put_back(upgraded):
    path = damage(upgraded, "previous/0", "cut sho")
    with pytest.raises(HostError, match=f"no earlier state.*{path} is damaged .*checksum"):
        roll_back(upgraded)
    assert upgraded.calls == []
    assert upgraded.file.read_text() == "serves 2"


def test_without_a_whole_good_state_a_failure_says_so(upgraded):
    path = damage(upgraded, "good/state.json")
    upgraded.file.write_text("dies")
    with pytest.raises(HostError, match=f"can't be put back: {path} is damaged .*stopped and not"):
        upgraded.bring(changed=True)
    assert (upgraded.active, upgraded.enabled) == ("inactive", "disabled")


def test_what_serves_takes_the_place_of_a_damaged_good_state(upgraded):
    damage(upgraded, "good/state.json")
    upgraded.bring()
    assert memory.recall(upgraded.folder).damage == ()
    roll_back(upgraded)
    assert upgraded.file.read_text() == "serves 1"


def test_a_note_of_an_unfinished_rollback_that_is_damaged_is_not_guessed(upgraded):
    path = damage(upgraded, "rollback.json", "")
    with pytest.raises(memory.DamagedError, match=f"^{path} is damaged"):
        roll_back(upgraded)
    upgraded.bring()
    assert memory.recall(upgraded.folder).unfinished is None


# --- containers -----------------------------------------------------------------------------------


def test_a_generated_unit_that_never_served_is_not_started_by_a_boot(host, tmp_path):
    quadlet = tmp_path / "citadel-llm@tiny.container"
    quadlet.write_text("[Container]")
    host.enabled = "generated"
    host.file.write_text("dies")
    real = host.target
    host.target = lambda **more: replace(real(**more), files=(str(host.file), str(quadlet)))
    with pytest.raises(HostError, match="never served before"):
        host.bring()
    assert not quadlet.exists()
    assert host.file.exists()
    assert host.calls[-1] == "daemon-reload"


def test_what_is_put_back_is_proven_where_it_answers_itself(host):
    """The new declaration has another port and another name: the old state doesn't know them."""
    host.bring()
    host.file.write_text("never ready")
    target = replace(host.target(), port=9009, models=("other",))
    state = service.observe(UNIT, host.run)
    steps = service.plan_started(replace(target.declared, changed=True), state, "/v/1", [])
    with pytest.raises(HostError, match="put back and serves on the release /v/1"):
        run.apply_started(target, steps, host.io(), (host.target(), host.io()))


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
