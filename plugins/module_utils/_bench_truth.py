# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What the server itself says about a stage, held against what the client measured.

vLLM keeps histograms since its start: a snapshot before the stage is taken from one after it.
Ollama tells durations with each answer. Where the two sides count different requests nothing is
subtracted, and ``explained`` says so.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import OLLAMA
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Sample
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import mean

BODY_LIMIT = 16 * 2**20
MS = 1e3
TTFT, ITL, QUEUE = "ttft", "itl", "queue"
# Ours: vLLM's name, then that of versions before 0.12.
METRICS = {
    TTFT: ("vllm:time_to_first_token_seconds",),
    ITL: ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    QUEUE: ("vllm:request_queue_time_seconds",),
}
_LINE = re.compile(r"^(vllm:\w+?)_(bucket|sum|count)(?:\{(.*)\})? (\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Get = Callable[[str], "tuple[int, bytes]"]


@dataclass(frozen=True)
class Histogram:
    """A histogram of Prometheus, in seconds; buckets are cumulative, by upper limit."""

    count: float = 0.0
    total: float = 0.0
    buckets: Mapping[float, float] = field(default_factory=dict)

    def since(self, before: Histogram) -> Histogram:
        """Return what has been added."""
        buckets = {
            limit: count - before.buckets.get(limit, 0.0) for limit, count in self.buckets.items()
        }
        return Histogram(self.count - before.count, self.total - before.total, buckets)

    @property
    def mean_ms(self) -> float | None:
        """Return the mean, which is exact."""
        return self.total / self.count * MS if self.count > 0 else None

    @property
    def median_ms(self) -> float | None:
        """Return the median, interpolated within its bucket as Prometheus' histogram_quantile."""
        rank, low, below = self.count / 2, 0.0, 0.0
        for limit in sorted(self.buckets):
            count = self.buckets[limit]
            if self.count > 0 and count >= rank and count > below:
                if limit == float("inf"):
                    return low * MS
                return (low + (limit - low) * (rank - below) / (count - below)) * MS
            low, below = limit, count
        return None


@dataclass(frozen=True)
class Snapshot:
    """vLLM's histograms at one moment.

    Attributes:
        found: by ``TTFT``, ``ITL``, ``QUEUE``.
        names: values of the label ``model_name``.
        why: why there are none; empty when there are.
    """

    found: Mapping[str, Histogram] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    why: str = ""


def getter(
    url: str,
    headers: Sequence[tuple[str, str]] = (),
    ca_path: str | None = None,
    validate_certs: bool = True,
    timeout_s: float = 5.0,
) -> Get:
    """Return a function that GETs a path below a base URL: (status, body), or raises OSError."""
    parts = urlsplit(url)

    def get(path: str) -> tuple[int, bytes]:
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca_path)
            if not validate_certs:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            wire: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=timeout_s, context=context
            )
        else:
            wire = http.client.HTTPConnection(host, port, timeout=timeout_s)
        try:
            wire.request("GET", parts.path.rstrip("/") + path, headers=dict(headers))
            answer = wire.getresponse()
            return answer.status, answer.read(BODY_LIMIT)
        except http.client.HTTPException as error:
            raise OSError(str(error) or type(error).__name__) from error
        finally:
            wire.close()

    return get


def snapshot(get: Get, model: str) -> Snapshot:
    """Read vLLM's histograms of a model; what keeps it from that is in ``why``.

    vLLM labels by the first name that it serves a model under. A model that is asked for by
    another name is found when the server has only one.
    """
    try:
        status, body = get("/metrics")
    except OSError as error:
        return Snapshot(why=f"GET /metrics: {error}")
    if status != 200:
        return Snapshot(why=f"GET /metrics answered {status}")
    series = _series(body.decode("utf-8", "replace"))
    names = tuple(sorted({name for _metric, name in series}))
    if not names:
        return Snapshot(why="GET /metrics has no histogram of vLLM")
    if model in names or len(names) == 1:
        label = model if model in names else names[0]
    else:
        return Snapshot(
            names=names,
            why=f"GET /metrics knows {', '.join(names)}, not {model}",
        )
    found = {}
    for ours, theirs in METRICS.items():
        present = [series[name, label] for name in theirs if (name, label) in series]
        if present:
            found[ours] = present[0]
    return Snapshot(found, names)


def server_truth(
    samples: Sequence[Sample],
    dialect: str,
    before: Snapshot | None = None,
    after: Snapshot | None = None,
) -> dict[str, Any]:
    """Return ``server_truth`` of a result.

    Args:
        samples: the measured requests of the stage, failed ones too.
        dialect: how they were asked.
        before: snapshot right before the stage; not needed for Ollama's own dialects.
        after: snapshot right after it.
    """
    if dialect in OLLAMA:
        return _ollama(samples)
    for taken in (before, after):
        if taken is None or taken.why:
            why = taken.why if taken is not None else "no snapshot was taken"
            return _truth("none", f"The server's own times are not known: {why}.")
    return _vllm(samples, before, after)  # type: ignore[arg-type]


def _vllm(samples: Sequence[Sample], before: Snapshot, after: Snapshot) -> dict[str, Any]:
    grown = {
        name: histogram.since(before.found.get(name, Histogram()))
        for name, histogram in after.found.items()
    }
    ttft, itl = grown.get(TTFT, Histogram()), grown.get(ITL, Histogram())
    queue = grown.get(QUEUE, Histogram())
    ours = [
        sample.ttft_ms - (sample.dispatch_lag_ms or 0.0)
        for sample in samples
        if sample.ttft_ms is not None
    ]
    figures = {
        "ttft_ms": ttft.mean_ms,
        "ttft_median_ms": ttft.median_ms,
        "itl_ms": itl.mean_ms,
        "itl_median_ms": itl.median_ms,
        "queue_ms": queue.mean_ms,
        "requests": int(ttft.count),
    }
    if ttft.count < 0 or itl.count < 0:
        return _truth("vllm", "vLLM was restarted during the stage: its histograms began anew.")
    if not ours:
        return _truth("vllm", "No answer was streamed, so there is no TTFT to compare.", **figures)
    if ttft.count != len(ours):
        text = (
            f"Not subtracted: vLLM counted {ttft.count:g} first tokens, {len(ours)} were ours;"
            f" {'other clients were served' if ttft.count > len(ours) else 'some are not in it'}."
        )
        return _truth("vllm", text, **figures)
    text = (
        "Means of the same requests. vLLM counts from its acceptance of a request to the first"
        " token in its API process; the difference holds connection and network, reading and"
        " tokenizing the request as far as it comes before that, writing the first piece, and the"
        " client's own error. Queueing and prefill are inside both."
    )
    return _truth("vllm", text, difference=mean(ours) - ttft.mean_ms, **figures)


def _ollama(samples: Sequence[Sample]) -> dict[str, Any]:
    told = [
        sample for sample in samples if not sample.error_kind and sample.prompt_eval_ms is not None
    ]
    if not told:
        return _truth("none", "No answer told its durations.")
    itl = [one.gen_eval_ms / one.gen_tokens for one in told if one.gen_eval_ms and one.gen_tokens]
    whole = [one for one in told if one.total_duration_ms is not None]
    beside = [
        one.total_duration_ms - (one.load_ms or 0.0) - one.prompt_eval_ms - (one.gen_eval_ms or 0.0)
        for one in whole
    ]
    outside = [
        one.latency_ms - (one.dispatch_lag_ms or 0.0) - one.total_duration_ms
        for one in whole
        if one.latency_ms is not None
    ]
    figures = {
        "ttft_ms": mean([(one.load_ms or 0.0) + one.prompt_eval_ms for one in told]),
        "itl_ms": mean(itl),
        "queue_ms": mean(beside),
        "requests": len(told),
        "client_minus_server_latency_ms": mean(outside),
    }
    differences = [
        one.ttft_ms - (one.dispatch_lag_ms or 0.0) - (one.load_ms or 0.0) - one.prompt_eval_ms
        for one in told
        if one.ttft_ms is not None
    ]
    if not differences:
        text = "No answer was streamed, so there is no TTFT to compare."
        return _truth("ollama", text, **figures)
    text = (
        f"Means over {len(told)} answers by their own account: load_duration +"
        " prompt_eval_duration against TTFT. The difference holds network, the wait for a free"
        " slot, choosing and writing the first token, and the client's own error; queue_ms is what"
        " total_duration has beside loading, prompt and generation."
    )
    return _truth("ollama", text, difference=mean(differences), **figures)


def _truth(
    engine: str, explained: str, difference: float | None = None, **figures: Any
) -> dict[str, Any]:
    known: dict[str, Any] = {"ttft_ms": None, "itl_ms": None, "requests": None, **figures}
    return {
        "engine": engine,
        **{
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in known.items()
        },
        "client_minus_server_ttft_ms": None if difference is None else round(difference, 3),
        "explained": explained,
    }


def _series(text: str) -> dict[tuple[str, str], Histogram]:
    """Return histograms by metric and model, summed over the engines of a server."""
    wanted = {name for names in METRICS.values() for name in names}
    sums: dict[tuple[str, str], dict[Any, float]] = {}
    for metric, part, labels, value in _LINE.findall(text):
        if metric not in wanted:
            continue
        label = dict(_LABEL.findall(labels))
        into = sums.setdefault((metric, label.get("model_name", "")), {})
        try:
            key = float(label["le"]) if part == "bucket" else part
            into[key] = into.get(key, 0.0) + float(value)
        except (KeyError, ValueError):
            continue
    return {
        key: Histogram(
            into.get("count", 0.0),
            into.get("sum", 0.0),
            {limit: count for limit, count in into.items() if isinstance(limit, float)},
        )
        for key, into in sums.items()
    }
