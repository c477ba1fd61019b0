# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What the first level of DCGM's diagnosis says, where DCGM is installed.

Level 1 takes seconds and looks at software and counters only; it is the one that GeForce cards
have, and the one that doesn't disturb a model that is being served. NVIDIA promises no schema for
its JSON: DCGM 3 has "DCGM GPU Diagnostic" with a ``gpu_id`` or ``gpu_ids`` per result and warnings
as text, DCGM 4 "DCGM Diagnostic" with ``entity_group`` and ``entity_id`` and warnings as objects.
Both have ``test_categories``, ``tests`` and ``results`` with a ``status``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import (
    NOT_FOUND,
    Host,
    UnknownError,
    said,
)

ARGV = ("dcgmi", "diag", "-r", "1", "-j")
DEADLINE_S = 60.0  # NVIDIA says seconds; a machine of eight cards may take tens of them
FINE = ("pass", "skip", "not run")
_NO_ENGINE = re.compile(r"connect\w* to .*host|host ?engine connection", re.IGNORECASE)


def diagnosis(host: Host) -> dict[str, Any]:
    """Run it and return what it says.

    ``installed`` always; where it is, ``running``, whether its host engine answers; where that
    does, ``passed`` (how many results were fine) and ``problems``, each with ``test``, ``status``
    (``warn`` or ``fail``), ``gpus`` (indices as text, empty for the host) and ``message``.

    Raises:
        UnknownError: it didn't end in time, or what it says can't be understood.
    """
    outcome = host.run(ARGV, max(DEADLINE_S, host.timeout_s))
    if outcome.rc == NOT_FOUND:
        return {"installed": False}
    if outcome.timed_out:
        raise UnknownError(said(outcome, " ".join(ARGV), max(DEADLINE_S, host.timeout_s)))
    results = list(_results(_json(outcome.out)))
    if not results:  # also with status 0
        if _NO_ENGINE.search(outcome.out + outcome.err):
            return {"installed": True, "running": False}
        raise UnknownError(said(outcome, " ".join(ARGV), host.timeout_s))
    problems = [_problem(test, result) for test, result in results if not _is_fine(result)]
    passed = len(results) - len(problems)
    return {"installed": True, "running": True, "passed": passed, "problems": problems}


def _json(text: str) -> Any:
    start = text.find("{")
    try:
        return json.loads(text[start:]) if start >= 0 else None
    except ValueError:
        return None


def _results(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each test with each of its results."""
    for top in document.values() if isinstance(document, dict) else ():
        for category in _objects(top, "test_categories"):
            for test in _objects(category, "tests"):
                for result in _objects(test, "results"):
                    if isinstance(result.get("status"), str):
                        yield str(test.get("name", "unnamed")), result


def _objects(parent: Any, key: str) -> list[dict[str, Any]]:
    children = parent.get(key) if isinstance(parent, dict) else None
    listed = children if isinstance(children, list) else []
    return [child for child in listed if isinstance(child, dict)]


def _is_fine(result: dict[str, Any]) -> bool:
    return result["status"].lower() in FINE


def _problem(test: str, result: dict[str, Any]) -> dict[str, Any]:
    # A status that nobody knows is a warning: neither well nor a reason to stop.
    status = "fail" if result["status"].lower() == "fail" else "warn"
    return {"test": test, "status": status, "gpus": _gpus(result), "message": _message(result)}


def _gpus(result: dict[str, Any]) -> list[str]:
    if str(result.get("entity_group", "GPU")).upper() != "GPU":
        return []
    for key in ("entity_id", "gpu_id", "gpu_ids"):
        if result.get(key) is not None:
            return [part.strip() for part in str(result[key]).split(",") if part.strip()]
    return []


def _message(result: dict[str, Any]) -> str:
    """Return what DCGM says of a result: a text, or objects with a text, one or several."""
    said_so = result.get("warnings") or result.get("info") or ""
    listed = said_so if isinstance(said_so, list) else [said_so]
    texts = [item.get("warning", "") if isinstance(item, dict) else item for item in listed]
    return "; ".join(str(text).strip() for text in texts if text)
