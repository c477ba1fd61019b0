# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes one sample of all GPUs: a CSV line per GPU, Prometheus metrics, events when it fails.

The readings come from ``gpu_nvml.py`` beside this file, run as a child that is killed when the
driver does not answer. Exit status: 0 sampled, 1 the GPUs could not be read, 2 not written.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gpu_metrics import previous_success, render_metrics

READER = Path(__file__).with_name("gpu_nvml.py")
LOCK_SECONDS = 10.0
MIB, MHZ = 1024 * 1024, 1_000_000

# Column, field of the reading, divisor and digits: numbers as nvidia-smi's nounits format has them.
COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    ("timestamp", "", 1, 0),
    ("index", "index", 1, 0),
    ("name", "name", 1, 0),
    ("uuid", "uuid", 1, 0),
    ("pci.bus_id", "pci_bus_id", 1, 0),
    ("temperature.gpu", "temperature_c", 1, 0),
    ("utilization.gpu", "utilization_gpu_ratio", 0.01, 0),
    ("memory.used", "memory_used_bytes", MIB, 0),
    ("memory.total", "memory_total_bytes", MIB, 0),
    ("power.draw", "power_draw_watts", 1, 2),
    ("clocks.sm", "clock_sm_hz", MHZ, 0),
    ("clocks.mem", "clock_memory_hz", MHZ, 0),
)
HEADER = ",".join(column[0] for column in COLUMNS) + "\n"


class CollectError(Exception):
    """The GPUs could not be read."""

    def __init__(self, state: str, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.state = state
        self.code = code


class WriteError(Exception):
    """A file could not be written."""


def collect(reader: Path, timeout_s: float) -> dict[str, Any]:
    """Read all GPUs in a child process; kill its group when the deadline passes."""
    child = subprocess.Popen(
        [sys.executable, "-B", str(reader)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as expired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        message = f"NVML did not answer within {timeout_s:g} s"
        raise CollectError("timeout", message) from expired
    return understand(out, err, child.returncode)


def understand(out: str, err: str, status: int) -> dict[str, Any]:
    """Turn the reader's lines into the driver's versions and the GPUs' readings."""
    sample: dict[str, Any] = {"driver": {}, "gpus": []}
    done = False
    for line in out.splitlines():
        try:
            entry = dict(json.loads(line))
        except (TypeError, ValueError) as error:
            raise CollectError("error", f"the reader printed {line[:80]!r}") from error
        if "error" in entry:
            error = entry["error"]
            raise CollectError(error["state"], error["message"], error.get("code"))
        sample["driver"] = entry.get("driver", sample["driver"])
        if "gpu" in entry:
            sample["gpus"].append(entry["gpu"])
        done = done or "done" in entry
    if not done:
        last = err.strip().splitlines()[-1:] or ["it printed nothing"]
        raise CollectError("error", f"the reader ended with status {status}: {last[0]}")
    if not sample["gpus"]:
        raise CollectError("no_gpu", "the driver sees no GPU")
    if all(gpu["state"] != "ok" for gpu in sample["gpus"]):
        states = ", ".join(f"GPU {gpu['index']} is {gpu['state']}" for gpu in sample["gpus"])
        raise CollectError("gpu_lost", states)
    return sample


def csv_rows(gpus: list[dict[str, Any]], now: datetime) -> str:
    """Return one line per GPU that answered; a value that is not known is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for gpu in gpus:
        if gpu["state"] == "ok":
            fields = [_field(gpu, *column) for column in COLUMNS[1:]]
            writer.writerow([now.strftime("%Y-%m-%dT%H:%M:%SZ"), *fields])
    return text.getvalue()


def _field(gpu: dict[str, Any], _column: str, field: str, divisor: float, digits: int) -> str:
    value = gpu.get(field)
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value / divisor:.{digits}f}"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file; it is never rotated, unlike the files that it guards."""
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise WriteError(f"{path}: {error.strerror}") from error
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise WriteError(f"{path} is held for over {LOCK_SECONDS:g} s") from error
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def append_rows(path: Path, rows: str, now: datetime) -> list[str]:
    """Append lines with one write, after repairing what an earlier writer left; return notes.

    The caller holds the lock. A line without its line end was cut by a crash: it is taken off and
    noted, for nobody can tell whether its last number is whole. A file with another header is set
    aside under a name with the time, so that the stable name always has these columns.
    """
    notes = _set_aside_foreign(path, now)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size, cut = _without_cut_line(handle)
        if cut:
            notes.append(f"took off the cut line {cut!r} at the end of {path.name}")
        data = (HEADER if size == 0 else "") + rows
        written = os.write(handle, data.encode())
        if written != len(data.encode()):  # the disk is full: leave no part of a line
            os.ftruncate(handle, size)
            raise WriteError(f"{path}: only {written} of {len(data)} bytes could be written")
    except OSError as error:
        raise WriteError(f"{path}: {error.strerror}") from error
    finally:
        os.close(handle)
    return notes


def _set_aside_foreign(path: Path, now: datetime) -> list[str]:
    try:
        with path.open("rb") as file:
            first = file.readline(len(HEADER) * 4)
    except FileNotFoundError:
        return []
    if not first or first == HEADER.encode() or HEADER.encode().startswith(first):
        return []  # the last case is a header that was cut
    aside = path.with_name(f"{path.stem}.until-{now:%Y%m%dT%H%M%SZ}{path.suffix}")
    path.rename(aside)
    return [f"{path.name} had another header and was set aside as {aside.name}"]


def _without_cut_line(handle: int) -> tuple[int, str]:
    size = os.fstat(handle).st_size
    block = min(size, 64 * 1024)
    tail = os.pread(handle, block, size - block)
    if not tail or tail.endswith(b"\n"):
        return size, ""
    cut = tail[tail.rfind(b"\n") + 1 :]
    os.ftruncate(handle, size - len(cut))
    return size - len(cut), cut.decode("utf-8", "replace")


def replace_file(path: Path, data: bytes) -> None:
    """Put a file in place by rename, readable for the node exporter."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise WriteError(f"{path}: {error.strerror}") from error


def add_event(path: Path, now: datetime, kind: str, text: str) -> None:
    """Append a line to the events file."""
    line = f"{now:%Y-%m-%dT%H:%M:%SZ} {kind} {' '.join(text.split())}\n"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise WriteError(f"{path}: {error.strerror}") from error


def sample_once(options: argparse.Namespace) -> int:
    """Take a sample and write everything; see the module for the exit status."""
    begin, now = time.monotonic(), datetime.now(timezone.utc)
    sample, error, unwritten = None, None, None
    try:
        sample = collect(options.reader, options.timeout)
    except CollectError as failed:
        error = failed
    seconds = round(time.monotonic() - begin, 3)
    with locked(options.csv.with_suffix(".lock")):
        last, worked = previous_success(options.textfile)
        events = list(happenings(sample, error, worked))
        if sample is not None:
            try:
                notes = append_rows(options.csv, csv_rows(sample["gpus"], now), now)
                events += [("repair", note) for note in notes]
                last = now.timestamp()
            except WriteError as failed:
                unwritten, error = failed, CollectError("not_written", str(failed))
        state, code = (error.state, error.code) if error else ("ok", 0)
        replace_file(options.textfile, render_metrics(sample, state, code, last, seconds))
        for kind, text in events:
            print(kind, text)
            add_event(options.events, now, kind, text)
    if unwritten is not None:
        raise unwritten
    return 0 if error is None else 1


def happenings(
    sample: dict[str, Any] | None, error: CollectError | None, worked: bool | None
) -> Iterator[tuple[str, str]]:
    """Yield what the events file has to tell of this collection, given how the last one went."""
    if error is not None:
        yield "error", f"{error.state}: {error}"
    if sample is None:
        return
    if worked is None:
        yield "start", f"first sample, {len(sample['gpus'])} GPUs"
    elif not worked:
        yield "recovered", "the GPUs can be read again"
    for gpu in sample["gpus"]:
        if gpu["state"] != "ok":
            yield "error", f"GPU {gpu['index']} ({gpu.get('uuid', 'no UUID')}) is {gpu['state']}"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and take a sample."""
    parser = argparse.ArgumentParser(description="Take one sample of all GPUs.")
    parser.add_argument("--csv", type=Path, required=True, help="file that lines are added to")
    parser.add_argument("--events", type=Path, required=True, help="file for starts and errors")
    parser.add_argument("--textfile", type=Path, required=True, help="Prometheus textfile")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for the driver")
    parser.add_argument("--reader", type=Path, default=READER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        return sample_once(options)
    except WriteError as error:
        print(f"error {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
