# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _runtime_gpus as gpus
from ansible_collections.hx_infra.llm.plugins.module_utils import _runtime_judge as judge
from ansible_collections.hx_infra.llm.plugins.module_utils import _runtime_model as model
from ansible_collections.hx_infra.llm.plugins.module_utils import _runtime_reach as reach
from ansible_collections.hx_infra.llm.plugins.module_utils import _runtime_tell as tell
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_model import Api, Seen, Service
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import sentence
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Listener

UNIT = "ollama.service"
STATE = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "MainPID": "100",
    "NRestarts": "0",
    "Result": "success",
    "MemoryCurrent": "1000",
    "MemoryMax": "infinity",
}
PHI = {"name": "phi3:latest", "digest": "74d169ca294c" + "0" * 52}
API = Api(version="0.11.4", models=(PHI,))
OWN = Listener("::", 11434, 100, "ollama", frozenset([UNIT]))
ADDRESSES = {"llm-01": ("192.0.2.11",), "localhost": ("127.0.0.1", "::1")}
TWO_GPUS = {
    "state": "ok",
    "gpus": [
        {"index": 0, "state": "ok", "processes": [{"pid": 101}]},
        {"index": 1, "state": "ok", "processes": []},
    ],
}


def service(**fields):
    usual = {
        "name": "ollama",
        "kind": "ollama",
        "unit": UNIT,
        "url": "http://127.0.0.1:11434",
        "listen": "0.0.0.0:11434",
        "version": "0.11.4",
        "models": ({"name": "phi3", "digest": "74d169ca294c"},),
    }
    return Service(**{**usual, **fields})


def seen(state=None, **fields):
    usual = {
        "state": {**STATE, **(state or {})},
        "pids": frozenset([100, 101]),
        "listeners": (OWN, Listener("127.0.0.1", 40001, 101, "ollama", frozenset([UNIT]))),
        "logged_gpus": 2,
        "api": API,
    }
    return Seen(**{**usual, **fields})


def resolve(name):
    return ADDRESSES.get(name, ())


def judged(declared=None, found=None, **given):
    verdicts = judge.service_verdicts(
        declared or service(), found or seen(), given.get("facts", TWO_GPUS), resolve
    )
    return {verdict.check: verdict for verdict in verdicts}


def grave(verdicts):
    return {name: verdict.status for name, verdict in verdicts.items() if verdict.status != "PASS"}


def test_a_service_that_runs_as_declared():
    found = judged()
    assert grave(found) == {}
    assert set(found) == {
        "unit_active",
        "unit_enabled",
        "unit_current",
        "unit_restarts",
        "main_pid",
        "memory",
        "bound_port",
        "bound_address",
        "further_ports",
        "api_version",
        "models",
        "gpus_visible",
    }
    assert "every address of the host is a way in" in found["bound_address"].evidence


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ({"UnitFileState": "disabled"}, {"unit_enabled": "WARN"}),
        ({"UnitFileState": ""}, {"unit_enabled": "WARN"}),
        ({"UnitFileState": "generated"}, {}),
        ({"NeedDaemonReload": "yes"}, {"unit_current": "WARN"}),
        ({"NRestarts": "3"}, {"unit_restarts": "WARN"}),
        ({"NRestarts": ""}, {}),
        ({"MainPID": "0"}, {"main_pid": "FAIL"}),
        ({"MemoryMax": "1000"}, {"memory": "WARN"}),
        ({"MemoryMax": "1053"}, {}),
        ({"MemoryCurrent": "[not set]"}, {"memory": "WARN"}),
        ({"MemoryCurrent": str(2**64 - 1)}, {"memory": "WARN"}),
    ],
)
def test_the_unit_and_its_process(state, wanted):
    assert grave(judged(found=seen(state))) == wanted


def test_memory_without_accounting_is_that_of_its_processes():
    found = judged(found=seen({"MemoryCurrent": "[not set]"}, resident=500))
    assert (found["memory"].status, found["memory"].value) == ("PASS", 500)


@pytest.mark.parametrize(
    ("state", "value"),
    [
        ({"ActiveState": "failed"}, "failed"),
        ({"ActiveState": "activating"}, "activating"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, "not installed"),
    ],
)
def test_of_a_service_that_is_not_active_nothing_more_is_judged(state, value):
    found = judged(found=seen(state, listeners=()))
    assert {name: verdict.value for name, verdict in found.items()} == {"unit_active": value}
    assert grave(found) == {"unit_active": "FAIL"}


def test_systemd_that_does_not_answer():
    found = judged(found=Seen(api=API, listeners=(OWN,)))
    assert found["unit_active"].value == "not known"
    assert grave(found) == {"unit_active": "FAIL"}
    assert set(found) == {"unit_active", "api_version", "models"}


def test_who_holds_the_port_of_a_service_that_does_not_run():
    other = Listener("0.0.0.0", 11434, 7, "python3", frozenset(["mine.service"]))
    found = judged(found=seen({"ActiveState": "failed"}, listeners=(other,)))
    assert sentence(found["bound_port"], "llm-01") == (
        "llm-01 ollama.service: bound_port is held by python3 (pid 7, mine.service), wanted free"
        " (it could not listen there)"
    )


@pytest.mark.parametrize(
    ("listen", "addresses", "status"),
    [
        ("0.0.0.0:11434", ["::"], "PASS"),
        ("0.0.0.0:11434", ["0.0.0.0"], "PASS"),
        ("0.0.0.0:11434", ["127.0.0.1"], "FAIL"),
        ("[::]:11434", ["::"], "PASS"),
        ("[::]:11434", ["0.0.0.0"], "FAIL"),
        ("127.0.0.1:11434", ["127.0.0.1"], "PASS"),
        ("127.0.0.1:11434", ["::"], "FAIL"),
        ("localhost:11434", ["127.0.0.1"], "PASS"),
        ("llm-01:11434", ["192.0.2.11"], "PASS"),
        ("llm-01:11434", ["0.0.0.0"], "FAIL"),
        ("llm-01:11434", ["192.0.2.11", "127.0.0.1"], "FAIL"),
        ("", ["127.0.0.1"], "PASS"),
        ("", ["0.0.0.0"], "WARN"),
        (":11434", ["::"], "PASS"),
    ],
)
def test_the_address(listen, addresses, status):
    listeners = tuple(Listener(address, 11434, 100) for address in addresses)
    found = judged(service(listen=listen), seen(listeners=listeners))
    assert found["bound_address"].status == status
    assert found["bound_port"].status == "PASS"


def test_what_was_found_and_wanted_of_an_address_is_told():
    declared = service(listen="llm-01:11434")
    told = sentence(judged(declared)["bound_address"], "llm-01")
    assert told == (
        "llm-01 ollama.service: bound_address is ::, wanted llm-01 (192.0.2.11)"
        " ([::]:11434: every address of the host is a way in)"
    )


def test_a_port_that_nobody_or_somebody_else_has():
    found = judged(found=seen(listeners=()))
    assert (found["bound_port"].status, found["bound_port"].value) == ("FAIL", "nobody listens")
    other = Listener("::", 11434, 7, "python3", frozenset(["mine.service"]))
    found = judged(found=seen(listeners=(other,)))
    assert found["bound_port"].value == "held by python3 (pid 7, mine.service)"
    assert "bound_address" not in found


def test_another_port_than_the_declared_one():
    found = judged(service(listen="0.0.0.0:11435"))
    assert (found["bound_port"].status, found["bound_port"].limit) == ("FAIL", "port 11435")
    assert "which listen on 127.0.0.1:40001, [::]:11434" in found["bound_port"].evidence


def test_a_container_whose_port_somebody_forwards():
    proxy = Listener("0.0.0.0", 11434, 7, "conmon", frozenset(["machine.slice"]))
    found = judged(service(own_process=False), seen(listeners=(proxy,)))
    assert found["bound_port"].status == "PASS"


def test_sockets_whose_processes_cannot_be_seen():
    found = judged(found=seen(listeners=(Listener("::", 11434, 0),)))
    assert found["bound_port"].status == "WARN"
    assert "run with become" in found["bound_port"].evidence


def test_further_ports_that_others_can_reach_are_told():
    more = Listener("192.0.2.11", 29501, 101, "ollama", frozenset([UNIT]))
    found = judged(found=seen(listeners=(OWN, more)))
    assert grave(found) == {"further_ports": "WARN"}
    assert found["further_ports"].value == ["192.0.2.11:29501"]


@pytest.mark.parametrize(
    ("declared", "api", "wanted"),
    [
        ({}, Api(problem="GET /api/version failed: refused."), {"api_version": "FAIL"}),
        ({}, Api(version="0.12.0", models=(PHI,)), {"api_version": "FAIL"}),
        ({"version": ""}, Api(version="0.12.0", models=(PHI,)), {}),
        ({}, Api(version="0.11.4", models_problem="x"), {"models": "FAIL"}),
        ({}, Api(version="0.11.4", models=()), {"models": "FAIL"}),
        ({"models": None}, Api(version="0.11.4", models=()), {}),
        ({"models": ({"name": "phi3", "digest": "sha256:74D169CA"},)}, API, {}),
        ({"models": ({"name": "phi3", "digest": "858745d205ec"},)}, API, {"models": "FAIL"}),
        ({}, Api(version="0.11.4", models=(PHI, {"name": "x:1b"})), {}),
        (
            {"exclusive": True},
            Api(version="0.11.4", models=(PHI, {"name": "x:1b"})),
            {"models": "FAIL"},
        ),
        (
            {"exclusive": True},
            Api(version="0.11.4", models=(PHI, {"name": "phi3:latest-hx-previous"})),
            {},
        ),
    ],
)
def test_version_and_models(declared, api, wanted):
    assert grave(judged(service(**declared), seen(api=api))) == wanted


def test_what_is_wrong_with_the_models_is_told():
    api = Api(version="0.11.4", models=({"name": "phi3:latest", "digest": "0" * 64}, {"name": "x"}))
    wanted = ({"name": "phi3", "digest": "74d169ca294c"}, {"name": "gemma2:2b"})
    found = judged(service(models=wanted), seen(api=api))["models"]
    assert found.evidence == (
        "GET http://127.0.0.1:11434/api/tags; missing: gemma2:2b; other digest: phi3:latest is"
        " 000000000000, wanted 74d169ca294c; not declared: x:latest"
    )


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [("0.32.0", "0.32.0", True), ("0.32.0+cpu", "0.32.0", True), ("0.33.0", "0.32.0", False)],
)
def test_a_version_with_a_mark(found, wanted, same):
    declared = service(kind="openai", version=wanted, models=({"name": "m"},), gpus=0)
    api = Api(version=found, models=({"name": "m"},))
    assert (grave(judged(declared, seen(api=api))) == {}) is same


def facts(state="ok", held=(True, False), **more):
    gpus_found = [{"state": "ok", "processes": [{"pid": 101}] if item else []} for item in held]
    return {"state": state, "gpus": gpus_found, **more}


UNTOLD = {"state": "ok", "gpus": [{"state": "ok"}, {"state": "ok"}]}
LOST = {"state": "ok", "gpus": [{"state": "ok", "processes": []}, {"state": "lost"}]}
MISSING = {"state": "driver_not_loaded", "gpus": [], "errors": [{"message": "no driver"}]}


@pytest.mark.parametrize(
    ("declared", "found", "there", "status"),
    [
        ({}, {"logged_gpus": 2}, facts(), "PASS"),
        ({}, {"logged_gpus": 1}, facts(), "FAIL"),
        ({}, {"logged_gpus": 0}, facts(), "FAIL"),
        ({}, {"logged_gpus": 1, "limited_to": 1}, facts(), "PASS"),
        ({"gpus": 2}, {"logged_gpus": 1, "limited_to": 1}, facts(), "FAIL"),
        ({"gpus": 2}, {"logged_gpus": 1}, LOST, "FAIL"),
        ({}, {"logged_gpus": 1}, LOST, "PASS"),
        ({}, {"logged_gpus": None}, facts(), "WARN"),
        ({}, {"logged_gpus": None}, facts(held=(True, True)), "PASS"),
        ({}, {"logged_gpus": None}, UNTOLD, "WARN"),
        ({"gpus": 2}, {"logged_gpus": 2}, {}, "PASS"),
        ({}, {"logged_gpus": 2}, {}, None),
        ({}, {"logged_gpus": 0, "limited_to": 0}, facts(), "WARN"),
        ({"gpus": 2}, {"logged_gpus": 0, "limited_to": 0}, facts(), "FAIL"),
        ({"gpus": 0}, {"logged_gpus": 0}, facts(), None),
        ({"kind": "openai"}, {"logged_gpus": None}, facts(), "PASS"),
        ({"kind": "openai", "gpus": 2}, {"logged_gpus": None}, facts(), "FAIL"),
        ({"kind": "openai"}, {"logged_gpus": None}, facts(held=(False, False)), "FAIL"),
        ({"kind": "openai"}, {"logged_gpus": None}, UNTOLD, "WARN"),
    ],
)
def test_the_gpus_that_an_engine_sees(declared, found, there, status):
    verdicts = gpus.gpu_verdicts(service(**declared), seen(**found), there)
    assert [verdict.status for verdict in verdicts if verdict.check == "gpus_visible"] == (
        [status] if status else []
    )


@pytest.mark.parametrize(("declared", "status"), [({"gpus": 2}, "FAIL"), ({}, "WARN")])
def test_a_driver_that_is_gone(declared, status):
    [verdict] = gpus.gpu_verdicts(service(**declared), seen(), MISSING)
    assert (verdict.check, verdict.status) == ("host_gpus", status)
    assert (verdict.value, verdict.limit) == ("driver_not_loaded", "ok")
    assert "no driver" in verdict.evidence


@pytest.mark.parametrize(
    ("entry", "ratio", "status"),
    [
        ({"size": 100, "size_vram": 100}, 1.0, "PASS"),
        ({"size": 100, "size_vram": 0}, 1.0, "FAIL"),
        ({"size": 100, "size_vram": 60}, 1.0, "FAIL"),
        ({"size": 100, "size_vram": 60}, 0.5, "PASS"),
        ({"size": 0, "size_vram": 0}, 1.0, "WARN"),
        ({"size": 100, "size_vram": 101}, 1.0, "WARN"),
        ({"size": 100, "size_vram": 0}, 0.0, None),
    ],
)
def test_where_a_loaded_model_lies(entry, ratio, status):
    api = Api(version="0.11.4", models=(PHI,), loaded=({"name": "phi3:latest", **entry},))
    verdicts = gpus.placement_verdicts(service(min_gpu_ratio=ratio), seen(api=api))
    assert [verdict.status for verdict in verdicts] == ([status] if status else [])


def answer(name="ollama", **fields):
    return {"ansible_loop_var": "one", "one": {"name": name}, "status": 200, **fields}


def reached(*peers, **declared):
    fields = {"reach": "http://llm-01:11434/api/version", **declared}
    verdicts = reach.reach_verdicts(service(**fields), seen(), peers)
    return [(verdict.subject, verdict.status, verdict.value) for verdict in verdicts]


GOOD = {"peer": "gw-01", "results": [answer("other"), answer(json={"version": "0.11.4"})]}
LOST_PEER = {"peer": "llm-03", "results": [], "msg": "Failed to connect:\n no route"}
FROM = "ollama.service from gw-01"


@pytest.mark.parametrize(
    ("item", "status", "value"),
    [
        (answer(json={"version": "0.11.4"}), "PASS", "an answer"),
        (answer(), "PASS", "an answer"),
        (answer(json={"version": "0.9.0"}), "FAIL", "version 0.9.0"),
        (answer(status=401), "PASS", "status 401"),
        (answer(status=500), "FAIL", "status 500"),
        (answer(status=-1, msg="timed out"), "FAIL", "no answer"),
    ],
)
def test_what_a_peer_got(item, status, value):
    assert reached({"peer": "gw-01", "results": [item]}) == [(FROM, status, value)]


def test_a_service_for_its_own_host_alone_must_not_be_reached():
    local = {"listen": "127.0.0.1:11434"}
    nothing = {"peer": "gw-01", "results": [answer(status=-1)]}
    assert reached(nothing, **local) == [(FROM, "PASS", "no answer")]
    assert reached(GOOD, **local) == [(FROM, "FAIL", "status 200")]


@pytest.mark.parametrize(
    "lost",
    [
        LOST_PEER,
        {"peer": "llm-03", "results": [answer(unreachable=True, status=-1, msg="no route")]},
        {"peer": "llm-03", "results": [{"ansible_loop_var": "one", "one": {"name": "ollama"}}]},
        {"peer": "llm-03"},
    ],
)
def test_a_peer_that_is_lost_is_told_and_counts_where_nobody_else_was_asked(lost):
    who = "ollama.service from llm-03"
    assert reached(GOOD, lost) == [(FROM, "PASS", "an answer"), (who, "WARN", "not known")]
    assert reached(lost) == [(who, "FAIL", "not known")]


def test_why_a_peer_is_lost_is_told():
    [verdict] = reach.reach_verdicts(service(reach="http://x"), seen(), [LOST_PEER])
    assert sentence(verdict, "llm-01") == (
        "llm-01 ollama.service from llm-03: reachable is not known, wanted an answer"
        " (llm-03 could not be asked: Failed to connect: no route)"
    )


def test_who_is_not_asked():
    assert reached() == []
    assert reached(GOOD, reach="") == []
    found = reach.reach_verdicts(service(reach="x"), seen({"ActiveState": "failed"}), [GOOD])
    assert found == []


def test_a_row_and_a_table():
    declared, found = service(), seen()
    verdicts = judge.service_verdicts(declared, found, TWO_GPUS, resolve)
    row = tell.row(declared, found, TWO_GPUS, verdicts)
    assert row == {
        "name": "ollama",
        "status": "PASS",
        "unit": UNIT,
        "active_state": "active",
        "main_pid": 100,
        "restarts": 0,
        "memory_bytes": 1000,
        "bound": ["[::]:11434"],
        "wildcard": True,
        "version": "0.11.4",
        "models": ["phi3:latest"],
        "loaded": [],
        "gpus_logged": 2,
        "gpus_held": 1,
    }
    down = tell.row(declared, seen({"ActiveState": "failed", "MainPID": "0"}, api=Api()), {}, [])
    lines = tell.table([row, down], ["FAIL: x"])
    assert " ".join(lines[0].split()) == "unit state pid memory bound version models GPUs"
    assert lines[1].split()[-1] == "PASS"
    assert lines[-1] == "    FAIL: x"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.0.0.0:11434", ("0.0.0.0", 11434)),
        ("[::]:8001", ("::", 8001)),
        ("[::1]", ("::1", 0)),
        (":11434", ("0.0.0.0", 11434)),
        ("llm-01:8001", ("llm-01", 8001)),
        ("llm-01", ("llm-01", 0)),
        ("", ("", 0)),
    ],
)
def test_splitting_what_is_listened_on(text, wanted):
    assert model.split_listen(text) == wanted
