# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the simulated registry at the moment, for all requests or for one model's."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ALL = ""  # the scope of the faults that concern every request


def say(text: str) -> None:
    """Write one line to the log."""
    print(text, file=sys.stderr, flush=True)


class Faults:
    """The settings file with the faults, re-read whenever it changes; missing means none.

    `faults` concerns every request, `models.<name>` the manifest and the weights (the largest
    blob) of one model below root. How often a fault with a count struck is forgotten when the
    file changes.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self._path = path
        self._root = root
        self._lock = threading.Lock()
        self._stamp = (0, 0, 0)
        self._settings: dict[str, Any] = {}
        self._struck: Counter[tuple[str, str]] = Counter()

    def of(self, path: str) -> dict[str, Any]:
        """Return the faults that concern a path; those of a model go before those of all."""
        with self._lock:
            found: dict[str, Any] = {}
            for _scope, faults in self._scopes(path):
                found.update(faults)
            return found

    def next_strike(self, kind: str, path: str) -> dict[str, Any] | None:
        """Return the fault that shall replace this answer (`http_status`, `drop`), and count it."""
        with self._lock:
            for scope, faults in self._scopes(path):
                fault = faults.get(kind)
                if not fault:
                    continue
                fault = fault if isinstance(fault, dict) else {}
                if not path.startswith(tuple(fault.get("paths") or ("/",))):
                    continue
                if self._struck[scope, kind] < int(fault.get("count", sys.maxsize)):
                    self._struck[scope, kind] += 1
                    return fault
        return None

    def _scopes(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        settings = self._current()
        found = [(ALL, dict(settings.get("faults") or {}))]
        for name, faults in (settings.get("models") or {}).items():
            if self._concerns(name, path):
                found.append((name, dict(faults)))
        return found

    def _concerns(self, name: str, path: str) -> bool:
        repository, _colon, tag = name.rpartition(":")
        namespace, _slash, model = repository.rpartition("/")
        namespace = namespace or "library"
        if path == f"/v2/{namespace}/{model}/manifests/{tag}":
            return True
        if path.startswith("/v1/manifests/"):
            return path.endswith(f"/{namespace}/{model}/{tag}")
        weights = self._weights(f"*/{namespace}/{model}/{tag}")
        return bool(weights) and path.endswith((f"sha256-{weights}", f"sha256:{weights}"))

    def _weights(self, pattern: str) -> str:
        for manifest in sorted((self._root / "manifests").glob(pattern)):
            layers = json.loads(manifest.read_bytes())["layers"]
            largest = max(layers, key=lambda layer: layer["size"])
            return str(largest["digest"]).partition(":")[2]
        return ""

    def _current(self) -> dict[str, Any]:
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp != self._stamp:
                settings = json.loads(self._path.read_text())
                if not isinstance(settings, dict):
                    raise ValueError("not an object")
                self._settings, self._stamp = settings, stamp
                self._struck.clear()
        except FileNotFoundError:
            self._settings, self._stamp = {}, (0, 0, 0)
            self._struck.clear()
        except (OSError, ValueError) as exc:
            say(f"settings file is not usable, keeping the last ones: {exc}")
        return self._settings


class Counts:
    """What the registry was asked for, and how many of its answers stall at the moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._stalled = 0
        self._turn = 0

    def count(self, request: str) -> None:
        """Count a request, `GET /v2/...`."""
        with self._lock:
            self._requests[request] += 1

    def forget(self) -> None:
        """Begin to count requests anew."""
        with self._lock:
            self._requests.clear()

    def as_json(self) -> bytes:
        """Return `requests`, how often each thing was asked for, and `stalled`."""
        with self._lock:
            return json.dumps({"requests": self._requests, "stalled": self._stalled}).encode()

    @contextlib.contextmanager
    def stalling(self) -> Iterator[None]:
        """Count an answer that stalls for as long as it does."""
        with self._lock:
            self._stalled += 1
        try:
            yield
        finally:
            with self._lock:
                self._stalled -= 1

    def next_turn(self) -> int:
        """Return the number of the next answer that has to differ from the one before."""
        with self._lock:
            self._turn += 1
            return self._turn
