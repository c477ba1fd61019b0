# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A thin client of Ollama's HTTP API: what is needed to manage models."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import (
    HostError,
    UnreachableError,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    ModelName,
    parse_name,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import (
    Exchange,
    OnProgress,
    Watch,
    follow_pull,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Answer, Http

SHORT_S = 30.0  # answers that need no work; the server may still be discovering its GPUs
SILENCE_S = 86400.0  # a pull is watched by its bytes, and says nothing while it hashes a blob
LOAD_S = 600.0  # loading a large model from a cold disk and answering once
UNLOAD_S = 30.0  # a model goes when the requests that it answers have ended
PROOF_PROMPT = "Return exactly the text: HX-OK"
PROOF_TOKENS = 8
_LOOK_S = 0.1  # between two looks whether a model is still loaded


class OllamaApi:
    """Calls of one Ollama server.

    Args:
        url: base URL such as ``http://127.0.0.1:11434``.
        http: the HTTP function.
        deadline: clock reading at which work has to be over; None for no limit.
        clock: monotonic seconds.
        watch: when to give up, instead of the deadline alone.
        sleep: waits some seconds.
    """

    def __init__(
        self,
        url: str,
        http: Http,
        *,
        deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        watch: Watch | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = http
        self._watch = watch or Watch(deadline=deadline, clock=clock)
        self._sleep = sleep

    def version(self) -> str:
        """Return the version of the running server."""
        return str(self._json("GET", "/api/version").get("version", ""))

    def tags(self) -> dict[str, str]:
        """Return the digest of each model that the server lists, by the key of its name."""
        return self._listed("/api/tags")

    def loaded(self) -> dict[str, str]:
        """Return the digest of each model that lies in memory, by the key of its name."""
        return self._listed("/api/ps")

    def pull(
        self,
        name: ModelName,
        *,
        insecure: bool,
        on_progress: OnProgress,
        on_stall: Callable[[int], None] = lambda _seconds: None,
    ) -> None:
        """Download a model; the server resumes what an earlier pull left.

        Args:
            name: the model.
            insecure: whether its registry speaks plain HTTP.
            on_progress: called with status, bytes done and bytes in total.
            on_stall: called with the seconds since the last new byte, now and then.

        Raises:
            HostError: the pull failed or stalled, or it is not over at the deadline.
        """
        body = {"model": str(name), "insecure": insecure, "stream": True}
        what = f"pulling {name}"
        try:
            with self._exchange("/api/pull", body, SILENCE_S, what) as exchange:
                status = exchange.answer().status
                if status != 200:
                    raise HostError(f"{what} failed: {_error_text(status, exchange.read())}.")
                follow_pull(exchange, name, self._watch, on_progress, on_stall)
        except OSError as error:
            raise HostError(f"{what} failed: {self.url}/api/pull: {error}.") from error

    def copy(self, source: ModelName, target: ModelName) -> None:
        """Give a model a further name; the digest stays and no disk space is used."""
        body = {"source": str(source), "destination": str(target)}
        self._done(self._send("POST", "/api/copy", body, SHORT_S), f"copying {source} to {target}")

    def delete(self, name: ModelName) -> None:
        """Remove a model and the blobs that no other one uses; being gone already is no error."""
        answer = self._send("DELETE", "/api/delete", {"model": str(name)}, SHORT_S)
        if answer.status == 404:
            answer.close()
            return
        self._done(answer, f"removing {name}")

    def prove(self, name: ModelName) -> float:
        """Let a model answer one short prompt and return the seconds that it took.

        Raises:
            HostError: it did not answer.
            UnreachableError: the server didn't.
        """
        clock = self._watch.clock
        started = clock()
        body = {
            "model": str(name),
            "prompt": PROOF_PROMPT,
            "stream": False,
            "options": {"temperature": 0, "num_predict": PROOF_TOKENS},
        }
        status, text = self._ask("/api/generate", body, f"prompting {name}")
        if status == 400:  # also the answer of a model that only embeds
            request = {"model": str(name), "input": PROOF_PROMPT}
            status, text = self._ask("/api/embed", request, f"prompting {name}")
            answered = bool(_result(status, text, f"prompting {name}").get("embeddings"))
        else:
            result = _result(status, text, f"prompting {name}")
            answered = bool(result.get("done")) and int(result.get("eval_count") or 0) > 0
        if not answered:
            raise HostError(f"prompting {name} failed: the answer is empty.")
        return clock() - started

    def unload(self, name: ModelName) -> bool:
        """Take a model out of memory and say whether it went.

        A model that answers requests stays until they have ended, or the time is up.

        Raises:
            HostError: the server refuses, or it is time to give up.
        """
        body = {"model": str(name), "keep_alive": 0, "stream": False}
        self._done(self._send("POST", "/api/generate", body, SHORT_S), f"unloading {name}")
        end = self._watch.clock() + UNLOAD_S
        while name.key in self.loaded():
            if self._watch.clock() >= end:
                return False
            self._watch.check(f"unloading {name}")
            self._sleep(_LOOK_S)
        return True

    def _listed(self, path: str) -> dict[str, str]:
        listed = self._json("GET", path).get("models") or []
        return {parse_name(item["name"]).key: str(item.get("digest", "")) for item in listed}

    def _ask(self, path: str, body: Any, what: str) -> tuple[int, bytes]:
        """Post a request that takes its time; return status and body of the answer."""
        try:
            with self._exchange(path, body, LOAD_S, what) as exchange:
                status = exchange.answer().status
                return status, exchange.read()
        except OSError as error:
            raise HostError(f"{what} failed: {error}.") from error

    def _exchange(self, path: str, body: Any, timeout: float, what: str) -> Exchange:
        return Exchange(lambda: self._send("POST", path, body, timeout), self._watch, what)

    def _json(self, method: str, path: str) -> dict[str, Any]:
        return self._done(self._send(method, path, None, SHORT_S), f"{method} {self.url}{path}")

    def _send(self, method: str, path: str, body: Any, timeout: float) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        try:
            timeout = self._watch.seconds(timeout)
            return self._http(method, f"{self.url}{path}", data, headers, timeout)
        except OSError as error:
            raise UnreachableError(
                f"the Ollama API at {self.url} doesn't answer {method} {path}: {error}.",
                "Check that the service runs and listens there.",
            ) from error

    def _done(self, answer: Answer, what: str) -> dict[str, Any]:
        """Return the JSON object of a good answer; an empty body is an empty one."""
        try:
            text = answer.read()
        except OSError as error:
            raise HostError(f"{what} failed: {error}.") from error
        finally:
            answer.close()
        return _result(answer.status, text, what)


def _result(status: int, text: bytes, what: str) -> dict[str, Any]:
    if status != 200:
        raise HostError(f"{what} failed: {_error_text(status, text)}.")
    try:
        result = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise HostError(f"{what} failed: {error}.") from error
    if not isinstance(result, dict):
        raise HostError(f"{what} failed: the answer is no JSON object.")
    if result.get("error"):
        raise HostError(f"{what} failed: {result['error']}.")
    return result


def _error_text(status: int, body: bytes) -> str:
    text = body.decode("utf-8", errors="replace").strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["error"])
    return f"HTTP {status} {text[:400]}".rstrip()
