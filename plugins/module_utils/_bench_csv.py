# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The two CSV files of a benchmark: baselines per model, and one row per request.

Two writers may append to one file: each takes a lock, looks whether the header stands, and hands
its rows to the system in one write to a file opened for appending. The files are written as root
in directories that an engine's account may own: a link in their place is refused, not followed.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Sample
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

BASELINE_HEADER = "timestamp,model,first_token_ms,tokens_per_s"
RESULTS_HEADER = (
    "timestamp,model,iter,total_duration_ms,prompt_tokens,prompt_eval_ms,"
    "gen_tokens,gen_eval_ms,tokens_per_s"
)

_FRACTION = re.compile(r"\.\d+(?=Z$|[+-]\d\d:\d\d$)")


@dataclass(frozen=True)
class Baseline:
    """One row of the baseline file."""

    timestamp: str
    model: str
    first_token_ms: float
    tokens_per_s: float

    def row(self) -> str:
        """Return the row, without its line end."""
        return _row(
            [
                self.timestamp,
                self.model,
                f"{self.first_token_ms:.2f}",
                f"{self.tokens_per_s:.2f}",
            ]
        )


def results_row(sample: Sample) -> str:
    """Return the nine-column row of a request; what the server left out is zero.

    A server that tells no total, as those with OpenAI's API, gets the client's latency.
    """
    total_ms = sample.total_duration_ms
    return _row(
        [
            whole_second(sample.started_at),
            sample.model,
            str(sample.number),
            f"{(sample.latency_ms if total_ms is None else total_ms) or 0:.2f}",
            str(sample.prompt_tokens),
            f"{sample.prompt_eval_ms or 0:.2f}",
            str(sample.gen_tokens),
            f"{sample.gen_eval_ms or 0:.2f}",
            f"{sample.tokens_per_s or 0:.2f}",
        ]
    )


def whole_second(timestamp: str) -> str:
    """Cut the fraction from a time in RFC 3339: the users' files have none."""
    return _FRACTION.sub("", timestamp)


def parse_baselines(text: str, path: str) -> dict[str, Baseline]:
    """Return the last row of each model.

    Raises:
        HostError: the file has another header, or a row that is no baseline.
    """
    lines = text.splitlines()
    if not lines:
        return {}
    if lines[0] != BASELINE_HEADER:
        raise HostError(
            f"{path} starts with {lines[0]!r}, wanted the header {BASELINE_HEADER!r}.",
            "Move the file away or name another one.",
        )
    found: dict[str, Baseline] = {}
    for number, fields in enumerate(csv.reader(lines[1:]), start=2):
        if not fields:
            continue
        try:
            timestamp, model, first_token_ms, rate = fields
            found[model] = Baseline(timestamp, model, float(first_token_ms), float(rate))
        except ValueError:
            raise HostError(
                f"{path} line {number} is {','.join(fields)!r}, wanted {BASELINE_HEADER}.",
                "Correct or remove the line.",
            ) from None
    return found


def read_baselines(path: str) -> dict[str, Baseline]:
    """Return the baselines that a file holds; a missing file holds none."""
    try:
        # Without O_NONBLOCK a named pipe in the file's place would hold the module up for ever.
        descriptor = _open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8") as stream:
            return parse_baselines(stream.read(), path)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"{path} cannot be read: {error}.") from error


def append_rows(path: str, header: str, rows: Iterable[str], mode: int = 0o644) -> None:
    """Append rows, and the header first when the file is new.

    Raises:
        HostError: the file has another header, or cannot be written.
    """
    lines = [f"{row}\n" for row in rows]
    if not lines:
        return
    try:
        descriptor = _open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            start = _header_state(descriptor, header, path)
            content = (start + "".join(lines)).encode()
            written = os.write(descriptor, content)
            if written != len(content):
                raise OSError(f"wrote {written} of {len(content)} bytes")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HostError(
            f"{path} cannot be written: {error}.", "Create its directory or free some space."
        ) from error


def append_baselines(path: str, baselines: Iterable[Baseline]) -> None:
    """Append baselines to their file."""
    append_rows(path, BASELINE_HEADER, [baseline.row() for baseline in baselines])


def append_results(path: str, samples: Iterable[Sample]) -> None:
    """Append one row per answered request to the results file."""
    rows = [results_row(sample) for sample in samples if not sample.error_kind]
    append_rows(path, RESULTS_HEADER, rows)


def baseline_of(model: str, timestamp: str, metrics: Mapping[str, Mapping]) -> Baseline | None:
    """Return the medians of a measurement as a baseline; None when a figure is missing."""
    first_token_ms = metrics["ttft_ms"]["median"]
    rate = metrics["tokens_per_s"]["median"]
    if first_token_ms is None or rate is None:
        return None
    return Baseline(whole_second(timestamp), model, first_token_ms, rate)


def _open(path: str, flags: int, mode: int = 0o644) -> int:
    """Open a regular file, and nothing else that stands in its place."""
    remedy = "Move it away or name another file."
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise HostError(f"{path} is a symbolic link, wanted a regular file.", remedy) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise HostError(f"{path} is no regular file, wanted one.", remedy)
    return descriptor


def _header_state(descriptor: int, header: str, path: str) -> str:
    """Return what has to be written before the rows."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return f"{header}\n"
    wanted = f"{header}\n".encode()
    found = os.pread(descriptor, len(wanted), 0)
    if found != wanted:
        first = found.decode("utf-8", "replace").splitlines()[0]
        raise HostError(
            f"{path} starts with {first!r}, wanted the header {header!r}.",
            "Move the file away or name another one.",
        )
    torn = os.pread(descriptor, 1, size - 1) != b"\n"  # a writer was killed inside its write
    return "\n" if torn else ""


def _row(fields: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow(fields)
    return stream.getvalue()
