# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The notifier as systemd starts it, with receivers on loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from contract_http import free_port
from integration_standins import dripping, listening, server_context, silent
from nightly_host import COLLECTION
from nightly_standins import http_server, smtp_server

FILES = Path(__file__).resolve().parents[2] / "roles" / "nightly_smoke" / "files"
CHECK = {"check": "model", "subject": "phi3:latest", "engine": "ollama", "ok": False}
FIGURES = {"seconds": None, "load_seconds": None, "gpu_ratio": None}
FAILED = {**CHECK, **FIGURES, "message": "the answer is empty"}
PASSED = {**CHECK, **FIGURES, "subject": "gemma2:2b", "ok": True, "message": ""}


class Host:
    """Settings and state of one host, and the record of its latest run."""

    def __init__(self, folder):
        self.folder = folder
        self.config = folder / "notify.json"
        self.metrics_path = folder / "notify.prom"
        self.state = folder / "state"
        self.state.mkdir()
        self.ran(FAILED, PASSED)

    def ran(self, *checks):
        record = {"ok": all(check["ok"] for check in checks), "invocation": "i1", "broken": ""}
        (self.state / "last-run.json").write_text(json.dumps({**record, "checks": checks}))

    def secret(self, name, text, mode=0o600):
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def tell(self, *targets, outcome="failure", environment=None, **settings):
        limits = {"attempts": 2, "timeout_seconds": 5, "pause_seconds": 0}
        found = {"host": "llm-02", "log": "/log", "targets": targets, **limits, **settings}
        self.config.write_text(json.dumps(found))
        argv = [sys.executable, "-B", str(FILES / "nightly_notify.py"), "--outcome", outcome]
        argv += ["--config", str(self.config), "--state", str(self.state)]
        argv += ["--textfile", str(self.metrics_path)]
        done = subprocess.run(
            argv,
            env={**os.environ, **COLLECTION, "MONITOR_INVOCATION_ID": "i1", **(environment or {})},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def metric(self, name, target):
        pattern = rf'^hx_infra_nightly_smoke_notify_{name}{{target="{target}"}} (\S+)$'
        found = re.search(pattern, self.metrics_path.read_text(), re.MULTILINE)
        return float(found[1]) if found else None


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def hook(url, **more):
    return {"name": "chat", "kind": "webhook", "url": url, **more}


def mail(port, **more):
    entry = {"name": "mail", "kind": "mail", "host": "127.0.0.1", "port": port}
    return {**entry, "to": ["ops@example.com", "ml@example.com"], **more}


OK = {"/hook": (200, {})}


def test_a_webhook_gets_what_failed(host):
    with http_server(OK) as there:
        status, output = host.tell(hook(f"{there.url}/hook"))
    assert status == 0, output
    [(method, path, body, headers)] = there.requests
    assert (method, path, headers["Content-Type"]) == ("POST", "/hook", "application/json")
    assert (body["status"], body["host"]) == ("failed", "llm-02")
    assert body["summary"] == "llm-02: the nightly smoke test failed, 1 of 2 checks"
    assert "phi3:latest - the answer is empty" in body["text"]
    assert [check["subject"] for check in body["failures"]] == ["phi3:latest"]
    assert host.metric("success", "chat") == 1


def test_a_failure_a_further_one_and_the_recovery(host):
    target = {"name": "alerts", "kind": "alertmanager", "labels": {"team": "ml"}}
    with http_server({"/api/v2/alerts": (200, b"")}) as there:
        target["url"] = f"{there.url}/"
        assert host.tell(target, outcome="success")[0] == 0
        assert there.requests == []  # nothing had failed
        assert host.tell(target)[0] == 0
        assert host.tell(target)[0] == 0
        host.ran(PASSED)
        assert host.tell(target, outcome="success")[0] == 0
        assert host.tell(target, outcome="success")[0] == 0
    first, second, over = [body[0] for _method, _path, body, _headers in there.requests]
    assert first["labels"]["alertname"] == "HxNightlySmokeFailed"
    assert first["labels"]["team"] == "ml"
    assert first["startsAt"] == second["startsAt"] == over["startsAt"]
    assert first["labels"] == over["labels"]
    assert first["endsAt"][:10] > over["endsAt"][:10]
    assert "passed again" in over["annotations"]["summary"]


def test_a_recovery_that_was_not_told_is_told_the_next_night(host):
    with http_server({"/hook": [(200, {}), (404, {}), (200, {})]}) as there:
        target = hook(f"{there.url}/hook")
        assert host.tell(target)[0] == 0
        assert host.tell(target, outcome="success")[0] == 1
        assert host.tell(target, outcome="success")[0] == 0
    assert [body["status"] for _m, _p, body, _h in there.requests][1:] == ["recovered"] * 2


def test_a_test_reaches_everybody_and_changes_nothing(host):
    with http_server(OK) as there, smtp_server() as (port, mails):
        target = hook(f"{there.url}/hook")
        assert host.tell(target, mail(port), outcome="test")[0] == 0
        assert host.tell(target, outcome="success")[0] == 0
    assert [body["status"] for _m, _p, body, _h in there.requests] == ["test"]
    assert "Subject: [test] llm-02" in mails[0]["text"]


def test_every_receiver_is_tried_whatever_happened_to_the_others(host):
    with http_server(OK) as there, smtp_server() as (port, mails):
        down = hook(f"http://127.0.0.1:{free_port()}/x", name="down")
        gone = hook(f"{there.url}/none", name="gone")
        odd = {**mail(port), "name": "odd", "from": "a\nb"}
        targets = [down, gone, odd, hook(f"{there.url}/hook"), mail(port)]
        status, output = host.tell(*targets)
    assert status == 1
    assert "notify down (webhook), failed: NOT TOLD: connection refused" in output
    assert "notify gone (webhook), failed: NOT TOLD: answered status 404" in output
    assert "notify odd (mail), failed: NOT TOLD: ValueError" in output
    assert "notify chat (webhook), failed: told" in output
    assert [host.metric("success", name) for name in ("down", "gone", "odd", "chat", "mail")] == [
        0,
        0,
        0,
        1,
        1,
    ]
    assert host.metric("last_success_timestamp_seconds", "down") is None
    assert host.metric("last_attempt_timestamp_seconds", "down") > 0
    assert len(mails) == 1


@pytest.mark.parametrize(
    ("answers", "status", "tries"),
    [
        ([(500, {}), (200, {})], 0, 2),
        ([(503, {}), (503, {}), (200, {})], 1, 2),
        ([(429, {}), (204, b"")], 0, 2),
        ([(400, {}), (200, {})], 1, 1),
        ([(302, {}), (200, {})], 1, 1),
    ],
)
def test_what_may_pass_is_tried_again(host, answers, status, tries):
    with http_server({"/hook": answers}) as there:
        assert host.tell(hook(f"{there.url}/hook"))[0] == status
    assert len(there.requests) == tries


@pytest.mark.parametrize("serve", [silent, dripping])
@pytest.mark.parametrize("kind", ["webhook", "mail"])
def test_a_receiver_that_hangs_holds_nobody(host, serve, kind):
    with listening(serve) as port:
        target = hook(f"http://127.0.0.1:{port}/") if kind == "webhook" else mail(port)
        begin = time.monotonic()
        status, output = host.tell(target, timeout_seconds=0.5)
    assert status == 1
    assert "NOT TOLD" in output
    assert time.monotonic() - begin < 60


def test_secrets_come_from_files_and_appear_nowhere(host):
    url = host.secret("url", "")
    token = host.secret("token", "Token-Secret\n")
    with http_server({"/Path-Secret": (500, b"no Token-Secret for /Path-Secret")}) as there:
        host.secret("url", f"{there.url}/Path-Secret")
        status, output = host.tell(hook("", url_file=url, token_file=token))
    assert status == 1
    assert there.requests[0][3]["Authorization"] == "Bearer Token-Secret"
    kept = host.config.read_text() + host.metrics_path.read_text()
    kept += (host.state / "notify.json").read_text()
    assert "Secret" not in output + kept
    assert "answered status 500" in output


def test_secrets_as_systemd_hands_them_over(host):
    loaded = host.folder / "credentials"
    loaded.mkdir()
    (loaded / "notify-chat-password").write_text("Pass-Secret")
    environment = {"CREDENTIALS_DIRECTORY": str(loaded)}
    with http_server(OK) as there:
        login = {"user": "hx", "password_file": "/root/out-of-reach"}
        target = hook(f"{there.url}/hook", **login)
        status, output = host.tell(target, environment=environment)
    assert status == 0, output
    assert there.requests[0][3]["Authorization"] == "Basic aHg6UGFzcy1TZWNyZXQ="


def test_a_secret_that_others_can_read_is_refused(host):
    token = host.secret("token", "Token-Secret", 0o640)
    with http_server(OK) as there:
        status, output = host.tell(hook(f"{there.url}/hook", token_file=token))
    assert status == 1
    assert "has mode 0640, wanted 0600 or less" in output
    assert there.requests == []
    assert host.metric("success", "chat") == 0


def test_a_mail_by_smtp(host):
    with smtp_server() as (port, mails):
        status, output = host.tell(mail(port, **{"from": "hx@example.com"}))
    assert status == 0, output
    [taken] = mails
    assert taken["from"].upper().startswith("MAIL FROM:<HX@EXAMPLE.COM>")
    assert [line.partition("<")[2] for line in taken["to"]] == [
        "ops@example.com>",
        "ml@example.com>",
    ]
    assert "Subject: [failed] llm-02: the nightly smoke test failed, 1 of 2 checks" in taken["text"]


def test_a_mail_by_smtp_with_tls_and_a_login(host, tmp_path):
    (tmp_path / "tls").mkdir()
    context, certificate = server_context(tmp_path / "tls")
    password = host.secret("password", "Mail-Secret")
    more = {"tls": "tls", "user": "hx", "password_file": password, "host": "localhost"}
    with smtp_server(context) as (port, mails):
        status, output = host.tell(mail(port, **more, ca_path=certificate))
        assert status == 0, output
        assert mails[0]["login"] == ["hx", "Mail-Secret"]
        status, output = host.tell(mail(port, **more))
    assert status == 1
    assert "the server's certificate is not accepted" in output
    assert "Mail-Secret" not in output


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"AUTH": "535 5.7.8 no"}, "answered 535 5.7.8 no"),
        ({"MAIL": "550 not you"}, "answered 550 not you"),
        ({"DATA": "451 later"}, "answered 451 later"),
        ({"greeting": "554 go away"}, "answered 554 go away"),
        ({"refused": ("ml@",)}, "the server refused ml@example.com, and took the others"),
        ({"refused": ("ml@", "ops@")}, "the server refused ml@example.com, ops@example.com"),
    ],
)
def test_a_mail_that_is_not_taken(host, told, said):
    password = host.secret("password", "Mail-Secret")
    with smtp_server(**told) as (port, mails):
        target = mail(port, user="hx", password_file=password)
        status, output = host.tell(target)
    assert status == 1
    assert said in output
    assert len(mails) == (1 if "the others" in said else 0)


def test_starttls_that_the_server_does_not_offer(host):
    with smtp_server() as (port, mails):
        status, output = host.tell(mail(port, tls="starttls"))
    assert status == 1
    assert "STARTTLS extension not supported" in output
    assert mails == []


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("cat >{folder}/mail; echo $@ >{folder}/argv", 0, "told"),
        ("echo no queue; exit 75", 1, "ended with status 75: no queue"),
        ("sleep 300", 1, "was killed after 0.5 s"),
    ],
)
def test_a_mail_by_the_hosts_own_program(host, text, status, said):
    program = host.folder / "sendmail"
    program.write_text(f"#!/bin/sh\n{text.format(folder=host.folder)}\n")
    program.chmod(0o755)
    target = mail(0, via="sendmail", sendmail=str(program))
    found, output = host.tell(target, timeout_seconds=0.5 if "sleep" in text else 20)
    assert found == status
    assert said in output
    if status == 0:
        assert (host.folder / "argv").read_text() == "-i -t\n"
        assert "To: ops@example.com, ml@example.com" in (host.folder / "mail").read_text()


def test_a_mail_program_that_is_not_there(host):
    status, output = host.tell(mail(0, via="sendmail", sendmail="/none/sendmail"))
    assert status == 1
    assert "/none/sendmail can't be run: No such file" in output


def test_a_service_that_failed_before_it_could_check_is_told(host):
    with http_server(OK) as there:
        target = hook(f"{there.url}/hook")
        assert host.tell(target, environment={"MONITOR_INVOCATION_ID": "i2"})[0] == 0
    assert "failed before it could check anything" in there.requests[0][2]["summary"]


def test_wrong_settings_and_results_that_cannot_be_kept(host):
    status, output = host.tell({"name": "chat", "kind": "pager"})
    assert (status, "targets[0].kind is 'pager'" in output) == (2, True)
    host.metrics_path = host.folder / "none" / "x.prom"
    with http_server(OK) as there:
        status, output = host.tell(hook(f"{there.url}/hook"))
    assert status == 2
    assert "x.prom could not be written" in output
    assert len(there.requests) == 1
