# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _haproxy_stat as stat

RECORDED = Path(__file__).resolve().parents[2] / "fixtures/haproxy"
EVERYTHING = (RECORDED / "2.6.12_info_state_stat.txt").read_text()
DEAD, DRAINED, DISABLED = (
    ("m_llama", name) for name in ("llm-01.ollama", "llm-03.ollama", "llm-03.vllm.tiny")
)


def test_info() -> None:
    info = stat.parse_info(EVERYTHING.partition("\n\n")[0])
    assert (info["Version"], info["Pid"]) == ("2.6.12-1+deb12u4", "21479")


def test_stat_holds_servers_only() -> None:
    assert stat.parse_stat(EVERYTHING) == {
        DEAD: stat.Load("DOWN", 0, 0),
        DRAINED: stat.Load("DRAIN", 0, 0),
        DISABLED: stat.Load("MAINT", 0, 0),
    }


def test_a_dead_server_is_known_as_drained() -> None:
    states = stat.parse_servers_state(EVERYTHING)
    assert {key: state.name for key, state in states.items()} == {
        DEAD: "drained",
        DRAINED: "drained",
        DISABLED: "maint",
    }
    assert (states[DEAD].weight, states[DEAD].configured_weight) == (0, 10)
    assert (states[DRAINED].weight, states[DRAINED].configured_weight) == (4, 0)


@pytest.mark.parametrize(
    ("bits", "name"),
    [
        (0, "ready"),
        (8, "drained"),
        (16, "drained"),
        (1, "maint"),
        (4, "maint"),
        (32, "maint"),
        (9, "maint"),
        (2, "maint"),
        (64, "maint"),
    ],
)
def test_names_of_administrative_states(bits: int, name: str) -> None:
    assert stat.AdminState(bits, 10, 10).name == name


def test_columns_are_found_by_their_names() -> None:
    text = (
        "# pxname,svname,scur,status,type,qcur,hrsp_5xx,econ,eresp,srv_abrt,last_chk,\n"
        'm,a.ollama,3,UP,2,1,4,1,2,3,"Layer7 OK, 200",\n'
        "m,BACKEND,3,UP,1,0,9,9,9,9,,\n"
        "gw,sock-1,3,OPEN,3,0,9,9,9,9,,\n"
    )
    assert stat.parse_stat(text) == {("m", "a.ollama"): stat.Load("UP", 3, 1, 10)}


def test_stat_without_types_or_counters() -> None:
    text = "# pxname,svname,qcur,scur,status\ngw,FRONTEND,,,OPEN\nm,a,,2,UP 1/2\n"
    assert stat.parse_stat(text) == {("m", "a"): stat.Load("UP 1/2", 2, 0)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Can't connect to the target CLI!\n",
        "# pxname,svname,qcur\nm,a,0\n",
        "# pxname,svname,qcur,scur,status,type\nm,a,0,1",
    ],
)
def test_what_is_no_stat_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no line that begins|no pxname"):
        stat.parse_stat(text)


@pytest.mark.parametrize("text", ["", "1\n", "1\n# be_id be_name srv_name\n3 m a\n"])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no line that begins|no column"):
        stat.parse_servers_state(text)


PROC_24 = """\
#<PID>          <type>          <relative PID>  <reloads>       <uptime>        <version>
10              master          0               1               0d00h00m05s     2.4.22
# workers
12              worker          1               0               0d00h00m02s     2.4.22
# old workers
11              worker          [was: 1]        1               0d00h00m05s     2.4.22
# programs
13              my-program      -               0               0d00h00m02s     -
# old programs
14              my-program      -               1               0d00h00m02s     -

"""


@pytest.mark.parametrize(
    ("text", "workers", "old"),
    [
        ((RECORDED / "2.6.12_proc_after_reload.txt").read_text(), (21922,), (21479,)),
        (PROC_24, (12,), (11,)),
        ("#<PID> <type> <reloads>\n10 master 0\n# workers\n12 worker 0\n\n", (12,), ()),
    ],
)
def test_proc(text: str, workers: tuple[int, ...], old: tuple[int, ...]) -> None:
    assert stat.parse_proc(text) == stat.Processes(workers, old)


def test_proc_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="no list of workers"):
        stat.parse_proc("Unknown command\n")


def test_sessions_of_a_server() -> None:
    sessions = stat.parse_sessions((RECORDED / "2.6.12_sess.txt").read_text())
    assert {("m_llama", "llm-01.ollama")} & set(sessions.values())
    assert all(session.startswith("0x") and ":" not in session for session in sessions)
    assert stat.parse_sessions("\nPermission denied\n") == {}


@pytest.mark.parametrize(
    ("now", "before", "errors", "cleared"),
    [
        ({"7": {"m/a": 5, "m/b": 1}}, {"7": {"m/a": 3}}, {"m/a": 2, "m/b": 1}, ()),
        ({"7": {"m/a": 3}}, {"7": {"m/a": 3}}, {"m/a": 0}, ()),
        # A new worker counts from 0, whatever the one before it had.
        ({"8": {"m/a": 1}}, {"7": {"m/a": 3}}, {"m/a": 1}, ()),
        ({"8": {"m/a": 1}, "7": {"m/a": 4}}, {"7": {"m/a": 3}}, {"m/a": 2}, ()),
        ({"8": {}}, {"7": {"m/a": 3}}, {}, ()),
        # Lower than it was: somebody has cleared the counters.
        ({"7": {"m/a": 2}}, {"7": {"m/a": 3}}, {"m/a": 2}, ("7",)),
        ({"7": {"m/b": 9}}, {"7": {"m/a": 1, "m/b": 8}}, {"m/b": 9}, ("7",)),
    ],
)
def test_errors_since_an_earlier_look(
    now: dict[str, dict[str, int]],
    before: dict[str, dict[str, int]],
    errors: dict[str, int],
    cleared: tuple[str, ...],
) -> None:
    assert stat.new_errors(now, before) == (errors, cleared)
