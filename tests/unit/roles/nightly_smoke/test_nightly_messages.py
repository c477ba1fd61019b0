# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import smtplib

import nightly_notify as notify
import nightly_sinks as sinks
import pytest
from nightly_session import SettingsError

HOOK = {"name": "chat", "kind": "webhook", "url": "http://chat"}
MAIL = {"name": "mail", "kind": "mail", "to": ["ops@example.com"]}
CHECKS = [
    {
        "check": "model",
        "subject": "phi3:latest",
        "engine": "ollama",
        "ok": False,
        "seconds": None,
        "load_seconds": None,
        "gpu_ratio": None,
        "message": "the answer is empty",
    },
    {
        "check": "suite",
        "subject": "smoke.sh",
        "engine": "",
        "ok": True,
        "seconds": 1.0,
        "load_seconds": None,
        "gpu_ratio": None,
        "message": "",
    },
]
RECORD = {"ok": False, "invocation": "i1", "checks": CHECKS, "broken": ""}


def settings(*targets, **more):
    found = {"host": "llm-02", "log": "/log", "targets": list(targets), **more}
    return notify.settings_from(found)


def message(outcome="failure", record=None, invocation="i1"):
    found = RECORD if record is None else record
    return notify.message_of(outcome, found, settings(), 1000.0, invocation)


def test_a_failure_is_told_with_its_checks():
    found = message()
    assert found.status == "failed"
    assert found.summary == "llm-02: the nightly smoke test failed, 1 of 2 checks"
    assert "ollama: phi3:latest - the answer is empty" in found.lines[0]
    assert found.lines[-1] == "Log: /log"
    assert [check["subject"] for check in found.failures] == ["phi3:latest"]


@pytest.mark.parametrize(
    ("record", "invocation"),
    [(RECORD, "i2"), ({}, "i1"), ({**RECORD, "ok": True}, "i1"), ({**RECORD, "ok": True}, "")],
)
def test_the_record_of_another_run_is_not_told(record, invocation):
    found = message(record=record, invocation=invocation)
    assert "failed before it could check anything" in found.summary
    assert "journalctl -u nightly-smoke.service" in found.text
    assert found.failures == ()


def test_a_run_that_was_ended_says_why():
    found = message(record={**RECORD, "broken": "signal SIGTERM"})
    assert "signal SIGTERM" in found.lines


def test_an_older_systemd_does_not_tell_the_number():
    assert "1 of 2 checks" in message(invocation="").summary


def test_that_it_passed_again():
    passed = {**RECORD, "ok": True, "checks": CHECKS[1:]}
    found = message("success", passed)
    assert (found.status, found.failures) == ("recovered", ())
    assert found.summary == "llm-02: the nightly smoke test passed again, 1 checks"


def test_an_alert_stands_until_the_next_run_and_ends_when_it_passes():
    [alert] = sinks.alerts(message(), {"team": "ml", "severity": "critical"})
    assert alert["labels"] == {
        "alertname": "HxNightlySmokeFailed",
        "instance": "llm-02",
        "severity": "critical",
        "team": "ml",
    }
    assert alert["startsAt"] == "1970-01-01T00:16:40Z"
    assert alert["endsAt"] == "1970-01-02T02:16:40Z"
    [over] = sinks.alerts(message("success"), {})
    assert over["labels"]["alertname"] == alert["labels"]["alertname"]
    assert over["endsAt"] == "1970-01-01T00:16:40Z"
    [test] = sinks.alerts(message("test"), {})
    assert test["labels"]["alertname"] != alert["labels"]["alertname"]


def test_a_mail():
    target = sinks.Target("mail", "mail", MAIL)
    made = sinks.mail(target, message())
    assert made["Subject"] == "[failed] llm-02: the nightly smoke test failed, 1 of 2 checks"
    assert made["To"] == "ops@example.com"
    assert made["From"] == "hx-nightly-smoke@llm-02"
    assert made["Auto-Submitted"] == "auto-generated"
    assert "the answer is empty" in made.get_content()


@pytest.mark.parametrize(
    ("error", "again", "said"),
    [
        (smtplib.SMTPAuthenticationError(535, b"no"), False, "answered 535 no"),
        (smtplib.SMTPDataError(451, b"later"), True, "answered 451 later"),
        (smtplib.SMTPServerDisconnected("gone"), True, "SMTPServerDisconnected: gone"),
        (smtplib.SMTPRecipientsRefused({"a@b": (550, b"x")}), False, "refused a@b"),
        (smtplib.SMTPRecipientsRefused({"a@b": (450, b"greylisted")}), True, "refused a@b"),
        (smtplib.SMTPNotSupportedError("STARTTLS"), False, "SMTPNotSupportedError: STARTTLS"),
    ],
)
def test_what_another_try_may_help(error, again, said):
    found = sinks._mail_error(error)
    assert found.again is again
    assert said in str(found)


class Tries:
    def __init__(self, monkeypatch, *outcomes):
        self.outcomes = list(outcomes)
        self.count = 0
        self.slept = []
        monkeypatch.setattr(notify, "deliver", self.deliver)

    def deliver(self, target, _message, _timeout_s):
        self.count += 1
        self.target = target
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome


@pytest.mark.parametrize(
    ("outcomes", "count", "problem"),
    [
        ([None], 1, ""),
        ([sinks.SinkError("away", True), None], 2, ""),
        ([sinks.SinkError("away", True)] * 3, 3, "away"),
        ([sinks.SinkError("no", False)], 1, "no"),
        ([ValueError("odd")], 1, "ValueError: odd"),
    ],
)
def test_tries_are_limited(monkeypatch, outcomes, count, problem):
    tries = Tries(monkeypatch, *outcomes)
    told = notify.tell(HOOK, message(), settings(HOOK, pause_seconds=7), tries.slept.append)
    assert told == problem
    assert (tries.count, tries.slept) == (count, [7.0] * (count - 1))


def test_secrets_are_read_and_never_told(monkeypatch, tmp_path):
    for name, text in (("url", "http://chat/services/Path-Secret"), ("token", "Token-Secret")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    entry = {**HOOK, "url_file": str(tmp_path / "url"), "token_file": str(tmp_path / "token")}
    said = "no /services/Path-Secret for Token-Secret at http://chat/services/Path-Secret"
    tries = Tries(monkeypatch, sinks.SinkError(said, False))
    told = notify.tell(entry, message(), settings(entry))
    assert tries.target.secrets == {
        "url": "http://chat/services/Path-Secret",
        "token": "Token-Secret",
    }
    assert "Secret" not in told
    assert "***" in told


def test_a_secret_that_others_can_read_is_not_used(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("x")
    (tmp_path / "token").chmod(0o644)
    tries = Tries(monkeypatch)
    told = notify.tell({**HOOK, "token_file": str(tmp_path / "token")}, message(), settings(HOOK))
    assert "has mode 0644, wanted 0600" in told
    assert tries.count == 0


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"kind": "webhook", "url": "http://x"}, "targets[0] has no name"),
        ({**HOOK, "kind": "pager"}, "targets[0].kind is 'pager', wanted webhook, mail, alertm"),
        ({**HOOK, "url": ""}, "neither url nor url_file"),
        ({**HOOK, "url": "https://u:p@chat/x"}, "holds a login, wanted user and password_file"),
        ({**MAIL, "to": []}, "targets[0].to is empty"),
        ({**MAIL, "tls": "ssl"}, "targets[0].tls is 'ssl', wanted none, starttls, tls"),
        ({**MAIL, "user": "u", "host": "mx"}, "a password must not go in clear text"),
        ("chat", "targets[0] has no name"),
    ],
)
def test_settings_that_cannot_be_used(target, said):
    with pytest.raises(SettingsError) as refused:
        settings(target)
    assert said in str(refused.value)


def test_settings_that_can():
    settings(
        {**HOOK, "url": "https://chat/x?user=a@b"},
        {**MAIL, "user": "u", "host": "mx", "tls": "tls"},
        {**MAIL, "name": "local", "user": "u"},
    )
    with pytest.raises(SettingsError, match="wanted each name once"):
        settings(HOOK, HOOK)
    with pytest.raises(SettingsError, match="attempts is 0"):
        settings(HOOK, attempts=0)
