# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Token generation on the declared schedule."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from sim_ollama.errors import ApiError, TruncatedStreamError
from sim_ollama.runner import Cancelled, Runner
from sim_ollama.schedule import model_values, schedule_for
from sim_ollama.scheduler import wait_for_slot
from sim_ollama.settings import Settings

EXACT = re.compile(r"Return exactly the text:[ \t]*([^\n]*)")
TOKEN = re.compile(r"\s?\S{1,4}|\s")
SLICE_SECONDS = 0.05
GPU_UTILISATION = 97
TEMPLATE_TOKENS = 8
WORDS = [
    "the",
    "store",
    "disk",
    "model",
    "host",
    "check",
    "service",
    "token",
    "path",
    "layer",
    "answer",
    "queue",
    "memory",
    "unit",
    "run",
    "plan",
    "report",
    "phase",
    "limit",
    "value",
    "after",
    "before",
    "while",
    "under",
    "every",
    "small",
    "quiet",
    "clear",
]


class Piece(NamedTuple):
    """One token as it comes out."""

    text: str
    thinking: bool


class Result(NamedTuple):
    """The measures of a finished answer; seconds are what really went by."""

    reason: str
    prompt_tokens: int
    prompt_seconds: float
    tokens: int
    seconds: float


class Job(NamedTuple):
    """One answer to generate."""

    runner: Runner
    prompt: str
    question: str
    options: dict[str, Any]
    think: bool
    json_format: bool = False


def count_tokens(text: str) -> int:
    """Return how many tokens a text counts."""
    return len(TOKEN.findall(text))


def plan_answer(job: Job, settings: Settings, natural: int) -> tuple[list[Piece], str]:
    """Return the tokens of the answer and why it ends; the same question gives the same answer."""
    values = model_values(settings, job.runner.model.name, job.runner.model.manifest.size)
    exact = EXACT.search(job.question)
    fixed: str | None = settings.fault("wrong_answer") or values.get("answer_text")
    if fixed is None and exact:
        fixed = exact.group(1).strip()
    if fixed is None and job.json_format:
        fixed = '{"answer": "ok"}'
    pieces = []
    if job.think:
        thought = "The user wants an answer, so here it is."
        pieces += [Piece(text, True) for text in TOKEN.findall(thought)]
    if fixed is None:
        rng = random.Random(_seed(job, settings))
        length = max(1, round(natural * rng.uniform(0.8, 1.2)))
        limit = _limit(job)
        length = limit if values.get("fill_answers", True) and limit else length
        words = [rng.choice(WORDS) for _turn in range(length)]
        pieces += [Piece(w if i == 0 else f" {w}", False) for i, w in enumerate(words)]
    else:
        pieces += [Piece(text, False) for text in TOKEN.findall(fixed)]
    limit = _limit(job)
    if limit and len(pieces) >= limit and (fixed is None or len(pieces) > limit):
        return pieces[:limit], "length"
    return pieces, "stop"


def generate(job: Job, settings: Settings, cancelled: Cancelled) -> Iterator[object]:
    """Yield Pieces at their times, then one Result."""
    runner = job.runner
    wait_for_slot(runner, cancelled)
    ticket = object()
    try:
        yield from _generate(job, settings, cancelled, ticket)
    finally:
        runner.finished(ticket)
        runner.slots.release()


def _generate(
    job: Job, settings: Settings, cancelled: Cancelled, ticket: object
) -> Iterator[object]:
    runner = job.runner
    model = runner.model
    timing = schedule_for(settings, model.name, model.manifest.size, runner.gpu_share)
    pieces, reason = plan_answer(job, settings, timing.answer_tokens)
    intervals = timing.intervals(len(pieces), _seed(job, settings))
    prompt_tokens = count_tokens(job.prompt) + TEMPLATE_TOKENS
    cached = job.prompt == runner.last_prompt
    runner.last_prompt = job.prompt
    started = time.monotonic()
    first = started + timing.prompt_seconds(1 if cached else prompt_tokens)
    until = time.time() + (first - started) + sum(intervals)
    runner.computing(ticket, until, GPU_UTILISATION)
    _sleep_until(first, cancelled)
    prompt_end = time.monotonic()
    broken = settings.fault("truncated_stream") or {}
    due = prompt_end
    for index, piece in enumerate(pieces):
        if broken and index >= int(broken.get("after_tokens", 3)):
            raise TruncatedStreamError(str(broken.get("mode", "cut")))
        yield piece
        due += intervals[index]
        _sleep_until(due, cancelled)
    # What the simulated GPU took: that this machine's processors were busy is no part of it.
    yield Result(reason, prompt_tokens, prompt_end - started, len(pieces), sum(intervals))


def _limit(job: Job) -> int:
    value = job.options.get("num_predict")
    if not isinstance(value, (int, float)) or value <= 0:
        value = job.runner.model.params.get("num_predict", 0)
    return max(0, int(value))


def _seed(job: Job, settings: Settings) -> int:
    parts = (
        settings.data().get("seed", 0),
        job.options.get("seed", 0),
        job.runner.model.name,
        job.prompt,
    )
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


def _sleep_until(moment: float, cancelled: Cancelled) -> None:
    while True:
        left = moment - time.monotonic()
        if cancelled():
            raise ApiError(499, "request canceled")
        if left <= 0:
            return
        time.sleep(min(left, SLICE_SECONDS))
