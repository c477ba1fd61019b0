# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nightly smoke test: the operators' suites, then one question to each model.

Everything is asked, whatever failed before, and everything has a deadline. Exit status: 0 every
check passed, 1 a check failed, 2 wrong settings or a result that could not be written, 3 another
run is going on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from nightly_engines import Outcome, check_engine, check_model, models_of
from nightly_files import OWNER_AND_GROUP, FileError, load_settings, only_one, read_secret, say
from nightly_gpu import LEAST_S, Cards, Watching
from nightly_http import ExchangeError
from nightly_report import line_of, load_record, record_of, save
from nightly_session import ASKED, Engine, Limits, Session, SettingsError, engine_from

PASSED, FAILED, UNUSABLE, OTHER_RUN = 0, 1, 2, 3
OUTPUT_BYTES = 64 * 1024
KILL_GRACE_S = 5.0


class EndedError(Exception):
    """Somebody has told the run to end."""


@dataclass(frozen=True)
class Settings:
    """What a run does."""

    host: str
    engines: tuple[Engine, ...]
    suites: tuple[str, ...]
    limits: Limits
    suite_s: float
    budget_s: float
    watching: Watching | None = None


def settings_from(found: dict[str, Any]) -> Settings:
    """Return the settings of a settings file.

    Raises:
        SettingsError: they can't be used.
    """
    engines = [
        engine_from(entry, f"engines[{number}]")
        for number, entry in enumerate(found.get("engines") or [])
    ]
    names = [engine.name for engine in engines]
    if len(set(names)) != len(names):
        raise SettingsError(f"engines are named {', '.join(names)}, wanted each name once")
    suites = list(dict.fromkeys(str(path) for path in found.get("suites") or []))
    if not engines and not suites:
        raise SettingsError("there are no engines and no suites, wanted at least one to test")
    limits = Limits()
    return Settings(
        host=str(found.get("host") or os.uname().nodename),
        engines=tuple(engines),
        suites=tuple(suites),
        limits=Limits(
            call_s=_seconds(found, "call_seconds", limits.call_s),
            load_s=_seconds(found, "load_seconds", limits.load_s),
            wait_s=_seconds(found, "wait_seconds", limits.wait_s, least=0),
            prompt=str(found.get("prompt") or limits.prompt),
            max_tokens=int(_seconds(found, "max_tokens", limits.max_tokens, least=1)),
        ),
        suite_s=_seconds(found, "suite_seconds", 120.0),
        budget_s=_seconds(found, "budget_seconds", 3600.0),
        watching=Watching(
            str(found["gpu_python"]),
            found.get("gpus_declared") is True,
            _seconds(found, "gpu_seconds", 10.0, least=LEAST_S),
        )
        if found.get("gpu_python")
        else None,
    )


def _seconds(found: dict[str, Any], name: str, default: float, least: float = 0.1) -> float:
    value = found.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
        raise SettingsError(f"{name} is {value!r}, wanted a number of at least {least:g}")
    return float(value)


def sessions_of(settings: Settings, end: float) -> Iterator[tuple[Engine, Session | Outcome]]:
    """Yield each engine with its session, or with what keeps it from having one."""
    for engine in settings.engines:
        key = ""
        if engine.key_file:
            try:
                key = read_secret(engine.key_file, f"engine-{engine.name}", OWNER_AND_GROUP)
            except FileError as error:
                failed = Outcome("engine", engine.name, engine.name).fail(f"its key: {error}")
                yield engine, failed
                continue
        yield engine, Session(engine, key, settings.limits, end)


def checks(settings: Settings) -> Iterator[Outcome]:
    """Check everything: the engines, the suites, then each model; yield how each check ended."""
    end = time.monotonic() + settings.budget_s
    sessions = []
    for _engine, found in sessions_of(settings, end):
        if isinstance(found, Outcome):
            yield found
        else:
            sessions.append(found)
            yield check_engine(found)
    for path, name in suite_names(settings.suites).items():
        yield check_suite(path, name, settings, end, sessions)
    cards = Cards(settings.watching) if settings.watching else None
    for session in sessions:
        try:
            models = models_of(session)
        except ExchangeError as trouble:
            name = session.engine.name
            yield Outcome("engine", f"{name} models", name).fail(f"not known: {trouble}")
            continue
        for model in models:
            yield check_model(session, model, cards)


def suite_names(paths: Sequence[str]) -> dict[str, str]:
    """Return a name for each suite: that of its file, or its path where two files have one name."""
    files = [Path(path).name for path in paths]
    return {path: name if files.count(name) == 1 else path for path, name in zip(paths, files)}


def check_suite(
    path: str, name: str, settings: Settings, end: float, sessions: Sequence[Session]
) -> Outcome:
    """Run a suite; run it again when it failed while an engine was away that has come back."""
    outcome = run_suite(path, name, min(settings.suite_s, end - time.monotonic()))
    if outcome.ok:
        return outcome
    away = [session for session in sessions if not _answers(session)]
    back = [session for session in away if session.patience > 0 and check_engine(session).ok]
    if not away or len(back) < len(away):
        return outcome
    again = run_suite(path, name, min(settings.suite_s, end - time.monotonic()))
    if again.ok:
        again.message = f"at the second try; at the first: {outcome.message}"
    return again


def _answers(session: Session) -> bool:
    patience, session.patience = session.patience, 0.0
    try:
        session.wait_until_ready()
    except ExchangeError:
        return False
    finally:
        session.patience = patience
    return True


def run_suite(path: str, name: str, seconds: float) -> Outcome:
    """Run a program with everything that it starts, for a limited time; its output is logged."""
    outcome = Outcome("suite", name)
    if seconds <= 0:
        return outcome.fail("not run: the time for the whole run was over")
    begin = time.monotonic()
    # A file, not a pipe: what a suite leaves behind could hold a pipe open for ever.
    with tempfile.TemporaryFile() as output:
        try:
            child = subprocess.Popen(
                [path],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return outcome.fail(f"{path} can't be run: {error.strerror}")
        try:
            status = child.wait(timeout=seconds)
            if status != 0:
                outcome.fail(f"{path} ended with status {status}")
        except subprocess.TimeoutExpired:
            outcome.fail(f"{path} was killed after {seconds:g} s")
        finally:
            _kill(child)
            for line in _tail(output):
                say(f"  {outcome.subject} | {line}")
    outcome.seconds = round(time.monotonic() - begin, 3)
    return outcome


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a suite and all that is left of what it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=KILL_GRACE_S)


def _tail(output: Any) -> list[str]:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - OUTPUT_BYTES))
    return [line.rstrip() for line in output.read().decode("utf-8", "replace").splitlines()]


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Check everything, keep what was found, and return the exit status."""
    with only_one(options.state / "lock") as free:
        if not free:
            say("FAIL  another run is going on; this one does nothing")
            return OTHER_RUN
        started, outcomes, broken = time.time(), [], ""
        say(f"begin nightly smoke test of {settings.host}")
        try:
            _on_signals(_end)
            for outcome in checks(settings):
                outcomes.append(outcome)
                say(line_of(asdict(outcome)))
        except EndedError as ended:
            broken = str(ended)
            say(f"FAIL  the run was ended: {broken}")
        finally:
            _on_signals(signal.SIG_IGN)  # what was found is kept
        record = record_of(
            outcomes,
            load_record(options.state),
            host=settings.host,
            invocation=os.environ.get("INVOCATION_ID", ""),
            started=started,
            ended=time.time(),
            broken=broken,
        )
        save(record, options.state, options.textfile)
        passed = sum(outcome.ok for outcome in outcomes)
        word = "passed" if record["ok"] else "FAILED"
        took = record["ended"] - record["started"]
        say(f"end nightly smoke test {word}: {passed} of {len(outcomes)} checks in {took:.0f} s")
        return PASSED if record["ok"] else FAILED


def _on_signals(action: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, action)


def _end(number: int, _frame: FrameType | None) -> None:
    _on_signals(signal.SIG_IGN)
    raise EndedError(f"signal {signal.Signals(number).name}")


def settle(options: argparse.Namespace) -> int:
    """Note the failure of a run that could not do so itself: killed, or never begun."""
    result = os.environ.get("SERVICE_RESULT", "success")
    status = os.environ.get("EXIT_STATUS", "")
    invocation = os.environ.get("INVOCATION_ID", "")
    before = load_record(options.state)
    noted = bool(invocation) and before.get("invocation") == invocation
    if result == "success" or noted or status == str(OTHER_RUN):
        return PASSED
    now = time.time()
    broken = f"the service ended with {result}, status {status or 'unknown'}"
    host = str(before.get("host") or os.uname().nodename)
    record = record_of(
        [], before, host=host, invocation=invocation, started=now, ended=now, broken=broken
    )
    save(record, options.state, options.textfile)
    say(f"end nightly smoke test FAILED: {broken}")
    return PASSED


def show(settings: Settings) -> int:
    """Say what a run would do; ask nothing but the lists of models."""
    limits, status = settings.limits, PASSED
    for path in settings.suites:
        print(f"suite  {path}, {settings.suite_s:g} s")
    for engine, found in sessions_of(settings, time.monotonic() + settings.budget_s):
        if isinstance(found, Outcome):
            print(line_of(asdict(found)))
            status = FAILED
            continue
        print(f"engine {engine.name} ({engine.kind}) at {engine.url}, up to {limits.wait_s:g} s")
        try:
            models = found.models()
        except ExchangeError as trouble:
            print(f"FAIL  engine {engine.name}: its models are not known: {trouble}")
            status = FAILED
            continue
        whence = "of the settings" if engine.models else "that it lists"
        load = f" after {limits.load_s:g} s for loading" if engine.kind == "ollama" else ""
        for model in models:
            path = ASKED[engine.api]
            print(f"model  {engine.name}: {model} ({whence}) at {path}, {limits.call_s:g} s{load}")
    print(f"prompt {limits.prompt!r}, at most {limits.max_tokens} tokens")
    watching = settings.watching
    if watching:
        what = f"read by {watching.python}, up to {watching.seconds:g} s a model"
    else:
        what = "not asked: where a model lies is judged by /api/ps alone, of vLLM by /metrics"
    print(f"GPUs   {what}")
    print(f"in all {settings.budget_s:g} s")
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description="Test the engines and each of their models.")
    parser.add_argument("--config", type=Path, required=True, help="settings file, JSON")
    parser.add_argument("--state", type=Path, required=True, help="directory of lock and record")
    parser.add_argument("--textfile", type=Path, required=True, help="Prometheus textfile")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="read the settings, and end")
    what.add_argument("--list", action="store_true", help="say what would be asked, and end")
    what.add_argument("--settle", action="store_true", help="note a run that was killed (systemd)")
    options = parser.parse_args(arguments)
    try:
        if options.settle:
            return settle(options)
        settings = settings_from(load_settings(options.config))
        if options.check:
            return PASSED
        return show(settings) if options.list else run(settings, options)
    except (FileError, SettingsError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return UNUSABLE


if __name__ == "__main__":
    sys.exit(main())
