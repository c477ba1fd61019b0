# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _haproxy_plan as planner
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_observe import Server
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_stat import AdminState

READY, DRAIN, MAINT = 0, 8, 1
ROUTES = {"llama": "m_llama", "qwen": "m_qwen"}
FILES = ("/state", "/notes")


def server(target: str, bits: int = READY, weight: int = 10, status: str = "UP") -> Server:
    backend, _slash, name = target.partition("/")
    return Server(backend, name, AdminState(bits, weight, 10), status, streams=5, queued=1)


def wish(state: str = "drained", **changes: Any) -> planner.Wish:
    values: dict[str, Any] = {"host": "llm-01", "server": "", "engine": "", "model": ""}
    return planner.Wish(gateway="gw", state=state, **{"owner": "we", **values, **changes})


def plan(
    wished: planner.Wish,
    servers: list[Server],
    notes: Mapping[str, str] | None = None,
    saved: list[Server] | None = None,
    files: tuple[str, str] = FILES,
) -> planner.Plan:
    return planner.plan_traffic(
        wished,
        servers,
        planner.select(servers, wished, ROUTES, {}),
        notes={target: {"owner": owner} for target, owner in (notes or {}).items()},
        saved={one.key: one.admin for one in (servers if saved is None else saved)},
        routes=ROUTES,
        files=files,
    )


def actions(planned: planner.Plan) -> list[tuple[str, str]]:
    return [(step.action, step.target) for step in planned.steps]


A, B = "m_llama/llm-01.ollama", "m_qwen/llm-01.ollama"
OTHERS = [server("m_llama/llm-03.ollama"), server("m_qwen/llm-03.ollama")]
SAVE, NOTE, FORGET = ("save_state", "/state"), ("note", "/notes"), ("forget", "/notes")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("llm-01.ollama", ("llm-01", "ollama", "")),
        ("llm-03.vllm.tiny", ("llm-03", "vllm", "tiny")),
        ("llm-03.vllm.ollama", ("llm-03", "vllm", "ollama")),
        ("llm-01.example.org.ollama", ("llm-01.example.org", "ollama", "")),
        ("vllm-node-3.ollama", ("vllm-node-3", "ollama", "")),
        ("ollama-a.vllm.tiny", ("ollama-a", "vllm", "tiny")),
        ("ollama.example.ollama", ("ollama.example", "ollama", "")),
        ("gpu-1.ollama.example.vllm.tiny", ("gpu-1.ollama.example", "vllm", "tiny")),
        ("gpu-1.vllm.example.ollama", ("gpu-1.vllm.example", "ollama", "")),
        ("vllm.vllm", ("vllm", "vllm", "")),
        ("llm-01", None),
        ("ollama.example", None),
        ("web.apache", None),
    ],
)
def test_names(name: str, parts: tuple[str, str, str] | None) -> None:
    assert planner.split_name(name) == parts


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, [A, B, "m_llama/llm-01.vllm.a"]),
        ({"engine": "vllm"}, ["m_llama/llm-01.vllm.a"]),
        ({"model": "qwen"}, [B]),
        ({"host": "", "server": "llm-01.ollama"}, [A, B]),
        ({"host": "llm-01.example.org"}, ["m_llama/llm-01.example.org.ollama"]),
    ],
)
def test_selection(changes: dict[str, str], found: list[str]) -> None:
    names = [A, B, "m_llama/llm-01.vllm.a", "m_llama/llm-01.example.org.ollama", "web/llm-01"]
    selected = planner.select([server(name) for name in names], wish(**changes), ROUTES, {})
    assert [one.target for one in selected] == found


def test_the_routes_say_whose_a_server_is_where_its_name_is_ambiguous() -> None:
    one = server("m_llama/gpu-1.vllm.ollama")
    owners = {one.key: ("gpu-1.vllm", "ollama")}
    assert planner.select([one], wish(host="gpu-1.vllm"), ROUTES, owners) == (one,)
    assert planner.select([one], wish(host="gpu-1.vllm", engine="ollama"), ROUTES, owners) == (one,)
    with pytest.raises(HostError, match=r"hosts: gpu-1\.vllm"):
        planner.select([one], wish(host="gpu-1"), ROUTES, owners)
    assert planner.select([one], wish(host="gpu-1"), ROUTES, {}) == (one,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "llm"}, "gw: the gateway does not know the host llm; .* hosts: llm-01"),
        ({"host": "", "server": "x"}, "the server x; .* servers: llm-01.ollama"),
        ({"model": "gpt"}, "the model gpt; .* models: llama, qwen"),
        ({"engine": "vllm", "model": "qwen"}, r"of llm-01 \(vllm\) for qwen; .*: m_llama/llm-01"),
    ],
)
def test_unknown_names_list_the_known(changes: dict[str, str], message: str) -> None:
    with pytest.raises(HostError, match=message):
        planner.select([server(A)], wish(**changes), ROUTES, {})


@pytest.mark.parametrize(
    ("state", "servers", "notes", "steps"),
    [
        ("drained", [server(A), server(B)], {}, [NOTE, ("drain", A), ("drain", B), SAVE]),
        ("drained", [server(A, DRAIN), server(B)], {A: "we"}, [NOTE, ("drain", B), SAVE]),
        ("drained", [server(A, DRAIN), server(B, MAINT)], {}, []),
        ("drained", [server(A, status="DOWN")], {}, [NOTE, ("drain", A), SAVE]),
        ("drained", [server(A, DRAIN, status="DOWN")], {}, []),
        ("drained", [server(A)], {A: "they"}, [NOTE, ("drain", A), SAVE]),
        ("ready", [server(A), server(B)], {}, []),
        ("ready", [server(A, DRAIN)], {A: "we"}, [("ready", A), SAVE, FORGET]),
        ("ready", [server(A, DRAIN)], {A: "they"}, [("ready", A), SAVE, FORGET]),
        ("ready", [server(A, DRAIN)], {}, [("ready", A), SAVE]),
        ("ready", [server(A, MAINT)], {}, [("ready", A), SAVE]),
        ("ready", [server(A, 4 | 1)], {}, [("ready", A), SAVE]),
        ("ready", [server(A, 32)], {}, []),  # its name can't be resolved: no order helps
        ("ready", [server(A)], {A: "we"}, [FORGET]),  # killed before it could forget
        ("weighted", [server(A), server(B, weight=3)], {}, [("weight", A), SAVE]),
        ("weighted", [server(A, DRAIN)], {A: "we"}, [("weight", A), SAVE]),
        ("weighted", [server(A, weight=3)], {}, []),
    ],
)
def test_steps(
    state: str, servers: list[Server], notes: dict[str, str], steps: list[tuple[str, str]]
) -> None:
    planned = plan(wish(state, weight=3), servers + OTHERS, notes)
    assert actions(planned) == steps
    busy = [replace(one, streams=77, queued=7) for one in servers + OTHERS]
    assert actions(plan(wish(state, weight=3), busy, notes)) == steps, "streams are no change"
    again = plan(wish(state, weight=3), list(planned.after) + OTHERS)
    assert actions(again) == [], "the plan doesn't reach its goal"
    assert all(not planner.orders(one, wish(state, weight=3)) for one in planned.after)


def test_sentences_hold_no_figure_that_moves() -> None:
    planned = plan(wish("weighted", weight=3), [server(A, weight=9), *OTHERS])
    assert planned.steps[0].sentence == f"Set the weight of {A} to 3"


@pytest.mark.parametrize(
    ("now", "file", "needed"),
    [
        (server(A, DRAIN), server(A, DRAIN), False),
        (server(A, DRAIN), server(A), True),
        (server(A, DRAIN), None, True),
        (server(A), None, False),
        (server(A, weight=3), None, True),
        (server(A), server(A, DRAIN), True),
        (server(A, weight=3), server(A, weight=4), True),
        # the file is from before the configuration's weight changed: that weight wins at a restart
        (server(A), replace(server(A), admin=AdminState(0, 3, 7)), False),
        (server(A, weight=3), replace(server(A), admin=AdminState(0, 3, 7)), True),
    ],
)
def test_a_state_that_was_not_saved_is_saved(
    now: Server, file: Server | None, needed: bool
) -> None:
    wished = wish("weighted", weight=now.admin.weight)
    planned = plan(wished, [now, *OTHERS], saved=[file] if file else [])
    assert actions(planned) == ([SAVE] if needed else [])
    assert not actions(plan(wished, [now, *OTHERS], saved=[], files=("", "/notes")))


def test_only_the_owners_drains_are_undone() -> None:
    servers = [server(A, DRAIN), server(B, DRAIN), server("m_llama/llm-01.vllm.a", DRAIN)]
    planned = plan(wish("ready", only_owner=True), servers, {A: "we", B: "they"})
    assert actions(planned) == [("ready", A), SAVE, FORGET]
    assert planned.left == ((B, "they"), ("m_llama/llm-01.vllm.a", ""))
    assert planner.lines(planned.after, {B: {"owner": "they"}}) == (
        f"{A}: ready, weight 10\n"
        f"{B}: drained, weight 10, drained by they\n"
        "m_llama/llm-01.vllm.a: drained, weight 10\n"
    )


@pytest.mark.parametrize(
    ("mine", "other", "last", "refused"),
    [
        (server(A), server("m_llama/llm-03.ollama"), (), ()),
        (server(A), server("m_llama/llm-03.ollama", status="no check"), (), ()),
        (server(A), server("m_llama/llm-03.ollama", status="UP 1/2"), (), ()),
        (server(A), server("m_llama/llm-03.ollama", DRAIN, status="DRAIN"), ("llama",), ("llama",)),
        (server(A), server("m_llama/llm-03.ollama", MAINT, status="MAINT"), ("llama",), ("llama",)),
        (server(A), server("m_llama/llm-03.ollama", weight=0), ("llama",), ("llama",)),
        (server(A), server("m_llama/llm-03.ollama", status="DOWN 1/2"), ("llama",), ("llama",)),
        (server(A), server("m_qwen/llm-03.ollama"), ("llama",), ("llama",)),
        (server(A, status="DOWN"), server("m_qwen/llm-03.ollama"), ("llama",), ()),
        (server(A, DRAIN), server("m_qwen/llm-03.ollama"), ("llama",), ()),
        (server(A, weight=0), server("m_qwen/llm-03.ollama"), ("llama",), ()),
    ],
)
def test_the_last_host(
    mine: Server, other: Server, last: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    for wished in (wish(), wish("weighted", weight=0)):
        planned = plan(wished, [mine, other])
        assert (planned.last_for, planned.refused_for) == (last, refused)
        error = planner.refusal(wished, planned)
        assert (error is None) == (not refused)
        assert planner.refusal(replace(wished, allow_last=True), planned) is None
    assert plan(wish("ready"), [mine, other]).last_for == ()


def test_the_refusal_names_models_and_backends() -> None:
    planned = plan(wish(), [server(A), server(B), server("new/llm-01.ollama")])
    error = planner.refusal(wish(), planned)
    assert "draining llm-01 would leave no serving host for llama, new, qwen" in str(error)


def test_another_engine_of_the_host_serves_as_well() -> None:
    servers = [server(A), server("m_llama/llm-01.vllm.a")]
    assert plan(wish(engine="ollama"), servers).refused_for == ()
    assert plan(wish(), servers).refused_for == ("llama",)
