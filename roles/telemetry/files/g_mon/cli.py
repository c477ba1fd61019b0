# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of g-mon.

Exit status: 0 healthy, 1 warning (stale data, nothing in the period), 2 broken, not running, or a
wrong call. With ``--json`` an answer is one object that begins with ``ok``, ``exit``, ``failures``
and ``warnings``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

from . import account, data, selftest, stats, status, units
from .settings import GMonError, Settings, load_settings, printable

SETTINGS = Path(__file__).with_name("settings.json")
VERBS = {
    "start": "take samples from now on",
    "stop": "take no samples until the next start, or the next boot",
    "restart": "stop and start",
    "enable": "take samples after each boot",
    "disable": "take no samples after the next boot",
}
# Isolated Python doesn't look beside the program that it runs.
FORGET = """
import sys
sys.path.append(sys.argv[1])
from gpu_telemetry import main
sys.exit(main(sys.argv[2:]))
"""
JOURNAL_SECONDS = 30.0
FOLLOW_SECONDS = 0.5
DEFAULT_FRAME_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Operators type "Run G-Mon status": the launcher has a second name for that.
    if given and given[0].casefold() in ("g-mon", "gmon"):
        del given[0]
    options = parser().parse_args(given or ["status"])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        code = int(options.act(options, load_settings(options.settings)))
        sys.stdout.flush()  # a reader that has gone away is noticed here at the latest
        return code
    except GMonError as error:
        if getattr(options, "json", False):
            _print_json(status.report([str(error)], []))
        else:
            print(f"g-mon: {error}", file=sys.stderr)
        return status.BROKEN
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 0 if options.endless else 128 + signal.SIGINT


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="g-mon",
        description="GPU telemetry of this host: steer it, look at it, test it.",
        epilog="Exit status: 0 healthy, 1 warning, 2 broken, not running, or a wrong call. "
        "Without a command: status. g-mon COMMAND --help says more.",
    )
    top.add_argument("--settings", type=Path, default=SETTINGS, help=argparse.SUPPRESS)
    top.set_defaults(endless=False, json=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, act: Callable[..., int], text: str) -> argparse.ArgumentParser:
        sentence = f"{text[:1].upper()}{text[1:]}."
        command = commands.add_parser(name, help=text, description=sentence)
        command.set_defaults(act=act)
        return command

    for verb, text in VERBS.items():
        add(verb, _steer, f"{text} (needs root)")
    for name, act, text in (
        ("status", _status, "state of the units, age and amount of the data"),
        ("compact", _compact, "the same in two lines"),
    ):
        _add_json(add(name, act, text))
    logs = add("logs", _logs, "journal of the units, and events of the collector")
    logs.add_argument("-n", "--lines", type=_whole, default=20, help="lines of each (default: 20)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    rows = add("data", _data, "header, newest rows and size of the data")
    rows.add_argument("-n", "--lines", type=_whole, default=10, help="rows (default: 10)")
    rows.add_argument("--raw", action="store_true", help="header and rows as the file has them")
    _add_json(rows)
    watch = add("watch", _watch, "live view until Ctrl-C")
    watch.add_argument(
        "--interval",
        type=_seconds,
        help="seconds per frame (default: 5, at most the collector's)",
    )
    watch.add_argument("--count", type=_whole, help="end after so many frames")
    watch.add_argument(
        "--live", action="store_true", help="ask the driver for each frame, rather than the files"
    )
    figures = add("stats", _stats, "figures per GPU over a period, and gaps in the data")
    figures.add_argument(
        "--since",
        default="24h",
        help="begin of the period: 90m, 24h, 7d, or a time in UTC as 2026-11-20 (default: 24h)",
    )
    _add_json(figures)
    forget = add("forget", _forget, "miss a GPU no more that was taken out (needs root)")
    forget.add_argument("uuid", metavar="UUID", help="as g-mon status names it")
    test = add(
        "selftest", _selftest, "test every part, step by step; as root also take a sample (sudo)"
    )
    _add_json(test)
    return top


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


_whole.__name__ = "number"


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.2 <= number <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.2 and 86400")
    return number


_seconds.__name__ = "number of seconds"


def _print_json(answer: dict[str, Any]) -> None:
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def _view(settings: Settings) -> ModuleType:
    """Return the part that needs rich; GMonError when the environment has lost it."""
    try:
        from . import view  # noqa: PLC0415 - --json, start and logs work without it
    except ImportError as error:
        where = settings.python.parent.parent
        message = f"{error}: remove {where}, run the role telemetry again; --json works without"
        raise GMonError(message) from error
    return view


def _steer(options: argparse.Namespace, settings: Settings) -> int:
    for text in units.act(options.command, settings, time.time()):
        print(text)
    return 0


def _forget(options: argparse.Namespace, settings: Settings) -> int:
    bench = selftest.Bench(settings, root=os.geteuid() == 0)
    if not bench.root:
        what = f"the collector's notes are of {settings.user}"
        raise GMonError(f"forget needs root, {what}: sudo g-mon forget {printable(options.uuid)}")
    if bench.account is None:
        raise GMonError(f"there is no account {settings.user}: run the role telemetry again")
    # As its account, for that one owns the directory and could lead root astray.
    told = selftest.child(
        bench,
        ["-c", FORGET, str(settings.reader.parent), f"--forget={options.uuid}",
         f"--csv={settings.stable}", f"--textfile={settings.textfile}"],
        selftest.CHILD_SECONDS,
        as_user=True,
    )  # fmt: skip
    print(printable(told.strip()))
    return status.HEALTHY


def _status(options: argparse.Namespace, settings: Settings) -> int:
    now = time.time()
    answer = status.look(settings, units.find(settings), now)
    if options.json:
        _print_json(answer)
    else:
        view = _view(settings)
        console = view.terminal()
        console.print(view.status(answer, now, view.ascii_only(console)))
    return status.exit_code(answer)


def _compact(options: argparse.Namespace, settings: Settings) -> int:
    answer = status.look(settings, units.find(settings), time.time())
    if options.json:
        _print_json(answer)
    else:
        view = _view(settings)
        console = view.terminal()
        width = console.width if sys.stdout.isatty() else None
        for text in view.compact(answer, width, view.ascii_only(console)):
            print(text)
    return status.exit_code(answer)


def _data(options: argparse.Namespace, settings: Settings) -> int:
    tail = data.tail(settings, max(options.lines, data.RECENT_ROWS))
    rows = tail.rows[-options.lines :]
    sizes = {path.name: count for path, count in data.sizes(settings)}
    name = None if tail.path is None else tail.path.name
    warnings = [f"{settings.stable}: the header isn't the collector's"] if tail.foreign else []
    if tail.cut:
        warnings.append("the last line isn't whole (yet)")
    if not rows:
        warnings.append(f"there are no samples in {settings.data_dir}")
    answer = {
        **status.report([], warnings),
        # Half a line is what a reader sees while the collector writes: no reason to complain.
        "ok": bool(rows),
        "exit": status.HEALTHY if rows else status.WARNING,
        "dir": str(settings.data_dir),
        "file": name,
        "header": tail.header,
        "rows": [data.row_json(row) for row in rows],
        "file_bytes": sizes.get(name or ""),
        "files": len(sizes),
        "total_bytes": sum(sizes.values()),
    }
    if options.json:
        _print_json(answer)
    elif options.raw:
        for text in [",".join(tail.header), *map(data.raw_line, rows)] if rows else []:
            print(text)
        if not rows:
            print(f"g-mon: {warnings[-1]}", file=sys.stderr)
    else:
        view = _view(settings)
        console = view.terminal()
        console.print(view.data(rows, answer, console.width, view.ascii_only(console)))
    return status.exit_code(answer)


def _stats(options: argparse.Namespace, settings: Settings) -> int:
    now = time.time()
    since = stats.parse_since(options.since, now)
    reading = data.read(settings, since)
    answer = stats.figures(reading, settings.host, since, now, settings.interval_s)
    if options.json:
        _print_json(answer)
    else:
        view = _view(settings)
        console = view.terminal()
        console.print(view.stats(answer, now, view.ascii_only(console)))
    return status.exit_code(answer)


def _selftest(options: argparse.Namespace, settings: Settings) -> int:
    bench = selftest.Bench(settings, root=os.geteuid() == 0)
    found = []
    view = None if options.json else _view(settings)
    console = view.terminal() if view else None
    for step in selftest.steps(bench):
        found.append(step)
        if view and console:
            console.print(view.step(*step))
    answer = selftest.answer(settings, found)
    if view and console:
        console.print(view.steps_end(answer))
    else:
        _print_json(answer)
    return status.exit_code(answer)


def _watch(options: argparse.Namespace, settings: Settings) -> int:
    _view(settings)
    from . import view, watch  # noqa: PLC0415 - needs rich, which was looked for above

    options.endless = True
    _end_like_interrupt()
    interval = options.interval or min(DEFAULT_FRAME_SECONDS, settings.interval_s)
    if options.live:
        source: Any = watch.Driver(selftest.Bench(settings, root=os.geteuid() == 0), interval)
    else:
        source = watch.Recorded(settings)
    watch.show(view.terminal(), source, interval, options.count)
    return 0


def _logs(options: argparse.Namespace, settings: Settings) -> int:
    names = [settings.service, settings.timer]
    print(f"-- journal of {' and '.join(names)} --")
    code, at = 0, _size(settings.events)
    try:
        for text in journal(names, options.lines):
            print(text)
    except GMonError as error:
        print(f"g-mon: {error}", file=sys.stderr)
        code = status.WARNING
    print(f"-- {settings.events} --")
    for text in account.last_events(settings, options.lines):
        print(text)
    sys.stdout.flush()
    if options.follow:
        options.endless = True
        _end_like_interrupt()
        with _journal_process(names):
            for text in new_lines(settings.events, at):
                print(text, flush=True)
    return code


def journal(names: Sequence[str], count: int, runner: units.Runner = units.run) -> list[str]:
    """Return the last lines of the units' journal; GMonError when it can't be read."""
    argv = ["journalctl", "--no-pager", "--quiet", "-o", "short-iso", "-n", str(count)]
    code, out, err = runner([*argv, *(f"--unit={name}" for name in names)], JOURNAL_SECONDS)
    if code:
        raise GMonError(f"journalctl failed: {err.strip() or f'exit status {code}'}")
    lines = out.splitlines()
    if not lines and os.geteuid() != 0:
        return ["(nothing, or not for you: sudo g-mon logs, or the group systemd-journal)"]
    return lines or ["(nothing)"]


@contextlib.contextmanager
def _journal_process(names: Sequence[str]) -> Iterator[None]:
    argv = ["journalctl", "--no-pager", "--quiet", "-o", "short-iso", "-n", "0", "-f"]
    try:
        process = subprocess.Popen(
            [*argv, *(f"--unit={name}" for name in names)], stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise GMonError(f"journalctl can't be run: {error.strerror}") from error
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def new_lines(path: Path, at: int, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Yield whole lines that stand in a file after ``at`` bytes, and those that come, for ever.

    A file that isn't there yet, or that was put in place of the one before, is read from its start.
    """
    node, rest = None, b""
    while True:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            entry = os.fstat(file.fileno())
            if entry.st_size < at or (node is not None and node != entry.st_ino):
                at, rest = 0, b""
            node = entry.st_ino
            file.seek(at)
            rest += file.read()
            at = file.tell()
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield printable(line.decode("utf-8", "replace"))
        sleep(FOLLOW_SECONDS)


def _end_like_interrupt() -> None:
    """Let SIGTERM and SIGHUP end a view as Ctrl-C does: the terminal is put in order first."""

    def end(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
