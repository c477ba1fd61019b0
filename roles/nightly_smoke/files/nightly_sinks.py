# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a notification goes: a webhook, a mail, Alertmanager. One try each, under a deadline."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import smtplib
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from time import gmtime, strftime
from typing import Any

from nightly_http import SNIPPET, ExchangeError, exchange, within

KINDS = ("webhook", "mail", "alertmanager")
TLS = ("none", "starttls", "tls")
PORTS = {"none": 25, "starttls": 587, "tls": 465}
TOO_MANY_REQUESTS = 429
# What may be over at the next try. A refusal by a server that is in order isn't among it.
PASSING = frozenset({"refused", "closed", "timeout", "name", "network"})


class SinkError(Exception):
    """A notification was not delivered; ``again`` says whether another try may help."""

    def __init__(self, message: str, again: bool) -> None:
        super().__init__(message)
        self.again = again


@dataclass(frozen=True)
class Message:
    """What is told.

    Attributes:
        status: ``failed``, ``recovered`` or ``test``.
        host, unit: whom it is about.
        summary: one sentence.
        lines: the details, one a line.
        failures: the failed checks as the record of the run has them.
        since: when it began to fail, seconds since 1970.
        now: the time of the message.
        expires_s: how long it stands when nobody says otherwise.
        log: where everything is written.
    """

    status: str
    host: str
    unit: str
    summary: str
    lines: tuple[str, ...] = ()
    failures: tuple[Mapping[str, Any], ...] = ()
    since: float = 0.0
    now: float = 0.0
    expires_s: float = 93600.0
    log: str = ""

    @property
    def text(self) -> str:
        """Return everything as text."""
        return "\n".join([self.summary, *self.lines])


@dataclass(frozen=True)
class Target:
    """One receiver of the settings, with its secrets read.

    Attributes:
        name: its name in log and metrics.
        kind: one of ``KINDS``.
        options: the other fields of the settings.
        secrets: what was read from its files, by ``url``, ``token`` and ``password``.
    """

    name: str
    kind: str
    options: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict)

    def option(self, name: str, default: Any = "") -> Any:
        """Return a field of the settings; a missing or empty one is the default."""
        return self.options.get(name) or default


def deliver(target: Target, message: Message, timeout_s: float) -> None:
    """Deliver a message to one receiver.

    Raises:
        SinkError: it wasn't taken.
    """
    try:
        if target.kind == "webhook":
            _post(target, _url(target), webhook_body(message), timeout_s)
        elif target.kind == "alertmanager":
            url = f"{_url(target).rstrip('/')}/api/v2/alerts"
            _post(target, url, alerts(message, target.option("labels", {})), timeout_s)
        elif target.option("via", "smtp") == "sendmail":
            _sendmail(target, mail(target, message), timeout_s)
        else:
            _smtp(target, mail(target, message), timeout_s)
    except ExchangeError as trouble:
        again = trouble.kind in PASSING or trouble.status in (TOO_MANY_REQUESTS, *range(500, 600))
        raise SinkError(str(trouble), again) from trouble


def _url(target: Target) -> str:
    return target.secrets.get("url") or str(target.option("url"))


def webhook_body(message: Message) -> dict[str, Any]:
    """Return the JSON of a webhook; chat programs show its ``text``."""
    return {
        "status": message.status,
        "host": message.host,
        "unit": message.unit,
        "summary": message.summary,
        "text": message.text,
        "failures": [dict(check) for check in message.failures],
        "since": timestamp(message.since),
        "time": timestamp(message.now),
        "log": message.log,
    }


def alerts(message: Message, labels: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the JSON of Alertmanager's API v2: one alert, that ends at once when all is well.

    An alert without an end would be taken for resolved after some minutes, and the test runs once
    a night, so that each failure carries an end beyond the next run.
    """
    firing = message.status == "failed"
    name = "HxNightlySmokeTest" if message.status == "test" else "HxNightlySmokeFailed"
    ends = message.now + (message.expires_s if firing else 0)
    if message.status == "test":
        ends = message.now + 300
    return [
        {
            "labels": {
                "alertname": name,
                "instance": message.host,
                "severity": "warning",
                **{str(key): str(value) for key, value in labels.items()},
            },
            "annotations": {"summary": message.summary, "description": message.text},
            "startsAt": timestamp(message.since),
            "endsAt": timestamp(ends),
        }
    ]


def timestamp(seconds: float) -> str:
    """Return a time as RFC 3339 has it."""
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(seconds))


def _post(target: Target, url: str, body: Any, timeout_s: float) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "hx-nightly-smoke"}
    if target.secrets.get("token"):
        headers["Authorization"] = f"Bearer {target.secrets['token']}"
    elif target.option("user"):
        login = f"{target.option('user')}:{target.secrets.get('password', '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    reply = exchange(
        "POST",
        url,
        json.dumps(body).encode(),
        headers,
        timeout_s=timeout_s,
        ca_path=str(target.option("ca_path")),
    )
    if not 200 <= reply.status < 300:
        said = f": {reply.snippet}" if reply.snippet else ""
        raise ExchangeError("status", f"answered status {reply.status}{said}", reply.status)


def mail(target: Target, message: Message) -> EmailMessage:
    """Return a message as a mail."""
    made = EmailMessage()
    made["From"] = str(target.option("from", f"hx-nightly-smoke@{message.host}"))
    made["To"] = ", ".join(str(address) for address in target.option("to", []))
    made["Subject"] = f"[{message.status}] {' '.join(message.summary.split())}"
    made["Date"] = formatdate(message.now, localtime=False)
    made["Message-ID"] = make_msgid(domain=message.host)
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(f"{message.text}\n")
    return made


def _smtp(target: Target, made: EmailMessage, timeout_s: float) -> None:
    tls = str(target.option("tls", "none"))
    host, port = str(target.option("host", "localhost")), int(target.option("port", PORTS[tls]))
    box: list[smtplib.SMTP] = []

    def work() -> dict[str, Any]:
        context = None
        if tls != "none":
            context = ssl.create_default_context(cafile=str(target.option("ca_path")) or None)
        if tls == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=timeout_s, context=context)
        else:
            client = smtplib.SMTP(host, port, timeout=timeout_s)
        box.append(client)
        with client:
            if tls == "starttls":
                client.starttls(context=context)
            if target.option("user"):
                client.login(str(target.option("user")), target.secrets.get("password", ""))
            return dict(client.send_message(made))

    def guarded() -> dict[str, Any] | SinkError:
        try:
            return work()
        except smtplib.SMTPException as error:  # an OSError too, of which the rest is the network's
            return _mail_error(error)

    def cut() -> None:
        with contextlib.suppress(IndexError, OSError, AttributeError):
            box[0].close()

    found = within(timeout_s, guarded, cut)
    if isinstance(found, SinkError):
        raise found
    if found:
        raise SinkError(
            f"the server refused {', '.join(sorted(found))}, and took the others", False
        )


def _mail_error(error: smtplib.SMTPException) -> SinkError:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        # Of the answers, those of four hundred are for the moment.
        return SinkError(f"answered {error.smtp_code} {text[:SNIPPET]}", error.smtp_code < 500)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _said in error.recipients.values()]
        refused = ", ".join(sorted(error.recipients))
        return SinkError(f"the server refused {refused}", all(code < 500 for code in codes))
    passing = isinstance(error, smtplib.SMTPServerDisconnected)
    return SinkError(f"{type(error).__name__}: {str(error)[:SNIPPET]}", passing)


def _sendmail(target: Target, made: EmailMessage, timeout_s: float) -> None:
    """Hand a mail to the host's own mail program, which reads the receivers from it."""
    path = str(target.option("sendmail", "/usr/sbin/sendmail"))
    with tempfile.TemporaryFile() as body, tempfile.TemporaryFile() as said:
        body.write(made.as_bytes())
        body.seek(0)
        try:
            child = subprocess.Popen(
                [path, "-i", "-t"],
                stdin=body,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise SinkError(f"{path} can't be run: {error.strerror}", False) from error
        try:
            status = child.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise SinkError(f"{path} was killed after {timeout_s:g} s", True) from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        said.seek(0)
        text = " ".join(said.read(4096).decode("utf-8", "replace").split())[:SNIPPET]
    if status != 0:
        # sysexits(3): 75 is a failure for the moment.
        raise SinkError(f"{path} ended with status {status}: {text}", status == os.EX_TEMPFAIL)
