# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An engine of the settings, and a session that talks to it within the limits of a run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from nightly_http import ExchangeError, Reply, exchange

KINDS = ("ollama", "openai")
# What has to answer before anything is asked, and where the models are listed.
READY = {"ollama": "/api/version", "openai": "/v1/models"}
LISTED = {"ollama": "/api/tags", "openai": "/v1/models"}
# Where a model is asked, by what is asked of it.
ASKED = {
    "generate": "/api/generate",
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
    "embeddings": "/v1/embeddings",
}
APIS = {"ollama": ("generate",), "openai": ("completions", "chat", "embeddings")}
# Ollama falls back to the CPU without a word. Of other engines it is judged where they are declared
# to compute on a GPU, for not all of them tell.
GPU_RATIO = {"ollama": 1.0, "openai": 0.0}
PAUSE_S = 1.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class SettingsError(Exception):
    """The settings say something that can't be done."""


@dataclass(frozen=True)
class Limits:
    """Seconds and tokens: one call, loading a model, waiting for an engine that is away."""

    call_s: float = 10.0
    load_s: float = 120.0
    wait_s: float = 120.0
    prompt: str = "Return exactly the text: HX-OK"
    max_tokens: int = 32


@dataclass(frozen=True)
class Engine:
    """An engine and what its models have to show.

    Attributes:
        name: its name in log, metrics and messages.
        kind: ``ollama`` or ``openai``.
        url: base address, without ``/v1``.
        models: names to ask; all that the engine lists when empty.
        key_file: file with the API key; empty without one.
        ca_path: certificates of the authorities to trust; the system's when empty.
        api: what is asked of an OpenAI-compatible engine.
        answer: text that an answer has to contain; any text will do when empty.
        min_gpu_ratio: least part of a model in GPU memory, 0 to 1; 0 does not judge it.
    """

    name: str
    kind: str
    url: str
    models: tuple[str, ...] = ()
    key_file: str = ""
    ca_path: str = ""
    api: str = ""
    answer: str = ""
    min_gpu_ratio: float = 1.0


def engine_from(entry: Mapping[str, Any], where: str) -> Engine:
    """Return an engine of the settings with its defaults filled in.

    Raises:
        SettingsError: a field is wrong; says which, the value found and the value wanted.
    """

    def refuse(field: str, wanted: str) -> None:
        raise SettingsError(f"{where}.{field} is {entry.get(field)!r}, wanted {wanted}")

    kind = entry.get("kind")
    if kind not in KINDS:
        refuse("kind", " or ".join(KINDS))
    name = str(entry.get("name") or kind)
    if not NAME.fullmatch(name):
        refuse("name", "letters, digits, '.', '_' and '-'")
    url = str(entry.get("url") or "")
    if not re.fullmatch(r"https?://[^/@]+(/[^@]*)?", url):
        refuse("url", "http://host:port or https://host:port, without a login")
    api = str(entry.get("api") or APIS[str(kind)][0])
    if api not in APIS[str(kind)]:
        refuse("api", " or ".join(APIS[str(kind)]))
    ratio = entry.get("min_gpu_ratio", GPU_RATIO[str(kind)])
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio <= 1:
        refuse("min_gpu_ratio", "a number from 0 to 1")
    models = entry.get("models") or []
    if not isinstance(models, list):
        refuse("models", "a list of names")
    names = [model.get("name") if isinstance(model, dict) else model for model in models]
    if not all(isinstance(item, str) and item for item in names):
        refuse("models", "names, or mappings with a name")
    return Engine(
        name=name,
        kind=str(kind),
        url=url.rstrip("/"),
        models=tuple(dict.fromkeys(str(item) for item in names)),
        key_file=str(entry.get("key_file") or ""),
        ca_path=str(entry.get("ca_path") or ""),
        api=api,
        answer=str(entry.get("answer") or ""),
        min_gpu_ratio=float(ratio),
    )


class Session:
    """Talks to one engine within the limits of a run.

    Args:
        engine: whom to ask.
        key: the API key; empty without one.
        limits: seconds and tokens.
        end: when the whole run has to be over, on the clock ``now``.
        send, now, sleep: how the world is reached; tests pass their own.
    """

    def __init__(
        self,
        engine: Engine,
        key: str,
        limits: Limits,
        end: float,
        *,
        send: Callable[..., Reply] = exchange,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.engine = engine
        self.limits = limits
        self.end = end
        self.now = now
        self.patience = limits.wait_s
        self._key = key
        self._send = send
        self._sleep = sleep

    def call(
        self,
        path: str,
        body: Any = None,
        seconds: float = 0.0,
        *,
        take: Callable[[bytes], bool] | None = None,
    ) -> Reply:
        """Send a GET, or a POST with JSON, and return an answer of status 200.

        Args:
            path: of the engine's API.
            body: what is sent as JSON; a GET without it.
            seconds: for the exchange; those of a call by default.
            take: gets the answer piece by piece, and returns True to end the exchange.

        Raises:
            ExchangeError: there is none in time, or it has another status.
        """
        left = self.end - self.now()
        if left <= 0:
            raise ExchangeError("budget", "not asked: the time for the whole run was over")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        data = b""
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        reply = self._send(
            "GET" if body is None else "POST",
            self.engine.url + path,
            data,
            headers,
            timeout_s=min(seconds or self.limits.call_s, left),
            ca_path=self.engine.ca_path,
            **({} if take is None else {"take": take}),
        )
        if reply.status != 200:
            said = f": {reply.snippet}" if reply.snippet else ""
            raise ExchangeError(
                "status", f"{path} answered status {reply.status}{said}", reply.status
            )
        return reply

    def wait_until_ready(self) -> None:
        """Wait until the engine answers, as long as its patience lasts; at least one look.

        Raises:
            ExchangeError: it doesn't answer, or it says that waiting won't help.
        """
        begin = self.now()
        try:
            while True:
                left = self.patience - (self.now() - begin)
                try:
                    self.call(
                        READY[self.engine.kind], seconds=min(self.limits.call_s, max(left, 1))
                    )
                    return
                except ExchangeError as trouble:
                    waits = trouble.away or trouble.kind == "timeout"
                    left = self.patience - (self.now() - begin)
                    if not waits or left <= 0:
                        raise
                self._sleep(min(PAUSE_S, left))
        finally:
            self.patience = max(0.0, self.patience - (self.now() - begin))

    def pause(self) -> None:
        """Let an engine that has just gone have a moment."""
        self._sleep(PAUSE_S)

    def models(self) -> list[str]:
        """Return the models to ask: those of the settings, or all that the engine lists.

        Raises:
            ExchangeError: the engine doesn't list any.
        """
        if self.engine.models:
            return list(self.engine.models)
        path = LISTED[self.engine.kind]
        key, name = ("models", "name") if self.engine.kind == "ollama" else ("data", "id")
        entries = self.call(path).object().get(key)
        if not isinstance(entries, list):
            raise ExchangeError("answer", f"{path} answered no list of models")
        names = [str(entry[name]) for entry in entries if isinstance(entry, dict) and name in entry]
        if not names:
            raise ExchangeError("answer", f"{path} lists no model, so that nothing was tested")
        return list(dict.fromkeys(names))
