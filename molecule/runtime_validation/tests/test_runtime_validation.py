# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is found of a real unit, a real socket and a real peer."""

from __future__ import annotations

import json

import pytest

UNIT = "ollama.service"


@pytest.fixture
def validate(playbook):
    """Run the entry point; returns its status and its text in one line."""

    def run(*arguments, **variables):
        given = ["-e", json.dumps(variables)] if variables else []
        path = "molecule/runtime_validation/converge.yml"
        ended = playbook("-i", "inventories/lab", path, *given, *arguments)
        return ended.returncode, " ".join((ended.stdout + ended.stderr).split())

    return run


@pytest.fixture
def engine(llm_02):
    yield llm_02
    llm_02.run(f"rm -f /run/systemd/system/{UNIT}.d/zz-lab.conf; systemctl daemon-reload")
    llm_02.check_output(f"systemctl restart {UNIT}")


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_an_engine_that_runs_as_declared(validate, llm_02, arguments):
    pid = llm_02.check_output(f"systemctl show -P MainPID {UNIT}")
    rc, text = validate(*arguments)
    assert rc == 0, text
    assert "changed=0" in text
    assert f"{UNIT} active {pid}" in text
    assert "0.11.4 5 2" in text


def test_the_playbook_reads_the_declaration(playbook):
    peers = json.dumps({"target": "llm-02", "llm_runtime_peers": ["svc-01"]})
    ended = playbook("-i", "inventories/lab", "playbooks/validate_runtime.yml", "-e", peers)
    assert ended.returncode == 0, ended.stdout
    assert "changed=0" in ended.stdout


def test_a_stopped_engine(validate, engine):
    engine.check_output(f"systemctl stop {UNIT}")
    rc, text = validate()
    assert rc == 2
    assert f"FAIL: llm-02 {UNIT}: unit_active is inactive, wanted active" in text


def test_an_engine_for_its_own_host_alone(validate, engine):
    folder = f"/run/systemd/system/{UNIT}.d"
    engine.check_output(
        f"mkdir -p {folder} && printf '[Service]\\nEnvironment=OLLAMA_HOST=127.0.0.1:11434\\n' "
        f">{folder}/zz-lab.conf && systemctl daemon-reload && systemctl restart {UNIT}"
    )
    rc, text = validate()
    assert rc == 2
    assert f"FAIL: llm-02 {UNIT}: bound_address is 127.0.0.1, wanted 0.0.0.0" in text
    assert f"FAIL: llm-02 {UNIT} from svc-01: reachable is no answer, wanted an answer" in text
    assert validate(listen="127.0.0.1:11434")[0] == 0


def test_an_engine_that_sees_no_gpu(validate, engine):
    folder = f"/run/systemd/system/{UNIT}.d"
    engine.check_output(
        f"mkdir -p {folder} && printf '[Service]\\nEnvironment=SIM_OLLAMA_NVML=/none\\n' "
        f">{folder}/zz-lab.conf && systemctl daemon-reload && systemctl restart {UNIT}"
    )
    rc, text = validate()
    assert rc == 2
    assert f"FAIL: llm-02 {UNIT}: gpus_visible is 0, wanted 2" in text


def test_a_peer_that_is_not_there(validate):
    rc, text = validate(peers=["registry-gone", "svc-01"])
    assert rc == 0, text
    assert f"WARN: llm-02 {UNIT} from registry-gone: reachable is not known" in text
