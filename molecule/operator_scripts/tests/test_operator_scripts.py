# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

NODE = "/opt/hx-infrastructure/llm-02"
SHARED = "/opt/scripts"
ENV = f"{NODE}/config/ollama/ollama.env"
SCRIPTS = [f"service/ollama/{name}.sh" for name in ("start", "stop", "restart", "status")]
SCRIPTS += [f"tests/smoke/ollama/{name}.sh" for name in ("smoke", "comprehensive-smoke")]


@pytest.mark.parametrize("script", SCRIPTS)
def test_shared_script_and_the_link_to_it(llm_02, script):
    shared = llm_02.file(f"{SHARED}/{script}")
    assert (shared.user, shared.group, shared.mode) == ("root", "root", 0o755)
    assert llm_02.file(f"{NODE}/scripts/{script}").linked_to == f"{SHARED}/{script}"


@pytest.mark.parametrize("name", ["model-config.sh", "ollama-common.sh", "ollama-defaults.sh"])
def test_libraries_cannot_be_executed(llm_02, name):
    library = llm_02.file(f"{SHARED}/lib/{name}")
    assert (library.user, library.group, library.mode) == ("root", "root", 0o644)


def test_the_local_script_is_kept(llm_02):
    (kept,) = llm_02.run(f"ls {NODE}/scripts/service/ollama/*.bak").stdout.split()
    assert kept.startswith(f"{NODE}/scripts/service/ollama/start.sh.local-20")
    assert llm_02.file(kept).content_string == "#!/bin/sh\nsystemctl start ollama\n"


def test_the_old_environment_file_is_kept(llm_02):
    (kept,) = llm_02.run(f"ls {ENV}.bak.*").stdout.split()
    old = llm_02.file(kept)
    assert "OLLAMA_MODEL_PHI3='phi3:latest@sha256:4f2222927938\n" in old.content_string
    assert (old.user, old.group, old.mode) == ("root", "ollama", 0o640)


def test_the_environment_file_means_the_same_to_systemd_and_to_a_shell(llm_02):
    names = "'^(OLLAMA_(MODELS|HOST|PORT)|MODEL_)'"
    in_unit = llm_02.run(
        f"systemd-run --quiet --pipe --wait --property=EnvironmentFile={ENV} "
        f'sh -c "env | grep -E {names} | sort"'
    ).stdout
    in_shell = llm_02.run(f'sh -c "set -a; . {ENV}; env | grep -E {names} | sort"').stdout
    assert in_unit == in_shell
    assert "MODEL_PHI3=phi3:latest\n" in in_unit
    assert "OLLAMA_MODELS_TOTAL_SIZE=36.7GB\n" in in_unit
    assert "OLLAMA_PORT=11434\n" in in_unit


def test_the_library_reads_the_environment_file(llm_02):
    shown = llm_02.run(
        f"bash -c 'source {SHARED}/lib/model-config.sh && extract_model_references {ENV}'"
    ).stdout
    assert "  MODEL_COGITO_32B = cogito:32b\n" in shown


def test_stop_status_start_restart(llm_02):
    folder = f"{NODE}/scripts/service/ollama"
    stopped = llm_02.run(f"{folder}/stop.sh")
    assert stopped.rc == 0, stopped
    assert llm_02.run(f"{folder}/status.sh").rc == 3
    started = llm_02.run(f"{folder}/start.sh")
    assert started.rc == 0, started
    assert started.stdout.splitlines()[-1] == "Ollama started successfully and is responding"
    assert llm_02.run(f"{folder}/restart.sh").rc == 0
    status = llm_02.run(f"{folder}/status.sh")
    assert status.rc == 0
    assert "cogito:32b" in status.stdout


def test_smoke_scripts(llm_02):
    quick = llm_02.run(f"{NODE}/scripts/tests/smoke/ollama/smoke.sh")
    assert quick.rc == 0, quick
    full = llm_02.run(f"{NODE}/scripts/tests/smoke/ollama/comprehensive-smoke.sh")
    assert full.rc == 0, full
    assert full.stdout.splitlines()[-1] == "comprehensive-smoke: 5 of 5 tests passed"


def test_a_service_that_cannot_start_is_reported(llm_02):
    drop_in = "/run/systemd/system/ollama.service.d/zz-broken.conf"
    start = f"{SHARED}/service/ollama/start.sh"
    llm_02.run(
        f"mkdir -p $(dirname {drop_in}) && "
        f"printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' >{drop_in} && "
        "systemctl daemon-reload && systemctl stop ollama"
    )
    try:
        failed = llm_02.run(
            "mkdir -p /run/start-logs && "
            f"OLLAMA_LOG_DIR=/run/start-logs OLLAMA_START_TIMEOUT=3 {start}"
        )
        assert failed.rc == 1
        wanted = "Ollama failed to start - check logs at /run/start-logs/start-failure.log"
        assert failed.stderr.splitlines()[-1] == wanted
        assert llm_02.file("/run/start-logs/start-failure.log").size > 0
    finally:
        llm_02.run(f"rm {drop_in} && systemctl daemon-reload && {start}")
    assert llm_02.service("ollama").is_running
