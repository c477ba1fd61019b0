# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _haproxy_observe as observing
from ansible_collections.hx_infra.llm.plugins.module_utils import _haproxy_socket as sockets
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

STATE = "1\n# be_id be_name srv_name srv_admin_state srv_uweight srv_iweight\n"
STAT = "# pxname,svname,qcur,scur,status,type,econ,\n"
PROC = "#<PID> <type>\n1 master\n# workers\n7 worker\n# old workers\n5 worker\n\n"

Answer = Callable[[str, str], str]


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], sockets.Runtime]:
    def make(answer: Answer) -> sockets.Runtime:
        monkeypatch.setattr(sockets, "_talk", answer)
        clock = Clock()
        return sockets.Runtime("gw", "/a.sock", "/m.sock", clock=clock, sleep=clock.sleep)

    return make


def test_a_socket_that_a_reload_closes_is_asked_again(runtime) -> None:
    answers: list[object] = [ConnectionRefusedError(111, "Connection refused"), "", "\n"]

    def answer(_path: str, _command: str) -> str:
        now = answers.pop(0)
        if isinstance(now, Exception):
            raise now
        return str(now)

    runtime(answer).order("set server m/a state drain")
    assert answers == []


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (FileNotFoundError(2, "No such file or directory"), "No such file"),
        (TimeoutError("timed out"), "timed out"),
        (None, "closed the connection without an answer"),
    ],
)
def test_a_socket_that_stays_silent_is_named(runtime, error: OSError | None, found: str) -> None:
    def answer(_path: str, _command: str) -> str:
        if error:
            raise error
        return ""

    with pytest.raises(HostError) as caught:
        runtime(answer).ask("show info")
    assert "gw: HAProxy's admin socket /a.sock" in str(caught.value)
    assert found in str(caught.value)
    assert "haproxy.service" in str(caught.value)


def test_an_order_that_is_refused_is_an_error(runtime) -> None:
    with pytest.raises(HostError, match=r"refused 'set x': 'No such server.'"):
        runtime(lambda _path, _command: "No such server.\n\n").order("set x")
    with pytest.raises(HostError, match="level admin"):
        runtime(lambda _path, _command: "Permission denied\n\n").order("set x")


def gateway(stats: dict[str, str], proc: str = PROC, pid: int = 7) -> Answer:
    def answer(path: str, command: str) -> str:
        if path == "/a.sock":
            rows = "m,a.ollama,0,2,UP,2,1,\n"
            return f"Version: 2.6\nPid: {pid}\n\n{STATE}3 m a.ollama 8 3 10\n\n{STAT}{rows}\n\n"
        return proc if command == "show proc" else stats[command]

    return answer


def test_streams_of_all_workers_are_counted(runtime) -> None:
    old = f"{STAT}m,a.ollama,1,3,no check,2,4,\nm,gone.ollama,0,1,UP,2,,\n\n"
    found = observing.observe(runtime(gateway({"@!5 show stat": old})))
    (server,) = found.servers
    assert (server.streams, server.queued, server.errors) == (5, 1, 5)
    assert (server.admin.name, server.admin.weight) == ("drained", 3)
    assert [worker.pid for worker in found.old_workers] == [5]
    assert found.old_workers[0].open_on([("m", "a.ollama")]) == 4
    assert found.state_text == f"{STATE}3 m a.ollama 8 3 10\n"


def test_a_worker_that_has_just_ended_has_no_streams(runtime) -> None:
    gone = "Can't find the target PID matching the prefix '@!5'\n"
    found = observing.observe(runtime(gateway({"@!5 show stat": gone})))
    assert (found.old_workers, found.servers[0].streams) == ((), 2)


def test_a_worker_that_ends_in_this_moment_is_asked_again(runtime) -> None:
    answers = ["Can't connect to the target CLI!\n", f"{STAT}m,a.ollama,0,9,UP,2,,\n\n"]
    whole = gateway({})

    def answer(path: str, command: str) -> str:
        return answers.pop(0) if command == "@!5 show stat" else whole(path, command)

    assert observing.observe(runtime(answer)).servers[0].streams == 11


@pytest.mark.parametrize(
    ("proc", "pid", "message"),
    [
        (PROC, 8, r"belongs to process 8, but the master at /m.sock has the workers \[7\]"),
        ("Unknown command\n", 7, "can't be read: no list of workers"),
    ],
)
def test_sockets_of_something_else_are_refused(runtime, proc: str, pid: int, message: str) -> None:
    with pytest.raises(HostError, match=message):
        observing.observe(runtime(gateway({"@!5 show stat": f"{STAT}\n"}, proc, pid)))


def test_without_a_master_the_present_worker_is_all(runtime) -> None:
    asked = runtime(gateway({}))
    asked.master = ""
    found = observing.observe(asked)
    assert (found.workers, found.old_workers, found.servers[0].streams) == ((7,), (), 2)


def test_an_old_workers_sessions_are_ended_one_by_one(runtime) -> None:
    orders = []

    def answer(_path: str, command: str) -> str:
        if command == "@!5 show sess":
            return "0xa: be=m srv=a.ollama ts=0\n0xb: be=m srv=b.ollama\n0xc: be=m srv=a.ollama\n"
        orders.append(command)
        return "No such session (use 'show sess').\n" if command.endswith("0xc") else "\n"

    runtime(answer).end_sessions(5, [("m", "a.ollama")])
    assert orders == ["@!5 shutdown session 0xa", "@!5 shutdown session 0xc"]
