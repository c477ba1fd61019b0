# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from gpu_health_samples import card, facts, host, node, nodes, outcomes, report, tried

CLOSED = {"mode": "0660", "group": "video", "openable": False}
DENIED = "Permission denied (EACCES)"
WORKS = {"state": "ok", "message": "", "gpus": [tried(0), tried(1)]}


def account(**fields):
    return {"user": "citadel", "known": True, "message": "", "nodes": nodes(2), **fields}


def judged(found, check, *accounts, cards=None):
    """Return the outcomes of the further accounts, by subject."""
    around = host(2, accounts=[{"cuda": WORKS, **entry} for entry in accounts])
    checked = outcomes(report(facts(*(cards or [card(0), card(1)])), around), check)
    return {one.subject.rpartition(" as ")[2]: one for one in checked if " as " in one.subject}


def test_an_account_that_can_all_that_the_first_can():
    found = report(facts(card(0), card(1)), host(2, accounts=[account(cuda=WORKS)]))
    assert found.status == report(facts(card(0), card(1)), host(2)).status
    said = [(one.subject, one.status) for one in outcomes(found, "gpu_device_nodes")]
    assert said == [("host", "PASS"), ("host as citadel", "PASS")]
    assert [one.gpu for one in outcomes(found, "gpu_cuda")] == [0, 0, 1, 1]


def test_nodes_that_only_the_second_engine_cannot_open():
    closed = [node("nvidia-uvm"), node("nvidiactl", **CLOSED, message=DENIED), *nodes(2)[2:]]
    entry = account(nodes=closed, cuda=WORKS)
    found = report(facts(card(0), card(1)), host(2, accounts=[entry]))
    first, second = outcomes(found, "gpu_device_nodes")
    assert (first.status, second.status) == ("PASS", "CRITICAL")
    assert second.value == [f"/dev/nvidiactl: {DENIED} (0660 root:video)"]
    message = found.message("llm-01")
    assert "llm-01 host as citadel: gpu_device_nodes is /dev/nvidiactl" in message
    assert "next action: fix_config" in message


@pytest.mark.parametrize(
    ("cuda", "statuses", "words"),
    [
        ({"state": "failed", "message": "no device", "gpus": []}, ["CRITICAL"] * 2, "no device"),
        (
            {"state": "failed", "message": "", "gpus": [tried(0), tried(1, False, message="x")]},
            ["PASS", "CRITICAL"],
            "x",
        ),
        ({"state": "not_tried", "message": "no group", "gpus": []}, ["UNKNOWN"] * 2, "no group"),
    ],
)
def test_cuda_that_only_the_second_engine_cannot_use(cuda, statuses, words):
    found = report(facts(card(0), card(1)), host(2, accounts=[account(cuda=cuda)]))
    second = [one for one in outcomes(found, "gpu_cuda") if one.subject.endswith(" as citadel")]
    assert [(one.gpu, one.status) for one in second] == list(enumerate(statuses))
    assert words in second[-1].evidence
    assert second[-1].uuid == "GPU-1-0000"


def test_an_account_that_is_not_there_yet():
    entry = {"user": "citadel", "known": False, "message": "this host has no user citadel"}
    found = report(facts(card()), host(accounts=[entry]))
    for check in ("gpu_device_nodes", "gpu_cuda"):
        second = outcomes(found, check)[1]
        assert (second.status, second.evidence) == ("N/A", "this host has no user citadel")
    assert found.message("llm-01") == ""


def test_an_account_that_could_not_be_tried():
    listed = [{k: v for k, v in one.items() if k != "openable"} for one in nodes(2)]
    listed = [{**one, "mode": "0660"} for one in listed]
    cuda = {"state": "not_tried", "message": "this host has no group render", "gpus": []}
    entry = account(nodes=listed, cuda=cuda, message="this host has no group render")
    (health,) = judged(None, "gpu_device_nodes", entry).values()
    assert (health.status, health.evidence) == ("UNKNOWN", "this host has no group render")


def test_what_nobody_asked_for_is_said_once():
    cuda = {"state": "not_tried", "message": "it was not asked for", "gpus": []}
    around = host(cuda=cuda, accounts=[account(cuda=cuda)])
    assert len(outcomes(report(facts(card()), around), "gpu_cuda")) == 1


def test_a_card_that_is_lost_is_still_accounted_for():
    lost = {"index": 1, "state": "lost", "errors": []}
    cuda = {"state": "failed", "message": "no device", "gpus": []}
    around = host(2, accounts=[account(cuda=cuda)])
    found = outcomes(report(facts(card(0), lost), around), "gpu_cuda")
    assert [(one.gpu, one.status) for one in found] == [
        (0, "PASS"),
        (0, "CRITICAL"),
        (1, "UNKNOWN"),
    ]


def test_a_driver_that_is_not_this_kernels_has_no_nodes_here():
    around = host(module={"loaded": False}, accounts=[account(nodes=[], cuda=WORKS)])
    found = outcomes(report(facts(card()), around), "gpu_device_nodes")
    assert [one.status for one in found] == ["N/A"]
