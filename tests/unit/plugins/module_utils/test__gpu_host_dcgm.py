# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from gpu_health_samples import facts, host, outcome, report
from gpu_host_samples import planted

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_host_dcgm as dcgm
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import UnknownError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

NO_ENGINE = (
    "Error: unable to establish a connection to the specified host: localhost\n"
    "Error: Unable to connect to host engine. Host engine connection invalid/disconnected.\n"
)


def four(*results):
    """Write what DCGM 4 says: one test with these results beside one that is fine."""
    fine = {"entity_group": "GPU", "entity_group_id": 1, "entity_id": 0, "status": "Pass"}
    tests = [
        {"name": "software", "results": list(results), "test_summary": {"status": "Pass"}},
        {"name": "denylist", "results": [fine]},
    ]
    category = {"category": "Deployment", "tests": tests}
    return json.dumps(
        {"DCGM Diagnostic": {"test_categories": [category]}, "metadata": {"version": "4.2.3"}}
    )


def three(*results):
    """Write what DCGM 3 says."""
    category = {"category": "Deployment", "tests": [{"name": "Inforom", "results": list(results)}]}
    return json.dumps({"DCGM GPU Diagnostic": {"test_categories": [category], "Version": "3.3.9"}})


def look(tmp_path, out, rc=0):
    return dcgm.diagnosis(
        planted(tmp_path, {"etc": None}, {"dcgmi diag -r 1 -j": Outcome(rc, out, "")})
    )


def test_all_is_fine(tmp_path):
    out = four({"entity_group": "GPU", "entity_id": 1, "status": "Skip"})
    assert look(tmp_path, out) == {
        "installed": True,
        "running": True,
        "passed": 2,
        "problems": [],
    }


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        (
            four(
                {
                    "entity_group": "GPU",
                    "entity_id": 1,
                    "status": "Fail",
                    "warnings": [{"error_id": 95, "warning": "Pending page retirements."}],
                }
            ),
            {
                "test": "software",
                "status": "fail",
                "gpus": ["1"],
                "message": "Pending page retirements.",
            },
        ),
        (
            four({"entity_group": "CPU", "entity_id": 0, "status": "Warn", "warnings": []}),
            {"test": "software", "status": "warn", "gpus": [], "message": ""},
        ),
        (
            three({"gpu_ids": "0, 1", "status": "FAIL", "warnings": "The InfoROM is corrupt."}),
            {
                "test": "Inforom",
                "status": "fail",
                "gpus": ["0", "1"],
                "message": "The InfoROM is corrupt.",
            },
        ),
        (
            three({"gpu_id": "0", "status": "Unheard-of", "info": "what now"}),
            {"test": "Inforom", "status": "warn", "gpus": ["0"], "message": "what now"},
        ),
    ],
)
def test_problems_of_both_versions(tmp_path, out, problem):
    # A failed diagnosis ends with a status of its own, and may say something before its JSON.
    found = look(tmp_path, f"Successfully ran diagnostic for group.\n{out}", rc=226)
    assert found["problems"] == [problem]


@pytest.mark.parametrize("rc", [0, 1])
def test_the_host_engine_does_not_run(tmp_path, rc):
    assert look(tmp_path, NO_ENGINE, rc) == {"installed": True, "running": False}


@pytest.mark.parametrize(
    "out", ["", "{", "[]", "{}", '{"DCGM": {"test_categories": [1, {"tests": 3}]}}']
)
def test_what_it_says_cannot_be_understood(tmp_path, out):
    with pytest.raises(UnknownError, match="dcgmi diag -r 1 -j ended with status 1"):
        look(tmp_path, out, rc=1)


def test_it_does_not_end(tmp_path):
    with pytest.raises(UnknownError, match="did not answer within 60 s"):
        look(tmp_path, "", rc=None)


FAILED = {"test": "Inforom", "status": "fail", "gpus": ["0"], "message": "corrupt"}
WARNED = {**FAILED, "status": "warn"}


@pytest.mark.parametrize(
    ("part", "status"),
    [
        (None, "N/A"),
        ({"installed": False}, "N/A"),
        ({"installed": True, "running": False}, "INFO"),
        ({"installed": True, "running": True, "passed": 9, "problems": []}, "PASS"),
        ({"installed": True, "running": True, "passed": 9, "problems": [WARNED]}, "WARN"),
        (
            {"installed": True, "running": True, "passed": 9, "problems": [WARNED, FAILED]},
            "CRITICAL",
        ),
    ],
)
def test_verdicts(part, status):
    found = outcome(report(facts(), host(dcgm=part)), "gpu_dcgm")
    assert found.status == status
    if status in ("WARN", "CRITICAL"):
        assert found.value[-1].startswith("Inforom of GPU 0: ")


def test_one_that_cannot_be_read_stops_no_run():
    around = host(dcgm=None, errors=[{"what": "dcgm", "message": "it did not answer within 60 s"}])
    found = report(facts(), around)
    assert outcome(found, "gpu_dcgm").status == "WARN"
    assert "60 s" in outcome(found, "gpu_dcgm").evidence
    assert outcome(found, "gpu_host").status == "PASS"
