# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from gpu_host_samples import planted

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_host_units as units
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import UnknownError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

SHOW = "systemctl show"


def show(**fields):
    text = {"LoadState": "loaded", "User": "ollama", "NoNewPrivileges": "no", **fields}
    lines = []
    for name, value in text.items():
        lines += [f"{name}={line}" for line in (value if isinstance(value, list) else [value])]
    return "\n".join(lines) + "\n"


def read(tmp_path, files=None, answers=None, **fields):
    notes = []
    answers = answers or {SHOW: show(**fields)}
    host = planted(tmp_path, files or {"etc": None}, answers)
    return units.read_units(host, ["ollama.service"], notes), notes


def test_a_clean_unit(tmp_path):
    found, notes = read(
        tmp_path,
        {"etc/ollama.env": "OLLAMA_HOST=0.0.0.0\nTOKEN=secret\n"},
        Environment="PATH=/usr/bin CUDA_VISIBLE_DEVICES=0",
        EnvironmentFiles=["/etc/ollama.env (ignore_errors=no)"],
        SupplementaryGroups="video render",
        NoNewPrivileges="yes",
    )
    assert notes == []
    listed = {entry["name"]: entry for entry in units.variables(found)}
    assert set(listed) == {"PATH", "CUDA_VISIBLE_DEVICES", "OLLAMA_HOST", "TOKEN"}
    assert listed["TOKEN"] == {  # a name at most: it may be a secret
        "unit": "ollama.service",
        "name": "TOKEN",
        "source": "/etc/ollama.env",
    }
    assert found[0].groups == ("video", "render")
    assert found[0].no_new_privileges
    assert units.groups_of(found, "ollama") == ["video", "render"]
    assert units.groups_of(found, "vllm") == []


def test_a_switch_in_the_unit_and_one_in_a_file(tmp_path):
    files = {
        "etc/default/ollama": "# debugging\nCUDA_PROFILE=1\nexport X=2\n",
        "etc/ollama.d/1.env": 'CUDA_INJECTION64_PATH="/opt/a b.so"\n',
    }
    found, notes = read(
        tmp_path,
        files,
        Environment='CUDA_COREDUMP_FILE=/var/core "CUDA_PROFILE=0" "A=b c" NOT_CUDA_PROFILE=1',
        EnvironmentFiles=[
            "/etc/default/ollama (ignore_errors=yes)",
            "/etc/ollama.d/*.env (ignore_errors=no)",
            "/etc/missing (ignore_errors=yes)",
        ],
    )
    assert notes == []
    assert [entry for entry in units.variables(found) if "value" in entry] == [
        {
            "unit": "ollama.service",
            "name": "CUDA_COREDUMP_FILE",
            "value": "/var/core",
            "source": "Environment=",
        },
        {
            "unit": "ollama.service",
            "name": "CUDA_PROFILE",
            "value": "1",
            "source": "/etc/default/ollama",
        },
        {
            "unit": "ollama.service",
            "name": "CUDA_INJECTION64_PATH",
            "value": "/opt/a b.so",
            "source": "/etc/ollama.d/1.env",
        },
    ]


def test_a_file_that_must_be_there_and_is_not(tmp_path):
    found, notes = read(tmp_path, EnvironmentFiles=["/etc/missing (ignore_errors=no)"])
    assert found[0].environment == ()
    assert notes == ["ollama.service: /etc/missing is not there"]


@pytest.mark.parametrize(
    ("answers", "note"),
    [
        ({"other": ""}, "systemctl is not installed"),
        ({SHOW: Outcome(None, "", "")}, "systemctl show ollama.service did not answer within 3 s"),
        (
            {SHOW: Outcome(1, "", "System has not been booted with systemd as init system\n")},
            "systemctl show ollama.service ended with status 1: "
            "System has not been booted with systemd as init system",
        ),
    ],
)
def test_a_unit_that_cannot_be_read_is_named(tmp_path, answers, note):
    assert read(tmp_path, answers=answers) == ([], [note])


def test_a_unit_that_is_not_installed_has_nothing(tmp_path):
    assert read(tmp_path, answers={SHOW: show(LoadState="not-found")}) == ([], [])


def test_an_environment_that_cannot_be_read_is_named(tmp_path):
    found, notes = read(tmp_path, Environment='A="b')
    assert found[0].environment == ()
    assert "its Environment can't be read" in notes[0]


@pytest.mark.parametrize(
    ("state", "processes", "expected"),
    [
        (Outcome(0, "active\n", ""), [], "active"),
        (Outcome(3, "inactive\n", ""), [], "inactive"),
        (Outcome(3, "failed\n", ""), ["bash"], "inactive"),
        (Outcome(3, "inactive\n", ""), ["bash", "nvidia-persiste"], "active"),
        (Outcome(127, "", "no systemctl"), ["nvidia-persiste"], "active"),
        (Outcome(127, "", "no systemctl"), ["nvidia-smi"], "inactive"),
    ],
)
def test_persistence_daemon(tmp_path, state, processes, expected):
    files = {f"proc/{number + 10}/comm": f"{name}\n" for number, name in enumerate(processes)}
    host = planted(tmp_path, {"proc/version": "", **files}, {"systemctl is-active": state})
    assert units.persistence_daemon(host) == expected


def test_persistence_daemon_unknown(tmp_path):
    with pytest.raises(UnknownError):
        units.persistence_daemon(planted(tmp_path, {"etc": None}))
