# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Stop and start an engine's unit and prove by its API that it serves the same models."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from ansible_collections.hx_infra.llm.plugins.module_utils._engine_unit import Runner, unit_state
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

_POLL_S = 0.1
_MISMATCH_S = 5.0

Fetch = Callable[[str, float], bytes]


class Service:
    """An engine's systemd unit and its API.

    Args:
        host: for messages.
        unit: name of the unit; empty when there is none.
        url: base URL of its API; empty when it isn't to be asked.
        run: runs a command.
        fetch: returns the body of a GET; raises OSError when there is no good answer.
        stop_s: how long a stop may take.
        start_s: how long the start may take until the API answers.
    """

    def __init__(
        self,
        host: str,
        unit: str,
        url: str,
        run: Runner,
        fetch: Fetch,
        *,
        stop_s: float = 60.0,
        start_s: float = 120.0,
    ) -> None:
        self._host = host
        self._unit = unit
        self._url = url.rstrip("/")
        self._run = run
        self._fetch = fetch
        self._stop_s = stop_s
        self._start_s = start_s

    def state(self) -> str:
        """Return what ``systemctl is-active`` says."""
        return unit_state(self._run, self._unit)

    def models(self) -> list[list[str]] | None:
        """Return names and digests of the models that the API lists; None when it is silent."""
        if not self._url:
            return None
        try:
            answer = json.loads(self._fetch(f"{self._url}/api/tags", 10.0))
            return sorted([item["name"], item.get("digest", "")] for item in answer["models"] or [])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def stop(self) -> None:
        """Stop the unit and wait until none of its processes is left."""
        code, _out, err = self._run(["systemctl", "stop", self._unit])
        deadline = time.monotonic() + self._stop_s
        while not code and self.state() in ("active", "deactivating", "reloading"):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        state = self.state()
        if code or state in ("active", "deactivating", "reloading"):
            raise HostError(
                f"{self._host}: {self._unit} did not stop: {err.strip() or state}.",
                f"See journalctl -u {self._unit}.",
            )

    def start(self) -> None:
        """Start the unit."""
        self._run(["systemctl", "reset-failed", self._unit])
        code, _out, err = self._run(["systemctl", "start", self._unit])
        if code:
            raise HostError(
                f"{self._host}: {self._unit} did not start: {err.strip()}{self._log()}."
            )

    def prove(self, models: list[list[str]] | None, was_active: bool) -> str:
        """Wait until the API answers with the models that it listed before.

        Args:
            models: names and digests before the move; None when the API did not tell them.
            was_active: whether the unit ran properly before; if not, a failure is no reason to
                take the move back and comes as a warning.

        Returns:
            a warning, or nothing.
        """
        problem = self._wait(models)
        if problem and was_active:
            raise HostError(f"{self._host}: {problem}{self._log()}.")
        return f"{self._host}: {problem} It did not run properly before either." if problem else ""

    def _wait(self, models: list[list[str]] | None) -> str:
        deadline = time.monotonic() + self._start_s
        answered = None
        problem = ""
        while time.monotonic() < deadline:
            problem = self._look(models)
            if not problem:
                return ""
            if self.state() == "failed":
                break
            if "lists" in problem:
                answered = answered or time.monotonic()
                if time.monotonic() - answered > _MISMATCH_S:
                    break
            time.sleep(_POLL_S)
        return problem

    def _look(self, models: list[list[str]] | None) -> str:
        if not self._url:
            return "" if self.state() == "active" else f"{self._unit} is {self.state()}."
        try:
            self._fetch(f"{self._url}/api/version", 5.0)
        except OSError as error:
            return f"{self._unit} does not answer at {self._url} ({error})."
        now = self.models()
        if models is None or now == models:
            return ""
        missing = [name for name, _digest in models if name not in {item[0] for item in now or []}]
        what = f"{', '.join(missing)} missing" if missing else "the digests differ"
        return f"{self._unit} lists other models than before ({what})."

    def start_quietly(self) -> bool:
        """Start the unit on the way out of a failure; return whether it runs."""
        self._run(["systemctl", "reset-failed", self._unit])
        self._run(["systemctl", "start", self._unit])
        return self.state() in ("active", "activating")

    def stop_quietly(self) -> None:
        """Stop the unit on the way out of a failure."""
        if self._unit:
            self._run(["systemctl", "stop", self._unit])

    def _log(self) -> str:
        text = self._run(
            ["journalctl", "--unit", self._unit, "--lines=5", "--no-pager", "--output=cat"]
        )[1]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f" (last lines of its log: {' | '.join(lines)})" if lines else ""
