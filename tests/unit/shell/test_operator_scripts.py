# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:/usr/bin")
START = "service/ollama/start.sh"
STOP = "service/ollama/stop.sh"
RESTART = "service/ollama/restart.sh"
STATUS = "service/ollama/status.sh"
SMOKE = "tests/smoke/ollama/smoke.sh"
FULL = "tests/smoke/ollama/comprehensive-smoke.sh"
SCRIPTS = [START, STOP, RESTART, STATUS, SMOKE, FULL]
STARTED = "Ollama started successfully and is responding"
NOT_STARTED = "Ollama failed to start - check logs at "


def test_start(host):
    done = host.run(START)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == STARTED


def test_start_through_a_link(host, tmp_path):
    link = tmp_path / "node" / "start.sh"
    link.parent.mkdir()
    link.symlink_to(host.scripts / START)
    host.scripts = link.parent
    assert host.run("start.sh").stdout.splitlines()[-1] == STARTED


def test_start_waits_for_an_api_that_comes_later(host, server):
    late = server.answers.pop("/api/version")
    threading.Timer(1.2, lambda: server.answers.update({"/api/version": late})).start()
    done = host.run(START, OLLAMA_START_TIMEOUT="10")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"FAKE_START": "failed"}, "is failed"),
        ({"FAKE_START": "missing"}, "could not be started"),
        ({"FAKE_START": "activating"}, "is activating and http://"),
        ({"OLLAMA_URL": "http://127.0.0.1:9"}, "does not respond after 2 s"),
    ],
)
def test_start_that_fails(host, environment, reason):
    started = time.monotonic()
    done = host.run(START, **environment)
    assert time.monotonic() - started < 6
    assert done.returncode == 1
    assert STARTED not in done.stdout
    log = host.top / "logs/start-failure.log"
    assert done.stderr.splitlines()[-1] == f"{NOT_STARTED}{log}"
    assert reason in done.stderr
    assert "the last lines of the journal" in log.read_text()


def test_start_respects_its_timeout_when_calls_hang(host, server):
    server.delay = 5
    started = time.monotonic()
    done = host.run(START, OLLAMA_CALL_TIMEOUT="30", OLLAMA_START_TIMEOUT="2")
    assert done.returncode == 1
    assert time.monotonic() - started < 4.5


@pytest.mark.parametrize("body", ["Welcome to nginx", ""])
def test_start_does_not_take_another_service_for_ollama(host, server, body):
    server.answers["/"] = (200, body)
    assert host.run(START).returncode == 1


def test_start_names_the_journal_when_no_log_can_be_written(host):
    done = host.run(START, FAKE_START="failed", OLLAMA_LOG_DIR="/no/such/directory")
    assert done.stderr.splitlines()[-1] == f"{NOT_STARTED}journalctl -u ollama.service"


def test_start_forgets_an_earlier_failure(host):
    host.state("failed")
    assert host.run(START).returncode == 0
    assert "systemctl reset-failed ollama.service" in host.calls()


def test_stop(host):
    host.state("active")
    done = host.run(STOP)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Ollama stopped")
    assert "kill" not in host.calls()


def test_stop_kills_after_the_time_of_grace(host):
    host.state("active")
    started = time.monotonic()
    done = host.run(STOP, FAKE_STOP="deactivating")
    assert time.monotonic() - started >= 1
    assert done.returncode == 0
    assert "did not stop within 1 s, killing it" in done.stderr
    assert "systemctl kill --signal=SIGKILL ollama.service" in host.calls()


def test_stop_that_fails(host):
    host.state("active")
    done = host.run(STOP, FAKE_STOP="error")
    assert done.returncode == 1
    assert "Ollama failed to stop - check logs at journalctl -u ollama.service" in done.stderr


def test_default_grace_is_thirty_seconds(host):
    del host.environment["OLLAMA_STOP_GRACE"]
    assert "OLLAMA_STOP_GRACE=30 " in host.run(STOP, "--help").stdout


def test_restart_stops_and_starts(host):
    host.state("active")
    done = host.run(RESTART)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == STARTED
    calls = host.calls()
    assert calls.index("systemctl stop") < calls.index("systemctl start")


def test_restart_does_not_start_what_could_not_be_stopped(host):
    host.state("active")
    assert host.run(RESTART, FAKE_STOP="error").returncode == 1
    assert "systemctl start" not in host.calls()


def test_status_of_a_healthy_service(host):
    host.state("active")
    done = host.run(STATUS)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("ollama.service is active", "4242", "Version: 0.11.4", "Models:  2"):
        assert text in done.stdout
    assert "llama3.2:3b" in done.stdout
    assert "2.1GB" in done.stdout or "2.0GB" in done.stdout


@pytest.mark.parametrize(
    ("state", "environment", "code"),
    [
        ("inactive", {}, 3),
        ("failed", {}, 3),
        ("activating", {}, 3),
        ("active", {"OLLAMA_URL": "http://127.0.0.1:9"}, 1),
    ],
)
def test_status_codes(host, state, environment, code):
    host.state(state)
    assert host.run(STATUS, **environment).returncode == code


def test_status_with_a_broken_model_list(host, server):
    host.state("active")
    server.answers["/api/tags"] = (200, "{}")
    done = host.run(STATUS)
    assert done.returncode == 1
    assert "the answer lacks 'models'" in done.stderr


def test_smoke(host):
    done = host.run(SMOKE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "PASS  root endpoint: Ollama is running\n"
        "PASS  version endpoint: 0.11.4\n"
        "smoke: 2 of 2 tests passed\n"
    )


@pytest.mark.parametrize(
    ("path", "answer", "reason"),
    [
        ("/", (200, "hello"), "wanted 'Ollama is running'"),
        ("/", (503, "no"), "503"),
        ("/api/version", (200, "<html>"), "the answer is not"),
        ("/api/version", (200, '{"version": 3}'), "version is not a text"),
        ("/api/version", (200, "[]"), "the answer is not"),
        ("/api/version", (500, "no"), "500"),
    ],
)
def test_smoke_that_fails(host, server, path, answer, reason):
    server.answers[path] = answer
    done = host.run(SMOKE)
    assert done.returncode == 1
    assert reason in done.stdout
    assert done.stdout.splitlines()[-1] == "smoke: 1 of 2 tests passed"


def test_smoke_respects_the_timeout_of_a_call(host, server):
    server.delay = 10
    started = time.monotonic()
    done = host.run(SMOKE)
    assert time.monotonic() - started < 5
    assert done.returncode == 1
    assert done.stdout.count("FAIL") == 2


def test_comprehensive_smoke(host):
    done = host.run(FULL)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "comprehensive-smoke: 5 of 5 tests passed"


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        (lambda first, _second: [first], "missing qwen3:1.7b"),
        (lambda *both: [*both, {**both[0], "name": "phi3"}], "not expected phi3:latest"),
        (lambda first, _: [{**first, "digest": "xyz"}], "digest of llama3.2:3b is 'xyz'"),
        (lambda first, _: [{**first, "size": "big"}], "size of llama3.2:3b is 'big'"),
        (lambda first, _: [{"name": first["name"]}], "the answer lacks 'size'"),
        (lambda *_: None, "the answer is not a list of models"),
    ],
)
def test_comprehensive_smoke_that_fails(host, server, models, reason):
    answer = {"models": models(*server.models)}
    server.answers["/api/tags"] = (200, json.dumps(answer))
    done = host.run(FULL)
    assert done.returncode == 1
    assert reason in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (",qwen3:1.7b", "", "list against variables: missing qwen3:1.7b"),
        ("MODEL_QWEN3_1_7B", "OTHER", "variables: not expected qwen3:1.7b"),
        ("qwen3:1.7b", "qwen3:8b", "missing qwen3:8b, not expected qwen3:1.7b"),
    ],
)
def test_comprehensive_smoke_compares_with_the_environment_file(host, old, new, reason):
    (host.top / "ollama.env").write_text(host.env_text.replace(old, new))
    done = host.run(FULL)
    assert done.returncode == 1
    assert reason in done.stdout, done.stdout


def test_comprehensive_smoke_without_environment_file(host):
    (host.top / "ollama.env").unlink()
    done = host.run(FULL)
    assert done.returncode == 1
    assert "does not exist or is not readable" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_wrong_usage(host, script):
    done = host.run(script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: {Path(script).name}\n")
    assert "OLLAMA_CALL_TIMEOUT=1 " in done.stdout
    done = host.run(script, "--force")
    assert done.returncode == 2
    assert "unexpected argument: --force" in done.stderr
    assert host.calls() == ""


def test_missing_program_is_named(host, tmp_path):
    programs = tmp_path / "few"
    programs.mkdir()
    for name in ("bash", "env", "dirname", "readlink", "cat"):
        (programs / name).symlink_to(shutil.which(name))
    done = host.run(SMOKE, PATH=str(programs))
    assert done.returncode == 1
    assert done.stderr == "ERROR: not installed: curl python3\n"


@pytest.mark.skipif(not SHELLCHECK, reason="shellcheck is not installed")
def test_shellcheck(host):
    files = sorted(str(path) for path in host.scripts.rglob("*.sh"))
    assert len(files) == 9
    done = subprocess.run(
        [SHELLCHECK, "--external-sources", *files], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
