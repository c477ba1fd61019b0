# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collector's files: daily CSV files behind a stable name, events, state, lock.

Several writers may be at work, and each of them may be killed anywhere: whoever writes holds a
lock file that is never renamed, adds whole lines with one ``write``, and repairs first what an
earlier writer left. Days are those of UTC.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

LOCK_SECONDS = 10.0
TAIL_BYTES = 64 * 1024
CUT_BYTES = 1024  # that a note tells of a line which was cut
EVENT_LINES = 20_000  # that the events file keeps at most, however young they are
STAMP = "%Y-%m-%dT%H:%M:%SZ"


class WriteError(Exception):
    """A file could not be written."""

    def __init__(self, path: Path, error: OSError | str) -> None:
        super().__init__(f"{path}: {error if isinstance(error, str) else error.strerror}")


class LockError(WriteError):
    """The lock could not be had, so nothing was even tried."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file; LockError when somebody else holds it all the time."""
    deadline, pause = time.monotonic() + LOCK_SECONDS, 0.0005
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise LockError(path, error) from error
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise LockError(path, f"is held for over {LOCK_SECONDS:g} s") from error
                time.sleep(pause)
                pause = min(0.05, pause * 2)
        yield
    finally:
        os.close(handle)


class DailyCsv:
    """CSV files of a day each; a symbolic link under the stable name leads to the newest.

    ``nvidia-smi-ping.csv`` -> ``nvidia-smi-ping-2026-11-20.csv``. The caller holds the lock.
    """

    def __init__(self, stable: Path, header: str, keep_days: int) -> None:
        self.stable = stable
        self.header = header
        self.keep_days = keep_days

    def of_day(self, now: datetime) -> Path:
        """Return the file of a day."""
        return self.stable.with_name(f"{self.stable.stem}-{now:%Y-%m-%d}{self.stable.suffix}")

    def append(self, rows: str, now: datetime) -> list[str]:
        """Add lines to the day's file, all or none of them; return what had to be put right.

        A line without its end was cut by a crash: it is taken off and noted, for nobody can tell
        whether its last number is whole. A file with another header is set aside.
        """
        path = self.of_day(now)
        try:
            notes = self._without_foreign(path, now)
            size, cut = append(path, rows, first=self.header)
            if cut:
                notes.append(f"took off the cut line {cut!r} at the end of {path.name}")
            notes += self._point_at(path, now)
            if size == 0:
                self.prune(now.date())
        except OSError as error:
            raise WriteError(path, error) from error
        return notes

    def _without_foreign(self, path: Path, now: datetime) -> list[str]:
        """Set a file aside that has other columns, or that isn't ours to write."""
        try:
            with path.open("r+b") as file:
                first = file.readline(len(self.header) * 4)
            if self.header.encode().startswith(first):  # equal, or cut, or nothing
                return []
            why = "had another header"
        except FileNotFoundError:
            return []
        except PermissionError:
            why = "can't be written by this account"
        aside = free_name(path, now)
        path.rename(aside)
        return [f"{path.name} {why} and is now {aside.name}"]

    def _point_at(self, path: Path, now: datetime) -> list[str]:
        """Let the stable name lead to a file; what stood there in its place is kept."""
        notes = []
        try:
            found = os.readlink(self.stable)
            if found == path.name:
                return []
            if not re.fullmatch(self._pattern(), found):
                notes.append(f"{self.stable.name} led to {found}")
        except FileNotFoundError:
            pass
        except OSError:  # no link: what an earlier collector wrote
            aside = free_name(self.stable, now)
            try:  # a second name, so that the stable one always leads to something
                os.link(self.stable, aside)
            except OSError:  # not on this file system, or not with somebody else's file
                self.stable.rename(aside)
            notes.append(f"{self.stable.name} was another collector's file and is now {aside.name}")
        link = self.stable.with_name(f".{self.stable.name}.new")
        link.unlink(missing_ok=True)
        link.symlink_to(path.name)
        link.replace(self.stable)
        sync(self.stable.parent)
        return notes

    def _pattern(self) -> str:
        stem, suffix = re.escape(self.stable.stem), re.escape(self.stable.suffix)
        return rf"{stem}-(\d{{4}}-\d\d-\d\d)(?:\..*)?{suffix}"

    def prune(self, today: date) -> list[str]:
        """Remove the files of days that are over the retention; return their names."""
        oldest = today - timedelta(days=self.keep_days)
        removed = []
        for path in sorted(self.stable.parent.iterdir()):
            found = re.fullmatch(self._pattern(), path.name)
            if found and found[1] < oldest.isoformat():
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed.append(path.name)
        return removed


def free_name(path: Path, now: datetime) -> Path:
    """Return a name with the time for a file that is set aside, never one that is taken."""
    names = (
        f"{path.stem}.until-{now:%Y%m%dT%H%M%SZ}{number}{path.suffix}"
        for number in ("", *(f".{again}" for again in range(2, 1000)))
    )
    for name in names:
        if not os.path.lexists(path.with_name(name)):
            return path.with_name(name)
    raise OSError(0, "there is no free name to set it aside")


def append(path: Path, text: str, first: str = "") -> tuple[int, str]:
    """Add whole lines with one write; leave the file as it was when they don't fit.

    Args:
        path: the file, made when it is missing.
        text: lines with their ends.
        first: what stands before them in a file that is empty.

    Returns:
        The file's size before, and a line without its end that was cut off there.

    Raises:
        OSError: nothing was written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(path, flags, 0o644)
    try:
        size, cut = _without_cut_line(handle)
        data = ((first if size == 0 else "") + text).encode()
        try:
            written = os.write(handle, data)
            if written != len(data):
                written += os.write(handle, data[written:])  # says why
            if written != len(data):
                raise OSError(0, f"only {written} of {len(data)} bytes could be written")
        except OSError:
            os.ftruncate(handle, size)
            if size == 0:
                path.unlink(missing_ok=True)
            raise
    finally:
        os.close(handle)
    return size, cut


def _without_cut_line(handle: int) -> tuple[int, str]:
    """Truncate a file after its last line end; return its size then, and what was cut off."""
    size = keep = os.fstat(handle).st_size
    while keep:
        block = min(keep, TAIL_BYTES)
        at = os.pread(handle, block, keep - block).rfind(b"\n")
        keep -= block - at - 1 if at >= 0 else block
        if at >= 0:
            break
    if keep == size:
        return size, ""
    cut = os.pread(handle, CUT_BYTES, keep)
    os.ftruncate(handle, keep)
    return keep, cut.decode("utf-8", "replace")


def replace_file(path: Path, data: bytes, durable: bool = True, alone: bool = True) -> None:
    """Put a file in place by rename, readable for everybody; WriteError when that fails.

    Args:
        path: the file.
        data: what it will hold.
        durable: whether it has to survive a power cut.
        alone: whether the caller holds the lock. Without it, somebody else may be at the same file.
    """
    temporary = path.with_name(f".{path.name}.new" if alone else f".{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise WriteError(path, error) from error


def sync(folder: Path) -> None:
    """Make new names in a folder durable, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def add_event(path: Path, now: datetime, kind: str, text: str) -> None:
    """Append a line to the events file; the caller holds the lock."""
    line = f"{now.strftime(STAMP)} {kind} {' '.join(text.split())}\n"
    try:
        try:
            append(path, line)
        except PermissionError:  # an earlier collector wrote it with another account
            path.rename(free_name(path, now))
            append(path, line)
    except OSError as error:
        raise WriteError(path, error) from error


def trim_events(path: Path, now: datetime, keep_days: int) -> None:
    """Take off the events that are over the retention; the caller holds the lock.

    Lines without a time of ours stay: an earlier collector may have written them.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise WriteError(path, error) from error
    oldest = (now - timedelta(days=keep_days)).strftime(STAMP)
    ours = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")
    kept = [line for line in lines if not ours.match(line) or line >= oldest][-EVENT_LINES:]
    if len(kept) < len(lines):
        replace_file(path, "".join(kept).encode("utf-8", "surrogateescape"))


def load_state(path: Path) -> dict[str, Any]:
    """Return what the last collection noted; empty when there was none or it can't be read."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Note it for the next one, which may be after a power cut: a GPU that died in it is known."""
    replace_file(path, (json.dumps(state, sort_keys=True) + "\n").encode())
