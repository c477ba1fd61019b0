# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A nightly run as a whole: its suites, its end, its settings, and never two at once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from nightly_host import COLLECTION, Host, engine, program
from nightly_standins import http_server, ollama_answers

SCRIPTS = Path(__file__).resolve().parents[2] / "roles/operator_scripts/files/opt/scripts"
ONE, TWO = "tiny:1b", "tiny-think:1b"


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_suites_run_and_their_output_is_logged(host, ollama):
    good = program(host.folder / "good.sh", "echo PASS all is well")
    bad = program(host.folder / "bad.sh", "echo FAIL the version; exit 3")
    status, output = host.run(engine(ollama.url, models=[ONE]), suites=[good, bad])
    assert status == 1
    assert "good.sh | PASS all is well" in output
    assert host.metric('suite_success{suite="good.sh"}') == 1
    assert host.metric('suite_success{suite="bad.sh"}') == 0
    assert "ended with status 3" in host.checks["bad.sh"]["message"]
    assert host.checks[ONE]["ok"]


def test_the_operators_suites(host, ollama, tmp_path):
    """The suites of the role operator_scripts as they are installed, against a running engine."""
    scripts = tmp_path / "scripts"
    for name in ("lib/model-config.sh", "lib/ollama-common.sh", "tests/smoke/ollama/smoke.sh"):
        (scripts / name).parent.mkdir(parents=True, exist_ok=True)
        (scripts / name).write_bytes((SCRIPTS / name).read_bytes())
    defaults = "OLLAMA_UNIT=o OLLAMA_ENV_FILE=/none OLLAMA_LOG_DIR=/none OLLAMA_START_TIMEOUT=1"
    more = f"OLLAMA_STOP_GRACE=1 OLLAMA_CALL_TIMEOUT=10 OLLAMA_URL={ollama.url}"
    (scripts / "lib/ollama-defaults.sh").write_text(f"export {defaults} {more}\n")
    suite = scripts / "tests/smoke/ollama/smoke.sh"
    suite.chmod(0o755)
    status, output = host.run(engine(ollama.url, models=[ONE]), suites=[str(suite)])
    assert status == 0, output
    assert "smoke.sh | PASS  root endpoint: Ollama is running" in output


def test_a_suite_that_hangs_is_killed_with_what_it_started(host, ollama):
    suite = program(host.folder / "hang.sh", f"sleep 300 & echo $! >{host.folder}/pid; wait")
    begin = time.monotonic()
    status, _output = host.run(engine(ollama.url, models=[ONE]), suites=[suite], suite_seconds=0.5)
    assert status == 1
    assert time.monotonic() - begin < 60
    assert "was killed after 0.5 s" in host.checks["hang.sh"]["message"]
    assert host.checks[ONE]["ok"]
    pid = int((host.folder / "pid").read_text())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("text", [None, "not a program"])
def test_a_suite_that_cannot_be_run(host, ollama, text):
    path = host.folder / "none.sh"
    if text:
        path.write_text(text)
    status, _output = host.run(engine(ollama.url, models=[ONE]), suites=[str(path)])
    assert status == 1
    assert "can't be run" in host.checks["none.sh"]["message"]


def test_a_suite_that_failed_while_the_engine_was_away_is_run_again(host, old):
    flag = host.folder / "stopped"
    kill = f"kill {old.process.popen.pid}; while kill -0 {old.process.popen.pid}; do :; done"
    text = f"[ -e {flag} ] || {{ touch {flag}; {kill} 2>/dev/null; echo it is gone; exit 1; }}"
    suite = program(host.folder / "smoke.sh", text)
    host.write(engine(old.url, models=[ONE]), suites=[suite], wait_seconds=30)
    child = host.start()
    threading.Thread(target=old.process.popen.wait, daemon=True).start()  # or a zombie would stay
    while "it is gone" not in (line := child.stdout.readline()):
        assert line
    old.start()
    output = child.communicate(timeout=60)[0]
    assert child.returncode == 0, output
    assert "at the second try" in host.checks["smoke.sh"]["message"]


def test_never_two_runs_at_once(host, ollama):
    flag = host.folder / "go"
    suite = program(host.folder / "hold.sh", f"while [ ! -e {flag} ]; do sleep 0.05; done")
    host.write(engine(ollama.url, models=[ONE]), suites=[suite])
    first = host.start()
    while "begin" not in (line := first.stdout.readline()):
        assert line
    second = host.start()
    output = second.communicate(timeout=30)[0]
    assert second.returncode == 3
    assert "another run is going on" in output
    assert not host.metrics_path.exists()
    flag.touch()
    assert first.wait(timeout=60) == 0
    assert host.metric("success") == 1


def test_a_run_that_is_ended_keeps_what_it_found(host, ollama):
    suite = program(host.folder / "hold.sh", f"touch {host.folder}/begun; sleep 300")
    host.write(engine(ollama.url, models=[ONE]), suites=[suite])
    child = host.start()
    while not (host.folder / "begun").exists():
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    output = child.communicate(timeout=30)[0]
    assert child.returncode == 1
    assert "signal SIGTERM" in output
    assert host.record["broken"] == "signal SIGTERM"
    assert host.metric("success") == 0


def test_what_is_not_asked_within_the_time_has_failed(host, ollama):
    suite = program(host.folder / "slow.sh", "sleep 1.2")
    status, output = host.run(
        engine(ollama.url, models=[ONE, TWO]), suites=[suite], budget_seconds=1
    )
    assert status == 1, output
    for model in (ONE, TWO):
        assert "the time for the whole run was over" in host.checks[model]["message"]


@pytest.mark.parametrize(
    ("result", "status", "noted"),
    [("timeout", "TERM", True), ("signal", "KILL", True), ("exit-code", "3", False)],
)
def test_a_run_that_could_not_write_its_end_is_noted(host, ollama, result, status, noted):
    assert host.run(engine(ollama.url, models=[ONE]))[0] == 0
    success = host.metric("last_success_timestamp_seconds")
    environment = {"SERVICE_RESULT": result, "EXIT_STATUS": status, "INVOCATION_ID": "i2"}
    assert host.start("--settle", **environment).wait(timeout=30) == 0
    assert host.metric("success") == (0 if noted else 1)
    assert host.metric("last_success_timestamp_seconds") == success
    if noted:
        assert host.record["broken"] == f"the service ended with {result}, status {status}"
        assert host.record["host"] == "llm-02"


def test_a_run_that_wrote_its_end_is_not_noted_twice(host, ollama):
    environment = {"INVOCATION_ID": "i1", "SERVICE_RESULT": "exit-code", "EXIT_STATUS": "1"}
    entry = engine(ollama.url, models=["none:7b"])
    assert host.run(entry, environment=environment)[0] == 1
    before = host.record
    assert host.start("--settle", **environment).wait(timeout=30) == 0
    assert host.record == before


def test_what_would_be_asked_is_told_without_asking(host):
    with http_server(ollama_answers()) as there:
        entry = engine(there.url, min_gpu_ratio=1.0)
        suite = "/opt/scripts/tests/smoke/ollama/smoke.sh"
        status, output = host.run(entry, more=["--list"], suites=[suite])
        asked = [path for _method, path, _body, _headers in there.requests]
    assert status == 0, output
    assert asked == ["/api/tags"]
    assert f"suite  {suite}, 120 s" in output
    assert "model  ollama: phi3:latest (that it lists) at /api/generate, 5 s after 10 s" in output
    assert not list(host.state.iterdir())
    assert not host.metrics_path.exists()
    status, output = host.run(entry, more=["--list"])
    assert status == 1
    assert "its models are not known: connection refused" in output


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engines": []}, "there are no engines and no suites"),
        ({"suites": ["/x"], "call_seconds": 0}, "call_seconds is 0, wanted a number of at least"),
        ({"suites": ["/x"], "call_seconds": "10"}, "call_seconds is '10'"),
        ({"engines": [engine("http://a:1"), engine("http://b:1")]}, "wanted each name once"),
        ({"engines": [engine("ftp://a:1")]}, "engines[0].url is 'ftp://a:1'"),
    ],
)
def test_wrong_settings_are_named(host, settings, said):
    status, output = host.run(**{"more": ["--check"], **settings})
    assert status == 2
    assert said in output


def test_settings_that_cannot_be_read(host):
    for text, said in ((None, "can't be read"), ("{", "is not JSON"), ("[]", "no JSON object")):
        if text is not None:
            host.config.write_text(text)
        child = host.start()
        output = child.communicate(timeout=30)[0]
        assert child.returncode == 2
        assert said in output


def test_a_log_that_cannot_be_written_ends_no_run(host, ollama):
    suite = program(host.folder / "loud.sh", "echo something")
    host.write(engine(ollama.url, models=[ONE]), suites=[suite])
    with open("/dev/full", "w") as full:
        environment = {**os.environ, **COLLECTION}
        done = subprocess.run(
            host.argv(), env=environment, stdout=full, stderr=full, timeout=60, check=False
        )
    assert done.returncode == 0
    assert host.metric("success") == 1


def test_metrics_that_cannot_be_written_are_a_failure(host, ollama):
    host.metrics_path = host.folder / "none" / "x.prom"
    status, output = host.run(engine(ollama.url, models=[ONE]))
    assert status == 2
    assert "x.prom could not be written: No such file" in output
