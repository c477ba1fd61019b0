# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The self-test: every part of the collection by itself, then one sample all the way through.

As root it tries things as the service's user, and lets systemd take a sample that is written like
any other. Without root it judges by owners and modes, and reads the GPUs without writing.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from . import account, data, gauges, units
from .settings import GMonError, Settings
from .status import CLOCK_TOLERANCE_S, judge_collection, report
from .units import Collector

Mark = Optional["tuple[Path, int]"]

PASS, WARN, FAIL = "PASS", "WARN", "FAIL"
CHILD_SECONDS, KILL_SECONDS = 20.0, 2.0
# Over what the unit gives the collector beside the driver's own time: systemd ends it first.
START_SECONDS = 120.0
LEAST_FREE_BYTES = 64 * 1024 * 1024

PACKAGES = """
import importlib.metadata, json, sys
found = {"versions": {}}
for name in sys.argv[1:]:
    try:
        found["versions"][name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
try:
    import pynvml
except Exception as error:
    found["error"] = f"{type(error).__name__}: {error}"
found["python"] = "%d.%d.%d" % sys.version_info[:3]
print(json.dumps(found))
"""
WRITABLE = """
import json, os, sys
print(json.dumps([os.access(path, os.W_OK | os.X_OK) for path in sys.argv[1:]]))
"""


class Step(NamedTuple):
    """One finding of the self-test."""

    name: str
    status: str
    reason: str


@dataclass
class Bench:
    """What the steps work with; tests put their own functions in."""

    settings: Settings
    runner: units.Runner = units.run
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    root: bool = False
    stuck: subprocess.Popen[bytes] | None = None  # a child that couldn't be killed

    @property
    def account(self) -> pwd.struct_passwd | None:
        """The service's user; None when it isn't there."""
        try:
            return pwd.getpwnam(self.settings.user)
        except KeyError:
            return None


def child(bench: Bench, arguments: list[str], seconds: float, as_user: bool = False) -> str:
    """Run the environment's Python with a deadline and return its output.

    A process in a driver call can't be ended from within, so the whole group is killed; GMonError
    when it doesn't answer, fails, or can't be started. With ``as_user`` it runs as the service's
    user, where that is possible.
    """
    who: dict[str, Any] = {}
    account = bench.account
    if as_user and bench.root and account is not None and account.pw_uid != os.getuid():
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
    try:
        process = subprocess.Popen(
            [str(bench.settings.python), "-I", "-B", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
            **who,
        )
    except OSError as error:
        raise GMonError(f"{bench.settings.python} can't be run: {error.strerror}") from error
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        # Waited for only a little: a process that the driver holds ends when the driver lets it go.
        try:
            process.communicate(timeout=KILL_SECONDS)
        except subprocess.TimeoutExpired:
            bench.stuck = process
        raise GMonError(f"no answer within {seconds:g} s") from error
    if process.returncode and not out:
        last = err.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it printed nothing"]
        raise GMonError(f"exit status {process.returncode}: {last[0]}")
    return out.decode("utf-8", "replace")


def read_gpus(bench: Bench) -> tuple[list[dict[str, Any]], float]:
    """Read all GPUs from the driver now, without writing; return readings and seconds.

    GMonError says what the driver said. A process that hangs in the driver is never joined by a
    second one: neither one of ours nor one of the collector's.
    """
    if bench.stuck is not None and bench.stuck.poll() is None:
        raise GMonError(f"process {bench.stuck.pid} hangs in the driver: reboot the host")
    metrics = account.metrics(bench.settings)
    if metrics is not None and metrics.state == "stuck":
        raise GMonError("a process of the collector hangs in the driver: g-mon logs, then reboot")
    begin = time.monotonic()
    arguments = [str(bench.settings.reader), "--set", "sample"]
    out = child(bench, arguments, bench.settings.timeout_s, as_user=True)
    gpus = []
    for line in out.splitlines():
        try:
            entry = dict(json.loads(line))
        except (TypeError, ValueError) as error:
            raise GMonError(f"the reader printed {line[:60]!r}") from error
        if "error" in entry:
            raise GMonError(f"{entry['error'].get('state')}: {entry['error'].get('message')}")
        if "gpu" in entry:
            gpus.append(entry["gpu"])
    return gpus, time.monotonic() - begin


def venv(bench: Bench) -> Iterator[Step]:
    """Check the virtual environment and the NVML binding in it."""
    pins = dict(package.split("==", 1) for package in bench.settings.packages if "==" in package)
    names = [*pins, "nvidia-ml-py", "pynvml"]
    found = json.loads(child(bench, ["-c", PACKAGES, *names], CHILD_SECONDS))
    versions, where = found["versions"], bench.settings.python.parent.parent
    missing = [name for name in pins if name not in versions]
    others = [
        f"{name} {versions[name]} (wanted {pin})"
        for name, pin in pins.items()
        if name in versions and versions[name] != pin
    ]
    if missing:
        text = f"{where} lacks {', '.join(missing)}: remove it, run the role telemetry again"
        yield Step("environment", FAIL, text)
    elif others:
        yield Step("environment", WARN, f"{where} has {', '.join(others)}")
    else:
        text = f"Python {found['python']} in {where}, {gauges.plural(len(pins), 'package')}"
        yield Step("environment", PASS, text)
    version = versions.get("nvidia-ml-py")
    if "error" in found or not version:
        reason = found.get("error", "the package nvidia-ml-py is missing")
        yield Step("binding", FAIL, f"{reason} ({where})")
    elif "pynvml" in versions:
        reason = f"nvidia-ml-py {version}, but the retired package pynvml is installed beside it"
        yield Step("binding", WARN, f"{reason}: {where}/bin/pip uninstall pynvml")
    else:
        yield Step("binding", PASS, f"nvidia-ml-py {version}")


def user(bench: Bench) -> Iterator[Step]:
    """Check the service's user."""
    name, account = bench.settings.user, bench.account
    if account is None:
        yield Step("user", FAIL, f"there is no account {name}: run the role telemetry again")
    elif account.pw_uid == 0:
        yield Step("user", FAIL, f"{name} is root, wanted: an account without rights")
    elif not account.pw_shell.endswith(("/nologin", "/false")):
        yield Step("user", WARN, f"{name} has the shell {account.pw_shell}, wanted: nologin")
    else:
        yield Step("user", PASS, f"{name}, uid {account.pw_uid}, no shell")


def directories(bench: Bench) -> Iterator[Step]:
    """Check that the service's user can write where it has to, and that there is room."""
    paths = [bench.settings.data_dir, bench.settings.textfile.parent]
    writable = _writable(bench, paths)
    for name, path, fine in zip(("data directory", "metrics directory"), paths, writable):
        if not path.is_dir():
            yield Step(name, FAIL, f"{path} isn't there: run the role telemetry again")
            continue
        if fine is None:
            yield Step(name, FAIL, f"{path}: nobody knows, there is no {bench.settings.user}")
            continue
        if not fine:
            yield Step(name, FAIL, f"{path} isn't writable by {bench.settings.user}: {_mode(path)}")
            continue
        room = os.statvfs(path)
        free = room.f_bavail * room.f_frsize
        if free < LEAST_FREE_BYTES:
            yield Step(name, WARN, f"{path}: only {gauges.size(free)} are free")
            continue
        how = "" if bench.root else ", by its owner and mode"
        yield Step(name, PASS, f"{path}{how}, {gauges.size(free)} free")


def _writable(bench: Bench, paths: list[Path]) -> list[bool | None]:
    account = bench.account
    if account is None:
        return [None] * len(paths)
    if bench.root or account.pw_uid == os.geteuid():
        arguments = ["-c", WRITABLE, *map(str, paths)]
        return list(json.loads(child(bench, arguments, CHILD_SECONDS, as_user=True)))
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    found: list[bool | None] = []
    for path in paths:
        try:
            entry = path.stat()
        except OSError:
            found.append(False)
            continue
        # Owner, group, others: the first that fits decides, as the kernel has it.
        shift = 6 if entry.st_uid == account.pw_uid else 3 if entry.st_gid in groups else 0
        found.append(entry.st_mode >> shift & 0o3 == 0o3)
    return found


def _mode(path: Path) -> str:
    entry = path.stat()
    try:
        owner, group = pwd.getpwuid(entry.st_uid).pw_name, grp.getgrgid(entry.st_gid).gr_name
    except KeyError:
        owner, group = str(entry.st_uid), str(entry.st_gid)
    return f"{owner}:{group} {entry.st_mode & 0o7777:04o}"


def driver(bench: Bench) -> Iterator[Step]:
    """Read the GPUs once, as the service's user where that is possible."""
    try:
        gpus, seconds = read_gpus(bench)
    except GMonError as error:
        yield Step("driver", FAIL, f"the GPUs can't be read: {error}")
        return
    bad = [f"GPU {gpu.get('index')} is {gpu.get('state')}" for gpu in gpus if not _answers(gpu)]
    listed = {str(gpu.get("uuid")) for gpu in gpus}
    noted = account.missing(bench.settings) or []
    bad += [card.text for card in noted if card.uuid and card.uuid not in listed]
    if not gpus:
        yield Step("driver", FAIL, "the driver sees no GPU")
    elif bad:
        yield Step("driver", FAIL, ", ".join(bad))
    else:
        who = f" as {bench.settings.user}" if bench.root else ""
        text = f"{gauges.plural(len(gpus), 'GPU')} read in {seconds:.2f} s{who}"
        yield Step("driver", PASS, text)


def _answers(gpu: dict[str, Any]) -> bool:
    return gpu.get("state") == "ok"


def sample(bench: Bench, collector: Collector) -> Iterator[Step]:
    """Let the service take a sample now, and look for it in the data."""
    if not collector.installed:
        yield Step("sample", FAIL, f"{bench.settings.service} isn't installed")
        return
    if not bench.root:
        text = "not taken, which needs root: sudo g-mon selftest; the step before read the GPUs"
        yield Step("sample", PASS, text)
        return
    before, begin = _mark(bench), bench.clock()
    if collector.long_running:
        yield _awaited(bench, collector, before)
        return
    argv = ["systemctl", "--no-ask-password", "start", bench.settings.service]
    status, _out, err = bench.runner(argv, START_SECONDS + bench.settings.timeout_s)
    if status:
        reasons = judge_collection(bench.settings, units.find(bench.settings, bench.runner))
        last = err.strip().splitlines()[:1]
        yield Step("sample", FAIL, "; ".join([*reasons, *last]) or f"exit status {status}")
        return
    yield _grown(bench, before, begin)


def _awaited(bench: Bench, collector: Collector, before: Mark) -> Step:
    """Wait for the sample that a long-running collector takes by itself."""
    if not collector.running:
        return Step("sample", FAIL, f"{collector.lead} doesn't run: sudo g-mon start")
    begin = bench.clock()
    limit = 1.5 * bench.settings.interval_s + bench.settings.timeout_s
    while bench.clock() - begin < limit:
        step = _grown(bench, before, begin)
        if step.status == PASS:
            return step
        bench.sleep(0.5)
    reasons = judge_collection(bench.settings, collector)
    text = f"no new sample within {gauges.duration(limit)}"
    return Step("sample", FAIL, "; ".join([text, *reasons]))


def _mark(bench: Bench) -> Mark:
    """Return what tells whether rows were added: times alone don't, they have whole seconds."""
    try:
        path = data.tail(bench.settings).path
    except GMonError:
        return None
    return None if path is None else (path, path.stat().st_size)


def _grown(bench: Bench, before: Mark, begin: float) -> Step:
    after = data.tail(bench.settings)
    if after.time is None:
        return Step("sample", FAIL, "the service ended well, but there is no row at all")
    if _mark(bench) == before or after.time < int(begin):
        text = f"the newest row is of {gauges.clock(after.time)} UTC"
        return Step("sample", FAIL, f"the service ended well, but {text}")
    cards = gauges.plural(len(after.newest), "GPU")
    return Step("sample", PASS, f"{cards} written to {after.path.name if after.path else '?'}")


def table(bench: Bench) -> Iterator[Step]:
    """Check header and last line of the data, and the stable name."""
    tail = data.tail(bench.settings)
    if tail.foreign:
        text = f"{bench.settings.stable} has another header than the collector's"
        yield Step("CSV", FAIL, f"{text}; the next sample sets it aside")
    elif tail.path is None or tail.time is None:
        yield Step("CSV", FAIL, f"no sample in {bench.settings.data_dir}")
    elif tail.cut:
        text = f"{tail.path.name} ends with half a line, which the next sample repairs"
        yield Step("CSV", WARN, f"{text}: {gauges.shorten(tail.cut, 40)!r}")
    elif not bench.settings.stable.exists():
        yield Step("CSV", FAIL, f"{bench.settings.stable} doesn't lead to a file")
    elif tail.time - bench.clock() > CLOCK_TOLERANCE_S:
        ahead = gauges.duration(tail.time - bench.clock())
        yield Step("CSV", WARN, f"the newest sample lies {ahead} in the future: look at the clock")
    else:
        text = f"{len(tail.header)} columns, the last line is whole"
        yield Step("CSV", PASS, f"{tail.path.name}: {text}")


def textfile(bench: Bench) -> Iterator[Step]:
    """Check the metrics: fresh, successful, readable for the node exporter."""
    path = bench.settings.textfile
    metrics = account.metrics(bench.settings)
    if metrics is None:
        yield Step("metrics", FAIL, f"{path} isn't there")
    elif metrics.success is None or metrics.failing:
        state = metrics.state or "it doesn't say how"
        yield Step("metrics", FAIL, f"{path.name} says the last collection failed: {state}")
    elif metrics.last_success is None:
        yield Step("metrics", FAIL, f"{path.name} doesn't say when a collection last worked")
    elif bench.clock() - metrics.last_success > bench.settings.stale_after_s:
        age = gauges.duration(bench.clock() - metrics.last_success)
        yield Step("metrics", WARN, f"{path.name} is {age} old")
    elif not metrics.mode & 0o004:
        text = f"{path} has mode {metrics.mode:04o}, so the node exporter can't read it"
        yield Step("metrics", WARN, text)
    else:
        age = gauges.duration(max(0.0, bench.clock() - metrics.last_success))
        yield Step("metrics", PASS, f"{path}, {age} old")


def schedule(bench: Bench, collector: Collector) -> Iterator[Step]:
    """Check that samples go on: the timer has a next time, or the service runs."""
    name = collector.lead
    if not collector.installed or collector.leading.get("LoadState") != "loaded":
        yield Step("schedule", FAIL, f"{name} is {collector.leading.get('LoadState')}")
    elif not collector.running:
        state = collector.leading.get("ActiveState")
        yield Step("schedule", FAIL, f"{name} is {state}: sudo g-mon start")
    elif not collector.long_running and not collector.scheduled:
        yield Step("schedule", FAIL, f"{name} is active and has no next time: sudo g-mon restart")
    elif not collector.starts_at_boot:
        yield Step("schedule", WARN, f"{name} doesn't start at boot: sudo g-mon enable")
    elif collector.next_sample is not None:
        due = gauges.duration(max(0.0, collector.next_sample - bench.clock()))
        yield Step("schedule", PASS, f"{name}, next sample in {due}, starts at boot")
    else:
        yield Step("schedule", PASS, f"{name} is active, starts at boot")


def steps(bench: Bench) -> Iterator[Step]:
    """Yield each finding as soon as it is known; a step that can't be done has failed."""
    parts: tuple[tuple[str, Callable[[], Iterator[Step]]], ...] = (
        ("environment", lambda: venv(bench)),
        ("user", lambda: user(bench)),
        ("directories", lambda: directories(bench)),
        ("driver", lambda: driver(bench)),
        ("sample", lambda: sample(bench, units.find(bench.settings, bench.runner))),
        ("CSV", lambda: table(bench)),
        ("metrics", lambda: textfile(bench)),
        ("schedule", lambda: schedule(bench, units.find(bench.settings, bench.runner))),
    )
    for name, part in parts:
        try:
            yield from part()
        except (GMonError, OSError, ValueError) as error:
            yield Step(name, FAIL, str(error))


def answer(settings: Settings, found: list[Step]) -> dict[str, Any]:
    """Return the findings as one JSON answer."""
    texts = {
        status: [f"{step.name}: {step.reason}" for step in found if step.status == status]
        for status in (WARN, FAIL)
    }
    return {
        **report(texts[FAIL], texts[WARN]),
        "host": settings.host,
        "steps": [step._asdict() for step in found],
    }
