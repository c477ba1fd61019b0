# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Named baselines, ``<directory>/<name>/<model>.json``: their content, and reading them.

A file holds what was measured of one model, one record per stage: what it was measured on, and
the figures of the single requests, so that a later measurement can be told from noise.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from urllib.parse import quote

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_metrics import (
    good_samples,
    values_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import CLOSED, Stage
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import evenly, median
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

SCHEMA = 1
MOST_VALUES = 2000
FILE_LIMIT = 32 * 2**20
NAME_LIMIT = 180  # bytes of an encoded model name; a file system takes 255 with suffixes
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ARRAYS = ("ttft_ms", "tpot_ms", "latency_ms", "tokens_per_s")
# Fields of an identity with which something is worked out; the others are only compared.
_KINDS = {
    "model": str,
    "shape": str,
    "concurrency": int,
    "rate": (int, float),
    "prompt_tokens": (int, type(None)),
}
_NO_BASELINE = (
    ArithmeticError,  # an integer that no float can hold
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
DAMAGED = "Set the baseline again, or remove the file."


@dataclass(frozen=True)
class Identity:
    """What was measured; two measurements are compared only when these agree.

    Attributes:
        model, model_digest: the model and the digest of its content.
        engine, engine_version, dialect, stream: who was asked, and how.
        shape, concurrency, rate: the stage; the rate in requests per second.
        prompt_kind: ``fixed``, ``file`` or ``synthetic``.
        prompt_digest: of the templates; empty for synthetic prompts.
        prompt_tokens: tokens of a prompt: as wanted for synthetic ones, else the median counted.
        max_tokens, think: what was asked for.
        extra_digest: of the further fields of a request; empty when there are none.
        unique_prompts: whether each request had a prompt of its own, which no cache holds.
        run_from: ``target`` or ``controller``: whether figures hold the network between them.
        gpus: names of the host's GPUs, in their order.
        driver: version of their driver.
    """

    model: str
    model_digest: str = ""
    engine: str = ""
    engine_version: str = ""
    dialect: str = ""
    stream: bool = True
    shape: str = CLOSED
    concurrency: int = 1
    rate: float = 0.0
    prompt_kind: str = ""
    prompt_digest: str = ""
    prompt_tokens: int | None = None
    max_tokens: int = 0
    think: bool = False
    extra_digest: str = ""
    unique_prompts: bool = True
    run_from: str = "target"
    gpus: tuple[str, ...] = ()
    driver: str = ""

    @property
    def stage(self) -> Stage:
        """Return the load, without its length."""
        return Stage(self.shape, self.concurrency, self.rate)


@dataclass(frozen=True)
class Record:
    """One measurement as a baseline keeps it.

    Attributes:
        identity: what was measured.
        recorded_at: start of the stage, RFC 3339.
        wall_s: its length.
        validity: what was thought of it: ``VALID`` or ``UNRELIABLE``.
        counts: per array how many values there were; more than it holds when it was thinned out.
        values: per name of ``ARRAYS`` one figure per answered request, in their order.
        gap_p99_ms: p99 of all gaps.
    """

    identity: Identity
    recorded_at: str
    wall_s: float
    validity: str
    counts: dict[str, int] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    gap_p99_ms: float | None = None


def arrays_of(measured: Measurement) -> dict[str, list[float]]:
    """Return the figures of the answered requests that baselines hold and comparisons take."""
    good = good_samples(measured)
    return {name: values_of(good, name) for name in ARRAYS}


def record_of(
    measured: Measurement,
    metrics: Mapping[str, Any],
    validity: Mapping[str, Any],
    identity: Identity,
    accept_unreliable: bool = False,
) -> Record:
    """Return a measurement as a record; arrays of more than 2,000 values are thinned out evenly.

    Raises:
        HostError: it can't be trusted, or holds no answered request.
    """
    what, state = f"{identity.model} ({identity.stage.label})", validity["state"]
    accepted = ("VALID", "UNRELIABLE") if accept_unreliable else ("VALID",)
    if state not in accepted:
        raise HostError(
            f"the measurement of {what} is {state}, wanted {' or '.join(accepted)} for a"
            f" baseline: {'; '.join(validity['reasons'])}.",
            "Remove the cause and measure again.",
        )
    arrays = arrays_of(measured)
    if not arrays["latency_ms"]:
        raise HostError(f"no request to {what} was answered, wanted at least one for a baseline.")
    return Record(
        identity=identity,
        recorded_at=measured.begun_at,
        wall_s=round(measured.wall_s, 3),
        validity=state,
        counts={name: len(values) for name, values in arrays.items()},
        values={
            name: [round(value, 3) for value in evenly(values, MOST_VALUES)]
            for name, values in arrays.items()
        },
        gap_p99_ms=metrics["gap_ms"]["p99"],
    )


def check_name(name: str, what: str) -> None:
    """Refuse what is no name of a baseline."""
    if not NAME.fullmatch(name):
        raise HostError(
            f"{what} is named {name!r}, wanted at most 64 letters, digits and ._- that start with"
            " a letter or digit."
        )


def file_name(model: str) -> str:
    """Return the name of a model's file: its bytes beyond letters, digits and ``_.-~`` as %XX."""
    encoded = quote(model, safe="")
    if len(encoded) > NAME_LIMIT:
        encoded = f"{encoded[:NAME_LIMIT]}-{hashlib.sha256(model.encode()).hexdigest()[:16]}"
    return f"{encoded}.json"


def render(records: Sequence[Record]) -> bytes:
    """Return the content of a file; the same records give the same bytes."""
    ordered = sorted(records, key=_stage_key)
    content = {
        "schema": SCHEMA,
        "model": ordered[0].identity.model,
        "measured": [asdict(record) for record in ordered],
    }
    return (json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n").encode()


def parse(data: bytes, path: str) -> list[Record]:
    """Read the content of a file.

    Raises:
        HostError: it is no baseline.
    """
    try:
        content = json.loads(data)
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r}, wanted {SCHEMA}")
        records = [_record(entry) for entry in content["measured"]]
        if not records or any(item.identity.model != content["model"] for item in records):
            raise ValueError("no measurement, or one of another model")
        wanted = file_name(content["model"])
        if os.path.basename(path) != wanted:
            raise ValueError(f"of {content['model']}, wanted the name {wanted}")
    except _NO_BASELINE as error:
        raise HostError(f"{path} is no baseline: {error!r}.", DAMAGED) from error
    return records


def read_file(path: str) -> bytes | None:
    """Return the content of a file, None when there is none; a link is not followed."""
    # Without O_NONBLOCK a named pipe in the file's place would hold the reader up for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "rb") as stream:
            info = os.fstat(stream.fileno())
            if stat.S_ISREG(info.st_mode) and info.st_size <= FILE_LIMIT:
                return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):
            raise HostError(f"{path} cannot be read: {error}.") from error
    raise HostError(f"{path} is no regular file of at most {FILE_LIMIT} bytes.", DAMAGED)


def read_baseline(directory: str, name: str, model: str) -> list[Record]:
    """Return what a named baseline holds of a model; nothing when it isn't there."""
    check_name(name, "baseline")
    path = os.path.join(directory, name, file_name(model))
    data = read_file(path)
    return [] if data is None else parse(data, path)


def find(records: Sequence[Record], stage: Stage) -> Record | None:
    """Return the record that was measured under a stage's shape, concurrency and rate."""
    wanted = Stage(stage.shape, stage.concurrency, stage.rate)
    return next((record for record in records if record.identity.stage == wanted), None)


def merged(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """Return records with those of the same stage replaced."""
    kept = {record.identity.stage: record for record in (*old, *new)}
    return list(kept.values())


def line_of(record: Record) -> str:
    """Say in one line what a record holds."""
    figures = [
        f"{label} {_figure(median(record.values[name]))} {unit}"
        for name, label, unit in (("ttft_ms", "TTFT", "ms"), ("tokens_per_s", "rate", "tokens/s"))
    ]
    identity = record.identity
    return (
        f"{identity.model}, {identity.stage.label}: {', '.join(figures)}"
        f" ({record.counts['latency_ms']} requests, {record.recorded_at})"
    )


def _figure(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"


def _stage_key(record: Record) -> tuple[str, int, float]:
    identity = record.identity
    return identity.shape, identity.concurrency, identity.rate


def _record(entry: Mapping[str, Any]) -> Record:
    known = {item.name for item in fields(Identity)}
    told = {name: value for name, value in entry["identity"].items() if name in known}
    identity = Identity(**{**told, "gpus": tuple(told["gpus"])})
    for item, kinds in _KINDS.items():
        if not isinstance(getattr(identity, item), kinds):
            raise TypeError(f"{item} is {getattr(identity, item)!r}")
    gap = entry["gap_p99_ms"]
    return Record(
        identity=identity,
        recorded_at=str(entry["recorded_at"]),
        wall_s=float(entry["wall_s"]),
        validity=str(entry["validity"]),
        counts={name: int(entry["counts"][name]) for name in ARRAYS},
        values={name: [_finite(value) for value in entry["values"][name]] for name in ARRAYS},
        gap_p99_ms=None if gap is None else _finite(gap),
    )


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no figure")
    return float(value)
