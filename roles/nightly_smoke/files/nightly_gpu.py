# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hold what an engine says about the GPU against what the cards show while a model generates.

It may say that a model lies in GPU memory while the processors compute it. So the model is made
to talk on, and a child reads the cards meanwhile. A driver that hangs costs the readings and never
the run: the child is killed. The judgement and the child's program are those of the collection,
see ``_gpu_used``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

from nightly_http import SNIPPET, ExchangeError, within
from nightly_session import ASKED, Engine, Session

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_used
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import (
    PERIOD_S,
    Claim,
    Limits,
    Owners,
    Seen,
    judge_used,
    seen_between,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_engines import (
    OLLAMA,
    OLLAMA_TOKENS,
    PROMPT,
    VLLM,
    VLLM_TOKENS,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import is_local, resolve

PROGRAMS = Path(_gpu_used.__file__).parent
CHILD, READERS = PROGRAMS / "_bench_sampler_child.py", PROGRAMS / "_gpu_nvml_child.py"
READINGS = ("utilization", "memory", "processes")
STEP_S = 0.2  # between two readings through NVML; the shortest average of a card is 1/6 s
SMI_STEP_S = 1.0  # between two runs of nvidia-smi, each of which opens the driver anew
LOOK_S = 0.1  # between two looks at what the child wrote
SETTLE_S = 3.0  # for a driver to open
LEAST_S = 3.0  # of work: to begin, a second that doesn't count, one until an idle card is told so
RESOLVE_S = 5.0
PATIENCE_S = 2.0  # for a child to end, and for one that was killed

# The engines' programs that compute. Whose process listens is hidden from the account of the test.
OWNERS, VLLM_OWNERS = Owners(names=OLLAMA.names), Owners(names=VLLM.names)
TOLD = {"ollama": "/api/ps", "openai": "/metrics"}  # where an engine says what it has on a GPU


@dataclass(frozen=True)
class Watching:
    """How to look at the cards.

    Attributes:
        python: an interpreter with nvidia-ml-py.
        declared: whether the host is declared to have GPUs, so that not seeing them is a failure.
        seconds: how long a model is kept generating at most.
    """

    python: str
    declared: bool = False
    seconds: float = 10.0


class Sampler:
    """The child that reads the cards, alive within a ``with``.

    Args:
        python: an interpreter with nvidia-ml-py; where there is none, nvidia-smi is asked.
        limit_s: the child ends by itself after it.
    """

    def __init__(self, python: str, limit_s: float) -> None:
        self._python = python
        self._limit_s = limit_s
        self._failed = ""
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sampler:
        # A file, as nobody would empty a pipe while an answer is read.
        self._out = tempfile.TemporaryFile()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_raised: object) -> None:
        self._end()
        self._out.close()

    def lines(self) -> list[dict[str, Any]]:
        """Return what was written so far."""
        handle = self._out.fileno()
        data = os.pread(handle, os.fstat(handle).st_size, 0)
        return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]

    def unreadable(self) -> str:
        """Say why the cards can't be read; empty when they can."""
        if self._failed:
            return self._failed
        states = [str(line["state"]) for line in self.lines() if "source" in line]
        if not states:
            return f"the driver has not answered within {SETTLE_S:g} s"
        word, _colon, why = states[0].partition(": ")
        return why if word == "none" else ""

    def _start(self) -> None:
        for python in (self._python, sys.executable):
            try:
                self._open(python, nvml=python == self._python)
            except OSError as error:
                self._end()
                self._failed = f"{python}: {error.strerror or error}"
                continue
            self._settle()
            return

    def _open(self, python: str, nvml: bool) -> None:
        gpu = {
            "nvml": nvml,
            "readers": READERS.read_text(encoding="utf-8") if nvml else "",
            "readings": READINGS,
            "smi": shutil.which("nvidia-smi") or "",
            "smi_step_s": SMI_STEP_S,
            "why": self._failed,
        }
        settings = {"sources": ["gpu"], "step_s": STEP_S, "limit_s": self._limit_s, "gpu": gpu}
        self._child = subprocess.Popen(
            [python, "-I", "-B", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=self._out,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )
        self._child.stdin.write(json.dumps(settings).encode() + b"\n")  # type: ignore[union-attr]
        self._failed = ""

    def _settle(self) -> None:
        """Wait until the driver is open: what that takes must not fall into the answer."""
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end and not self.lines():
            status = self._child.poll()  # type: ignore[union-attr]
            if status is not None:
                self._failed = f"what reads the GPUs ended with status {status}"
                return
            time.sleep(0.02)

    def _end(self) -> None:
        """Close the child's input, at which it ends; kill it with its own children if it doesn't.

        One that a driver holds in the kernel is left behind.
        """
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(OSError):
            child.stdin.close()  # type: ignore[union-attr]
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE_S)


class Cards:
    """The cards of this host, looked at model by model.

    Args:
        watching: how.
        sampler: makes what reads them; tests pass their own.
    """

    def __init__(self, watching: Watching, sampler: Callable[[str, float], Any] = Sampler) -> None:
        self._watching = watching
        self._sampler = sampler
        self._why = ""

    def look(self, session: Session, asked: Mapping[str, Any], claim: Claim) -> Verdict:
        """Let a model generate and judge whether a GPU computes it: PASS, or WARN, or FAIL.

        Args:
            session: the engine.
            asked: a request for the model, without what it is asked.
            claim: what the engine says about the model.

        Raises:
            ExchangeError: the model doesn't generate.
        """
        away = _elsewhere(session.engine.url)
        limits = Limits(session.engine.min_gpu_ratio, self._watching.declared and not away)
        model = str(asked["model"])
        owners = OWNERS if session.engine.kind == "ollama" else VLLM_OWNERS

        def judge(seen: Seen) -> Verdict:
            return judge_used(model, claim, seen, owners, limits)

        why = away or self._why
        seen = Seen(why=why) if why else self._seen(session, asked, judge)
        verdict = judge(seen)
        if verdict.status == WARN and not seen.samples:
            evidence = f"{verdict.evidence}; GPUs are declared and have to be readable"
            return replace(verdict, status=FAIL, evidence=evidence)
        return verdict

    def _seen(
        self, session: Session, asked: Mapping[str, Any], judge: Callable[[Seen], Verdict]
    ) -> Seen:
        seconds = self._watching.seconds
        if session.end - session.now() < LEAST_S:
            said = "the GPUs were not watched: the time for the whole run was over"
            raise ExchangeError("budget", said)
        with self._sampler(self._watching.python, seconds + 60.0) as sampler:
            why = sampler.unreadable()
            if why:
                self._why = why  # not every model has to wait for a driver that hangs
                return Seen(why=why)
            talk = _Talk(session.now, sampler.lines, judge)
            generate(session, asked, talk, seconds)
            if talk.watched_s < PERIOD_S:
                return talk.seen("it generated too late or too briefly to tell")
            seen = talk.seen(f"no reading came within {seconds:g} s")
            self._why = seen.why
            return seen


def generate(session: Session, asked: Mapping[str, Any], talk: _Talk, seconds: float) -> None:
    """Ask for long answers, one after the other, until enough was seen or the time is over.

    Raises:
        ExchangeError: no answer began, or one broke off.
    """
    path, body = ASKED[session.engine.api], long_question(session.engine, asked)
    end = min(session.now() + seconds, session.end)
    while not talk.enough and (left := end - session.now()) > 0:
        before = talk.pieces
        try:
            session.call(path, body, left, take=talk.take)
            if talk.pieces == before:
                raise ExchangeError("answer", "the answer is empty")
        except ExchangeError as trouble:
            late = trouble.kind == "timeout"
            if late and talk.pieces:
                return
            what = f"no token came within {seconds:g} s" if late else str(trouble)
            said = f"while the GPUs were watched: {what}"
            raise ExchangeError(trouble.kind, said, trouble.status) from trouble


def long_question(engine: Engine, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's request for a long, streamed answer."""
    if engine.kind == "ollama":
        options = {"temperature": 0, "num_predict": OLLAMA_TOKENS}
        return {**asked, "prompt": PROMPT, "think": False, "stream": True, "options": options}
    body = {**asked, "max_tokens": VLLM_TOKENS, "temperature": 0, "stream": True}
    if engine.api == "chat":
        return {**body, "messages": [{"role": "user", "content": PROMPT}]}
    return {**body, "prompt": PROMPT}


def not_asked(engine: Engine, silent: bool = False) -> str:
    """Say that an engine is taken at its word.

    Args:
        engine: it.
        silent: whether the reason is that the model makes no text.
    """
    why = ": it makes no text that lasts long enough" if silent else ""
    return f"by {TOLD[engine.kind]} alone, the GPUs were not asked{why}"


class _Talk:
    """A generation and what the cards showed from its first piece to its last."""

    def __init__(
        self,
        now: Callable[[], float],
        lines: Callable[[], list[dict[str, Any]]],
        judge: Callable[[Seen], Verdict],
    ) -> None:
        self.pieces = 0
        self.enough = False
        self._now = now
        self._lines = lines
        self._judge = judge
        self._first = self._last = self._looked = 0.0

    def take(self, piece: bytes) -> bool:
        """Take a piece of an answer; tell whether no more is needed.

        Raises:
            ExchangeError: it is an error.
        """
        if b'{"error"' in piece:
            said = " ".join(piece[:SNIPPET].decode("utf-8", "replace").split())
            raise ExchangeError("answer", f"an error inside status 200: {said}")
        self._last = self._now()
        if not self.pieces:
            self._first = self._last
        self.pieces += 1
        if self._last - self._looked >= LOOK_S:
            self._looked = self._last
            seen = self.seen()
            self.enough = bool(seen.samples) and self._judge(seen).status == PASS
        return self.enough

    @property
    def watched_s(self) -> float:
        """Return for how long readings have counted."""
        return self._last - self._first - PERIOD_S

    def seen(self, why: str = "") -> Seen:
        """Return what the cards showed, or why that isn't known.

        Their averages of the first period may still be of the model before, or of the loading.
        """
        return seen_between(self._lines(), self._first + PERIOD_S, self._last, why)


def _elsewhere(url: str) -> str:
    """Say why the GPUs of this host are not those of an engine; empty when they are."""
    host = urlsplit(url).hostname or ""
    try:
        addresses = within(RESOLVE_S, lambda: resolve(host))
    except ExchangeError:
        addresses = ()
    if any(is_local(address) for address in addresses):
        return ""
    return f"the engine at {host} is not on this host"
