# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nightly test under systemd: its timer, its sandbox, what it finds and whom it tells."""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager

import pytest

UNIT = "nightly-smoke.service"
METRICS = "/var/lib/hxmon/textfile/nightly_smoke.prom"
NOTIFY_METRICS = "/var/lib/hxmon/textfile/nightly_smoke_notify.prom"
RECORD = "/var/lib/hx-nightly-smoke/last-run.json"
LOG = "/opt/logs/services/ollama/perf/nightly-smoke.log"
RECEIVED = "/run/lab-receiver.jsonl"
ENGINE_CONFIG = "/etc/sim-ollama/config.json"
MODELS = {"phi3:latest", "gemma2:2b", "cogito:32b", "deepcoder:14b", "dolphin3:8b"}


def metric(host, name, path=METRICS):
    found = re.search(
        rf"^hx_infra_nightly_smoke_{re.escape(name)} (\S+)$",
        host.file(path).content_string,
        re.MULTILINE,
    )
    return float(found[1]) if found else None


def record(host):
    return json.loads(host.file(RECORD).content_string)


def run(host):
    """Run the test as the timer does; returns the result that systemd gives it."""
    host.run(f"systemctl start {UNIT}")
    return host.check_output(f"systemctl show -P Result {UNIT}")


def received(host, count):
    """Wait until so many notifications have come, and return them."""
    for _turn in range(60):
        lines = host.run(f"cat {RECEIVED}").stdout.splitlines()
        if len(lines) >= count:
            return [json.loads(line) for line in lines]
        time.sleep(0.5)
    raise AssertionError(host.run("journalctl -n 50 -u 'nightly-smoke*'").stdout)


def settle(host):
    """Wait until no test and no notifier runs any more: what they have to tell, they have told."""
    running = "systemctl list-units --no-legend --state=active,activating,deactivating"
    for _turn in range(120):
        if not host.check_output(f"{running} 'nightly-smoke*.service'"):
            return
        time.sleep(0.25)
    raise AssertionError(host.run("systemctl status 'nightly-smoke*.service'").stdout)


@pytest.fixture(scope="module")
def passed(llm_02):
    """Run the test and keep what it left, so that others can begin there."""
    assert run(llm_02) == "success", llm_02.file(LOG).content_string
    where = "var/lib/hx-nightly-smoke var/lib/hxmon/textfile"
    llm_02.check_output(f"tar -C / -cf /run/passed.tar {where}")
    return llm_02


@pytest.fixture
def quiet(passed):
    """Begin after a run that passed and of which nobody was told, and end there."""
    settle(passed)
    passed.run(f"rm -f {RECEIVED}")
    yield passed
    settle(passed)
    passed.check_output("systemctl start ollama.service")
    passed.check_output("tar -C / -xf /run/passed.tar")
    passed.run(f"systemctl reset-failed; rm -f {RECEIVED}")


@contextmanager
def faulty(host, faults):
    """Start the engine with faults, given as Python's text without single quotes."""
    keep = f"cp {ENGINE_CONFIG} {ENGINE_CONFIG}.kept"
    change = (
        f'import json; p = "{ENGINE_CONFIG}"; c = json.load(open(p)); '
        f'c["faults"] = {faults}; json.dump(c, open(p, "w"))'
    )
    host.check_output(f"{keep} && python3 -c '{change}' && systemctl restart ollama.service")
    try:
        yield host
    finally:
        host.check_output(f"mv {ENGINE_CONFIG}.kept {ENGINE_CONFIG}")
        host.check_output("systemctl restart ollama.service")


@pytest.fixture
def on_cpu(quiet):
    """Let the engine fall back to the CPU."""
    with faulty(quiet, '{"cpu_only": ["gemma2:2b"]}') as host:
        yield host


@pytest.fixture
def idle(quiet):
    """Let the engine claim the GPUs, which show nothing of it."""
    with faulty(quiet, '{"idle_gpu": True}') as host:
        yield host


def test_the_timer_runs_at_midnight(llm_02):
    timer = llm_02.service("nightly-smoke.timer")
    assert timer.is_enabled
    assert timer.is_running
    shown = llm_02.check_output(
        "systemctl show -P TimersCalendar -P RandomizedDelayUSec -P Persistent -P FixedRandomDelay "
        "nightly-smoke.timer"
    )
    assert "OnCalendar=*-*-* 00:00:00" in shown
    assert "15min" in shown
    assert shown.splitlines().count("yes") == 2


def test_units_are_valid_and_closed(llm_02):
    said = llm_02.run(
        "systemd-analyze verify /etc/systemd/system/nightly-smoke.timer "
        "/etc/systemd/system/nightly-smoke.service"
    )
    assert "nightly-smoke" not in said.stderr
    # The test itself reads the GPUs.
    for unit, limit in ((UNIT, 2.0), ("nightly-smoke-notify@failure.service", 1.5)):
        report = llm_02.check_output(f"systemd-analyze security --no-pager {unit}")
        assert float(re.search(r"exposure level for \S+: (\S+)", report)[1]) < limit, report


def test_every_suite_and_every_model_is_tested(llm_02, passed):
    found = record(llm_02)
    assert found["ok"], found
    tested = {check["subject"] for check in found["checks"] if check["check"] == "model"}
    assert tested == MODELS
    suites = {check["subject"] for check in found["checks"] if check["check"] == "suite"}
    assert suites == {"smoke.sh", "comprehensive-smoke.sh"}
    assert metric(llm_02, "success") == 1
    assert metric(llm_02, "last_success_timestamp_seconds") == pytest.approx(found["ended"], abs=1)
    for model in MODELS:
        assert metric(llm_02, f'model_gpu_ratio{{engine="ollama",model="{model}"}}') == 1
    shown = [check["cards"] for check in found["checks"] if check["check"] == "model"]
    for cards in shown:
        assert re.search(r"GPU \d: [1-9]\d* % busy, ollama \(pid \d+\) holds ", cards), cards
    log = llm_02.file(LOG).content_string
    assert "comprehensive-smoke.sh | comprehensive-smoke: 5 of 5 tests passed" in log
    assert "end nightly smoke test passed: 8 of 8 checks" in log


def test_it_runs_without_rights(llm_02, passed):
    assert llm_02.file(RECORD).user == "hxmon"
    assert llm_02.file(METRICS).user == "hxmon"
    assert llm_02.file(METRICS).mode == 0o644
    assert llm_02.file(LOG).user == "root"
    assert llm_02.user("hxmon").shell == "/usr/sbin/nologin"


def test_a_model_on_the_cpu_is_told_and_its_recovery_too(on_cpu):
    assert run(on_cpu) == "exit-code"
    assert metric(on_cpu, 'model_success{engine="ollama",model="gemma2:2b"}') == 0
    assert metric(on_cpu, 'model_success{engine="ollama",model="phi3:latest"}') == 1
    assert metric(on_cpu, "checks_failed") == 1
    told = received(on_cpu, 2)
    hook = next(item for item in told if item["path"] == "/Lab-Path-4711")["body"]
    assert (hook["status"], hook["host"]) == ("failed", "llm-02")
    assert "the CPU computes it" in hook["text"]
    [alert] = next(item for item in told if item["path"] == "/api/v2/alerts")["body"]
    assert alert["labels"]["alertname"] == "HxNightlySmokeFailed"
    assert metric(on_cpu, 'notify_success{target="chat"}', NOTIFY_METRICS) == 1
    on_cpu.check_output(f"cp {ENGINE_CONFIG}.kept {ENGINE_CONFIG}")
    on_cpu.check_output("systemctl restart ollama.service")
    assert run(on_cpu) == "success"
    again = received(on_cpu, 4)[2:]
    assert {item["body"]["status"] for item in again if item["path"] == "/Lab-Path-4711"} == {
        "recovered"
    }


def test_an_engine_that_says_gpu_while_the_cards_are_idle(idle):
    assert run(idle) == "exit-code"
    for model in MODELS:
        assert metric(idle, f'model_success{{engine="ollama",model="{model}"}}') == 0
        assert metric(idle, f'model_gpu_ratio{{engine="ollama",model="{model}"}}') == 0
    told = received(idle, 2)
    hook = next(item for item in told if item["path"] == "/Lab-Path-4711")["body"]
    assert "the engine says size_vram" in hook["text"]
    assert "no process of the engine is on a GPU" in hook["text"]


def test_an_engine_that_is_down(quiet):
    quiet.check_output("systemctl stop ollama.service")
    assert run(quiet) == "exit-code"
    assert metric(quiet, "success") == 0
    assert "doesn't answer after" in quiet.file(LOG).content_string
    assert received(quiet, 2)


def test_an_engine_that_comes_back_in_time(quiet):
    quiet.check_output("systemctl stop ollama.service")
    quiet.check_output("systemd-run --on-active=4 systemctl start ollama.service")
    assert run(quiet) == "success", quiet.file(LOG).content_string


def test_a_run_that_is_killed_is_noted(quiet):
    quiet.check_output("systemctl stop ollama.service")
    quiet.check_output(f"systemctl start --no-block {UNIT}")
    for _turn in range(40):
        if quiet.check_output(f"systemctl show -P SubState {UNIT}") == "start":
            break
        time.sleep(0.25)
    quiet.check_output(f"systemctl kill --signal=SIGKILL {UNIT}")
    settle(quiet)
    told = received(quiet, 2)
    assert metric(quiet, "success") == 0
    assert record(quiet)["broken"] == "the service ended with signal, status KILL"
    assert "the service ended with signal" in json.dumps(told)


def test_the_secret_appears_nowhere(quiet):
    quiet.check_output("systemctl start nightly-smoke-notify@test.service")
    assert {item["body"]["status"] for item in received(quiet, 2) if "Lab" in item["path"]} == {
        "test"
    }
    where = (
        f"{LOG} /etc/systemd/system /etc/hx-llm/nightly-smoke-notify.json /var/lib/hx-nightly-smoke"
    )
    assert quiet.run(f"grep -r Lab-Path {where}").rc == 1
    assert "Lab-Path" not in quiet.check_output("journalctl --no-pager -u 'nightly-smoke*'")


def test_a_notifier_that_reaches_nobody_is_seen(quiet):
    quiet.check_output("systemctl stop lab-receiver.service")
    try:
        assert quiet.run("systemctl start nightly-smoke-notify@test.service").rc != 0
        assert metric(quiet, 'notify_success{target="chat"}', NOTIFY_METRICS) == 0
        said = quiet.check_output("journalctl --no-pager -u nightly-smoke-notify@test.service")
        assert "NOT TOLD: connection refused" in said
    finally:
        quiet.check_output("systemctl start lab-receiver.service")


def test_what_would_be_asked_can_be_shown(llm_02):
    shown = llm_02.check_output(
        "python3 -B /opt/hx-infrastructure/lib/nightly_smoke/nightly_smoke.py --list "
        "--config /etc/hx-llm/nightly-smoke.json --state /tmp --textfile /tmp/x.prom"
    )
    assert "suite  /opt/scripts/tests/smoke/ollama/smoke.sh" in shown
    assert shown.count("\nmodel  ollama: ") == len(MODELS)


def test_the_rotation_rule_is_valid(llm_02):
    said = llm_02.run("logrotate --debug /etc/logrotate.d/hx-nightly-smoke")
    assert said.rc == 0
    assert "error" not in said.stderr
    assert "copytruncate" not in llm_02.file("/etc/logrotate.d/hx-nightly-smoke").content_string


def test_a_dry_run_on_the_finished_host_predicts_nothing(playbook):
    ended = playbook("-i", "inventories/lab", "--check", "molecule/nightly_smoke/converge.yml")
    assert ended.returncode == 0, ended.stdout
    assert "changed=0" in ended.stdout


def test_a_secret_that_others_can_read_is_refused(llm_02, playbook):
    llm_02.check_output("chmod 0644 /etc/hx-llm/notify/chat.url")
    try:
        ended = playbook("-i", "inventories/lab", "molecule/nightly_smoke/converge.yml")
    finally:
        llm_02.check_output("chmod 0600 /etc/hx-llm/notify/chat.url")
    assert ended.returncode == 2
    said = " ".join(ended.stdout.split())
    assert "llm-02: /etc/hx-llm/notify/chat.url has mode 0644, wanted 0600" in said
