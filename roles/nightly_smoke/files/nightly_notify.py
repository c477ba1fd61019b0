# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells people that the nightly smoke test failed, and once more when it has passed again.

systemd starts it after a run. Every receiver is tried, whatever happened to the others. Exit
status: 0 all were told, 1 one was not, 2 wrong settings or a result that could not be written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nightly_files import (
    FileError,
    load_settings,
    read_json,
    read_secret,
    replace_file,
    say,
    series,
)
from nightly_report import line_of, load_record
from nightly_session import NAME, SettingsError
from nightly_sinks import KINDS, TLS, Message, SinkError, Target, deliver

TOLD, NOT_TOLD, UNUSABLE = 0, 1, 2
PREFIX = "hx_infra_nightly_smoke_notify_"
STATE = "notify.json"
SECRETS = ("url", "token", "password")
STATUSES = {"failure": "failed", "success": "recovered", "test": "test"}


@dataclass(frozen=True)
class Settings:
    """Whom to tell, and how hard to try.

    ``attempts`` tries of ``timeout_s`` seconds, ``pause_s`` seconds apart, for each receiver.
    """

    host: str
    unit: str
    log: str
    targets: tuple[Mapping[str, Any], ...]
    attempts: int = 3
    timeout_s: float = 10.0
    pause_s: float = 5.0
    expires_s: float = 93600.0


def settings_from(found: Mapping[str, Any]) -> Settings:
    """Return the settings of a settings file.

    Raises:
        SettingsError: they can't be used.
    """
    targets = list(found.get("targets") or [])
    for number, target in enumerate(targets):
        _check_target(target, f"targets[{number}]")
    names = [target["name"] for target in targets]
    if len(set(names)) != len(names):
        raise SettingsError(f"targets are named {', '.join(names)}, wanted each name once")
    numbers = {}
    for name, default, least in (
        ("attempts", 3, 1),
        ("timeout_seconds", 10.0, 0.1),
        ("pause_seconds", 5.0, 0),
        ("expires_seconds", 93600.0, 1),
    ):
        value = found.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
            raise SettingsError(f"{name} is {value!r}, wanted a number of at least {least:g}")
        numbers[name] = value
    return Settings(
        host=str(found.get("host") or os.uname().nodename),
        unit=str(found.get("unit") or "nightly-smoke.service"),
        log=str(found.get("log") or ""),
        targets=tuple(targets),
        attempts=int(numbers["attempts"]),
        timeout_s=float(numbers["timeout_seconds"]),
        pause_s=float(numbers["pause_seconds"]),
        expires_s=float(numbers["expires_seconds"]),
    )


def _check_target(target: Any, where: str) -> None:
    if not isinstance(target, dict) or not NAME.fullmatch(str(target.get("name") or "")):
        raise SettingsError(f"{where} has no name of letters, digits, '.', '_' and '-'")
    kind = target.get("kind")
    if kind not in KINDS:
        raise SettingsError(f"{where}.kind is {kind!r}, wanted {', '.join(KINDS)}")
    if kind == "mail":
        if not target.get("to"):
            raise SettingsError(f"{where}.to is empty, wanted the addresses of the receivers")
        if (target.get("tls") or "none") not in TLS:
            raise SettingsError(f"{where}.tls is {target['tls']!r}, wanted {', '.join(TLS)}")
        if target.get("user") and not _guarded(target):
            raise SettingsError(
                f"{where}.tls is none, wanted starttls or tls: a password must not go in clear text"
            )
    elif not target.get("url") and not target.get("url_file"):
        raise SettingsError(f"{where} has neither url nor url_file, wanted one of them")
    elif "@" in str(target.get("url") or "").partition("://")[2].partition("/")[0]:
        raise SettingsError(f"{where}.url holds a login, wanted user and password_file")


def _guarded(target: Mapping[str, Any]) -> bool:
    local = target.get("host") in (None, "", "localhost", "127.0.0.1", "::1")
    return local or (target.get("tls") or "none") != "none"


def message_of(
    outcome: str, record: Mapping[str, Any], settings: Settings, now: float, invocation: str
) -> Message:
    """Return what is to be told about a run.

    Args:
        outcome: ``failure``, ``success`` or ``test``.
        record: what the run left behind.
        settings: whom it is about.
        now: seconds since 1970.
        invocation: systemd's number of the start that has ended; empty when it isn't known.
    """
    ours = bool(record) and (not invocation or record.get("invocation") == invocation)
    if outcome == "failure" and record.get("ok"):
        ours = False  # of a run before; older versions of systemd don't tell the number
    checks = list(record.get("checks") or []) if ours else []
    failures = tuple(check for check in checks if not check.get("ok"))
    lines = [line_of(check) for check in failures]
    if outcome == "test":
        failures, lines = (), ["Nothing is wrong: somebody tries whether this arrives."]
        summary = f"{settings.host}: a test of the nightly smoke test's notification"
    elif outcome == "success":
        summary = f"{settings.host}: the nightly smoke test passed again, {len(checks)} checks"
    elif not ours:
        summary = f"{settings.host}: the nightly smoke test failed before it could check anything"
        lines = [f"Look at: journalctl -u {settings.unit}"]
    else:
        summary = (
            f"{settings.host}: the nightly smoke test failed,"
            f" {len(failures)} of {len(checks)} checks"
        )
        lines += [str(record["broken"])] if record.get("broken") else []
    if settings.log and outcome == "failure":
        lines.append(f"Log: {settings.log}")
    return Message(
        status=STATUSES[outcome],
        host=settings.host,
        unit=settings.unit,
        summary=summary,
        lines=tuple(lines),
        failures=failures,
        since=now,
        now=now,
        expires_s=settings.expires_s,
        log=settings.log,
    )


def tell(
    entry: Mapping[str, Any],
    message: Message,
    settings: Settings,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Tell one receiver; return why it could not be told, empty when it was; without secrets."""
    secrets: dict[str, str] = {}
    try:
        for name in SECRETS:
            path = entry.get(f"{name}_file")
            if path:
                secrets[name] = read_secret(str(path), f"notify-{entry['name']}-{name}")
    except FileError as error:
        return str(error)
    target = Target(str(entry["name"]), str(entry["kind"]), entry, secrets)
    problem = ""
    for attempt in range(settings.attempts):
        if attempt:
            sleep(settings.pause_s)
        try:
            deliver(target, message, settings.timeout_s)
            return ""
        except SinkError as error:
            problem = str(error)
            if not error.again:
                break
        except Exception as error:  # one receiver's surprise must not keep the others from knowing
            problem = f"{type(error).__name__}: {error}"
            break
    return _without(problem, secrets)


def _without(text: str, secrets: Mapping[str, str]) -> str:
    """Return a text without secrets, nor the path of a secret address: a server may repeat it."""
    path = secrets.get("url", "").partition("://")[2].partition("/")[2]
    for secret in (*secrets.values(), path):
        if secret:
            text = text.replace(secret, "***")
    return text


def notify(settings: Settings, options: argparse.Namespace) -> int:
    """Tell all who have to be told, and keep who was."""
    kept: dict[str, Any] = read_json(options.state / STATE).get("targets") or {}
    now = time.time()
    invocation = os.environ.get("MONITOR_INVOCATION_ID", "")
    record = load_record(options.state)
    message = message_of(options.outcome, record, settings, now, invocation)
    state = {entry["name"]: dict(kept.get(entry["name"]) or {}) for entry in settings.targets}
    failed = False
    for entry in settings.targets:
        own = state[entry["name"]]
        if options.outcome == "success" and not own.get("since"):
            continue  # it was never told of a failure
        since = float(own.get("since") or now)
        problem = tell(entry, replace(message, since=since), settings)
        own.update(ok=not problem, last_attempt=now)
        if not problem:
            own["last_success"] = now
            if options.outcome == "failure":
                own["since"] = since
            elif options.outcome == "success":
                own["since"] = None
        failed = failed or bool(problem)
        told = f"NOT TOLD: {problem}" if problem else "told"
        say(f"notify {entry['name']} ({entry['kind']}), {message.status}: {told}")
    replace_file(options.state / STATE, json.dumps({"targets": state}, indent=1) + "\n", mode=0o640)
    replace_file(options.textfile, metrics_of(state))
    return NOT_TOLD if failed else TOLD


def metrics_of(state: Mapping[str, Mapping[str, Any]]) -> str:
    """Return who was told, and who was not, as metrics."""
    text = ""
    for name, about, field in (
        ("success", "Whether the receiver took the last notification.", "ok"),
        ("last_attempt_timestamp_seconds", "When it was last tried.", "last_attempt"),
        ("last_success_timestamp_seconds", "When it last took one.", "last_success"),
    ):
        samples = [
            ({"target": target}, int(own[field]) if field == "ok" else float(own[field]))
            for target, own in sorted(state.items())
            if own.get(field) is not None
        ]
        text += series(PREFIX + name, about, "gauge", samples)
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and tell."""
    parser = argparse.ArgumentParser(description="Tell how the nightly smoke test ended.")
    parser.add_argument("--config", type=Path, required=True, help="settings file, JSON")
    parser.add_argument("--state", type=Path, required=True, help="directory of the run's record")
    parser.add_argument("--textfile", type=Path, required=True, help="Prometheus textfile")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="read the settings, and end")
    what.add_argument("--outcome", choices=sorted(STATUSES), help="how the run ended")
    options = parser.parse_args(arguments)
    try:
        settings = settings_from(load_settings(options.config))
        return TOLD if options.check else notify(settings, options)
    except (FileError, SettingsError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return UNUSABLE


if __name__ == "__main__":
    sys.exit(main())
