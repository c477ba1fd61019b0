# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pwd
import sys

import pytest
from gpu_host_samples import Programs, planted

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_host_nodes as nodes
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import (
    Host,
    UnknownError,
    run_program,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

ALL = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia0", "nvidia1"]
ME = pwd.getpwuid(os.geteuid())


@pytest.mark.parametrize(
    ("names", "gpus", "expected"),
    [
        (["null", "nvidiactl", "nvidia0", "nvidia-modeset"], 1, [*ALL[:4]]),
        (["null"], 2, ALL),
        (["null"], 0, []),
        (["nvidiactl", "nvidia10", "nvidia2"], 0, ["nvidiactl", "nvidia2", "nvidia10"]),
        (["nvidia0", "nvidia1"], 1, ALL),
    ],
)
def test_expected_nodes(names, gpus, expected):
    assert nodes.expected_nodes(names, gpus) == expected


def test_describe(tmp_path):
    host = planted(tmp_path, {"dev/nvidia0": ""})
    (tmp_path / "dev/nvidia0").chmod(0o640)
    assert nodes.describe(host, ["nvidia0", "nvidiactl"]) == [
        {
            "path": "/dev/nvidia0",
            "mode": "0640",
            "owner": ME.pw_name,
            "group": nodes._name(nodes.grp.getgrgid, os.stat(tmp_path / "dev/nvidia0").st_gid),
        },
        {"path": "/dev/nvidiactl", "openable": False, "message": "is not there"},
    ]


def test_an_owner_without_a_name_is_a_number():
    assert nodes._name(pwd.getpwuid, 3999999999) == "3999999999"


def test_opening_for_real(tmp_path):
    files = {"dev/nvidia0": "", "dev/nvidiactl": None}  # nobody opens a directory for writing
    planted(tmp_path, files)
    host = Host(run=run_program, root=str(tmp_path), timeout_s=20.0)
    listed = nodes.describe(host, ["nvidia0", "nvidiactl", "nvidia1"])
    opened = nodes.try_to_open(host, sys.executable, listed, None)
    assert [(node["path"], node["openable"]) for node in opened] == [
        ("/dev/nvidia0", True),
        ("/dev/nvidiactl", False),
        ("/dev/nvidia1", False),
    ]
    assert "message" not in opened[0]
    assert opened[1]["message"] == "Is a directory (EISDIR)"
    assert opened[2]["message"] == "is not there"


def child(outcome, tmp_path, *names):
    planted(tmp_path, {f"dev/{name}": "" for name in names})
    host = Host(run=Programs({"python": outcome}), root=str(tmp_path), timeout_s=3.0)
    return nodes.try_to_open(host, "python", nodes.describe(host, names), None)


def lines(tmp_path, *entries):
    text = "".join(f"{json.dumps(entry)}\n" for entry in entries)
    return text.replace("/dev/", f"{tmp_path}/dev/")


def test_a_node_that_hangs_is_not_openable_and_the_rest_is_unknown(tmp_path):
    out = lines(
        tmp_path,
        {"opening": "/dev/nvidiactl"},
        {"opened": "/dev/nvidiactl", "ok": True},
        {"opening": "/dev/nvidia0"},
    )
    found = child(Outcome(None, out, ""), tmp_path, "nvidiactl", "nvidia0", "nvidia1")
    assert [node.get("openable") for node in found] == [True, False, None]
    assert found[1]["message"] == "opening it did not end within 3 s"
    assert found[2]["message"] == "not tried: an earlier node did not answer"
    assert nodes.hanging(found) == "/dev/nvidia0"


def test_nothing_hangs_on_a_healthy_host(tmp_path):
    out = lines(tmp_path, {"opening": "/dev/nvidia0"}, {"opened": "/dev/nvidia0", "ok": True})
    found = child(Outcome(0, out, ""), tmp_path, "nvidia0")
    assert found[0]["openable"]
    assert nodes.hanging(found) == ""


def test_a_child_that_dies_while_it_opens(tmp_path):
    out = lines(tmp_path, {"opening": "/dev/nvidia0"})
    found = child(Outcome(-11, out, ""), tmp_path, "nvidia0")
    assert found[0]["openable"] is False
    assert "status -11" in found[0]["message"]


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome(1, '{"error": "Operation not permitted"}\n', ""), "Operation not permitted"),
        (Outcome(127, "", "python: No such file or directory"), "No such file"),
        (Outcome(None, "", ""), "did not answer within 3 s"),
    ],
)
def test_a_child_that_cannot_work_makes_it_unknown(tmp_path, outcome, text):
    with pytest.raises(UnknownError, match=text):
        child(outcome, tmp_path, "nvidia0")


def test_no_node_no_child(tmp_path):
    host = planted(tmp_path, {"dev": None})
    missing = nodes.describe(host, ["nvidiactl"])
    assert nodes.try_to_open(host, "python", missing, None) == missing
    assert host.run.calls == []


def test_accounts():
    found = nodes.account(ME.pw_name, ["3210"])
    assert (found.uid, found.gid) == (ME.pw_uid, ME.pw_gid)
    assert found.groups[-1] == 3210
    assert found.as_dict()["groups"] == list(found.groups)
    with pytest.raises(UnknownError, match="no user hx-nobody"):
        nodes.account("hx-nobody")
    with pytest.raises(UnknownError, match="no group hx-nobody"):
        nodes.account(ME.pw_name, ["hx-nobody"])
