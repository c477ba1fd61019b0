# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A thin client of Ollama's HTTP API: what is needed to manage models."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    ModelName,
    parse_name,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Answer, Http

SHORT_S = 30.0  # answers that need no work; the server may still be discovering its GPUs
SILENCE_S = 1800.0  # a pull says nothing while it hashes a large blob
LOAD_S = 600.0  # loading a large model from a cold disk and answering once
PROOF_PROMPT = "Return exactly the text: HX-OK"
PROOF_TOKENS = 8

OnProgress = Callable[[str, int, int], None]  # status, bytes done, bytes in total


class OllamaApi:
    """Calls of one Ollama server.

    Args:
        url: base URL such as ``http://127.0.0.1:11434``.
        http: the HTTP function.
        deadline: clock reading at which work has to be over; None for no limit.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        http: Http,
        *,
        deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = http
        self._deadline = deadline
        self._clock = clock

    def version(self) -> str:
        """Return the version of the running server."""
        return str(self._json("GET", "/api/version").get("version", ""))

    def tags(self) -> dict[str, str]:
        """Return the digest of each model that the server lists, by the key of its name."""
        listed = self._json("GET", "/api/tags").get("models") or []
        return {parse_name(item["name"]).key: str(item.get("digest", "")) for item in listed}

    def pull(self, name: ModelName, *, insecure: bool, on_progress: OnProgress) -> None:
        """Download a model; the server resumes what an earlier pull left.

        Raises:
            HostError: the pull failed, or it is not over at the deadline.
        """
        body = {"model": str(name), "insecure": insecure, "stream": True}
        answer = self._send("POST", "/api/pull", body, SILENCE_S)
        try:
            if answer.status != 200:
                raise HostError(f"pulling {name} failed: {_error_text(answer)}.")
            follow_pull(self._in_time(answer.lines(), f"pulling {name}"), name, on_progress)
        except OSError as error:
            raise HostError(f"pulling {name} failed: {self.url}/api/pull: {error}.") from error
        finally:
            answer.close()

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
        """
        started = self._clock()
        body = {
            "model": str(name),
            "prompt": PROOF_PROMPT,
            "stream": False,
            "options": {"temperature": 0, "num_predict": PROOF_TOKENS},
        }
        answer = self._send("POST", "/api/generate", body, LOAD_S)
        if answer.status == 400:  # also the answer of a model that only embeds
            answer.close()
            request = {"model": str(name), "input": PROOF_PROMPT}
            answer = self._send("POST", "/api/embed", request, LOAD_S)
            result = self._done(answer, f"prompting {name}")
            answered = bool(result.get("embeddings"))
        else:
            result = self._done(answer, f"prompting {name}")
            answered = bool(result.get("done")) and int(result.get("eval_count") or 0) > 0
        if not answered:
            raise HostError(f"prompting {name} failed: the answer is empty.")
        return self._clock() - started

    def _json(self, method: str, path: str) -> dict[str, Any]:
        return self._done(self._send(method, path, None, SHORT_S), f"{method} {self.url}{path}")

    def _send(self, method: str, path: str, body: Any, timeout: float) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        if self._deadline is not None:
            timeout = max(0.1, min(timeout, self._deadline - self._clock()))
        try:
            return self._http(method, f"{self.url}{path}", data, headers, timeout)
        except OSError as error:
            raise HostError(
                f"the Ollama API at {self.url} doesn't answer {method} {path}: {error}.",
                "Check that the service runs and listens there.",
            ) from error

    def _done(self, answer: Answer, what: str) -> dict[str, Any]:
        """Return the JSON object of a good answer; an empty body is an empty one."""
        if answer.status != 200:
            raise HostError(f"{what} failed: {_error_text(answer)}.")
        try:
            text = answer.read()
            result = json.loads(text) if text.strip() else {}
        except (OSError, ValueError) as error:
            raise HostError(f"{what} failed: {error}.") from error
        finally:
            answer.close()
        if not isinstance(result, dict):
            raise HostError(f"{what} failed: the answer is no JSON object.")
        if result.get("error"):
            raise HostError(f"{what} failed: {result['error']}.")
        return result

    def _in_time(self, lines: Iterable[bytes], what: str) -> Iterator[bytes]:
        for line in lines:
            if self._deadline is not None and self._clock() > self._deadline:
                raise HostError(
                    f"{what} was stopped at the deadline.",
                    "What it downloaded is kept; run again, with a longer deadline if need be.",
                )
            yield line


def follow_pull(lines: Iterable[bytes], name: ModelName, on_progress: OnProgress) -> None:
    """Read the stream of a pull to its end.

    A pull answers 200 before it has begun. It succeeded when its last line says so and no line
    carries an error.

    Raises:
        HostError: it failed; the text is the server's own.
    """
    done: dict[str, int] = {}
    total: dict[str, int] = {}
    status = ""
    for line in lines:
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except ValueError as error:
            raise HostError(f"pulling {name} failed: the stream broke off ({error}).") from error
        if not isinstance(event, dict):
            raise HostError(f"pulling {name} failed: the stream holds {event!r}, wanted an object.")
        if event.get("error"):
            raise HostError(f"pulling {name} failed: {event['error']}.")
        status = str(event.get("status", ""))
        if event.get("digest"):
            total[event["digest"]] = int(event.get("total") or 0)
            done[event["digest"]] = int(event.get("completed") or 0)
        on_progress(status, sum(done.values()), sum(total.values()))
    if status != "success":
        raise HostError(
            f"pulling {name} failed: the stream ended after {status or 'nothing'!r}, "
            "wanted 'success'.",
            "The server may have been restarted; run again, the download is resumed.",
        )


def _error_text(answer: Answer) -> str:
    try:
        text = answer.read().decode("utf-8", errors="replace").strip()
    except OSError as error:
        text = str(error)
    finally:
        answer.close()
    try:
        text = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        text = text[:200]
    return f"HTTP {answer.status} {text}".rstrip()
