# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Reads registered task results: what was planned or changed, which verdicts were given."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

Json = Any  # a value that json.dumps writes as it is

# Where the item of a loop, or a result, names the thing that was changed.
TARGET_KEYS = ("path", "dest", "name", "label", "link", "unit", "key", "repo", "src", "cmd")
MAX_TEXT = 2000
ACCESS = ("owner", "group", "mode")
RESULT, PREDICTED = "result_", "_predicted"
LEFT_ALONE = ("adopt",)  # what a plan names although it changes nothing


def plain(value: Any) -> Json:
    """Copy a value into plain Python types, without the marks that the controller puts on them."""
    if isinstance(value, Mapping):
        return {plain_text(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return value.isoformat() if isinstance(value, (datetime, date)) else plain_text(value)


def plain_text(value: Any) -> str:
    """Return the text of a value as a plain string."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str.__str__(value) if isinstance(value, str) else str(value)


def steps_of_role(role: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changing steps of a role: {step: result} in the order they were registered.

    Where a task cannot run dry, one that predicts it registers ``<step>_predicted``: one of the
    two is skipped, and both count as the same step.
    """
    pattern = re.compile(rf"^__{re.escape(role)}_result_(.+)$")
    found = {}
    for name in variables:
        match = pattern.match(name) if isinstance(name, str) else None
        if match and isinstance(variables[name], Mapping):
            step = match.group(1)
            step = step[: -len(PREDICTED)] if step.endswith(PREDICTED) else step
            if step not in found or not variables[name].get("skipped"):
                found[step] = plain(variables[name])
    return found


def verdicts_of_role(role: str, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the verdicts in every variable that a role registered."""
    found: list[dict[str, Any]] = []
    for name in variables:
        if isinstance(name, str) and name.startswith(f"__{role}_"):
            found.extend(verdicts_in(plain(variables[name])))
    return found


def verdicts_in(result: Any) -> list[dict[str, Any]]:
    """Return the verdicts of a result or of the items of a loop."""
    if not isinstance(result, Mapping):
        return []
    found = [
        dict(verdict)
        for verdict in _list(result.get("verdicts"))
        if isinstance(verdict, Mapping) and "check" in verdict and "status" in verdict
    ]
    for item in _loop(result):
        found.extend(verdicts_in(item))
    return found


def figures_of_role(role: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures that a report shows, from every variable that a role registered."""
    found: dict[str, Any] = {}
    prefix = f"__{role}_"
    measured: list[dict[str, Any]] = []
    for name in variables:
        if isinstance(name, str) and name.startswith(prefix):
            figures = figures_in(plain(variables[name]))
            series = name[len(prefix) :]
            series = series[len(RESULT) :] if series.startswith(RESULT) else series
            measured.extend({"series": series, **item} for item in figures.pop("benchmark", []))
            found.update(figures)
    return {**found, "benchmark": measured} if measured else found


def figures_in(result: Any) -> dict[str, Any]:
    """Return what a result of one of our modules says about backup, interruption and speed."""
    if not isinstance(result, Mapping):
        return {}
    found: dict[str, Any] = {}
    if result.get("archive"):
        found["backup"] = {"path": result["archive"], "bytes": result.get("size_bytes")}
    interruption = result.get("interruption")
    if isinstance(interruption, Mapping) and interruption.get("total"):
        found["interruption"] = {"seconds": interruption["total"]}
    if result.get("benchmark") and isinstance(result["benchmark"], list):
        found["benchmark"] = [item for item in result["benchmark"] if isinstance(item, Mapping)]
    return found


def entries_in(step: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the plan entries of one registered result; the same for a dry and a real run."""
    if result.get("skipped") and not result.get("results"):
        return []
    loop = _loop(result)
    if loop:
        return [entry for item in loop for entry in entries_in(step, item)]
    if not (result.get("changed") or result.get("failed")):
        return []
    own = _own_entries(step, result)
    if own or not result.get("changed"):
        return own
    words = step.replace("_", " ").strip().capitalize()
    target = _item_target(result)
    # What a result says of itself is only a detail: core's own modules leave it out in a dry run.
    where = {} if target else {"where": _named(result)}
    details = {key: value for key, value in where.items() if value}
    if target:
        details.update(_access(result))
    return [_entry(step, target, f"{words}: {target}" if target else words, details=details)]


def is_item(entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry is one item of a builtin's loop, a path that is put right."""
    target = str(entry["target"])
    return target.startswith("/") and str(entry["action"]).endswith(f": {target}")


def is_failed(result: Mapping[str, Any]) -> bool:
    """Tell whether a result, or an item of its loop, failed."""
    return bool(result.get("failed")) or any(is_failed(item) for item in _loop(result))


def message_of(result: Any) -> str:
    """Return what a failed result says, in one piece of text."""
    if not isinstance(result, Mapping):
        return plain_text(result or "")
    for item in _loop(result):
        if is_failed(item):
            target = _item_target(item)
            return f"{target}: {message_of(item)}" if target else message_of(item)
    parts = [plain_text(result.get("msg") or "").strip()]
    for stream in ("stderr", "module_stderr"):
        text = plain_text(result.get(stream) or "").strip()
        if text and text not in parts[0]:
            parts.append(text)
    return "\n".join(part for part in parts if part)[:MAX_TEXT] or "no message"


def fingerprint(result: Any) -> str:
    """Return a short digest of a result, to tell a repeated one from a new one."""
    text = json.dumps(plain(result), sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _own_entries(step: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of one of our modules: its plan, told by its own sentences."""
    plan = [
        dict(item)
        for item in _list(result.get("plan"))
        if isinstance(item, Mapping) and item.get("action") not in LEFT_ALONE
    ]
    sentences = [plain_text(item) for item in _list(result.get("actions"))]
    if not plan:
        return [_entry(step, _item_target(result), sentence) for sentence in sentences]
    entries = []
    for number, item in enumerate(plan):
        verb = plain_text(item.pop("action", "") or "")
        target = plain_text(item.pop("target", "") or "")
        told = len(sentences) == len(plan)
        sentence = sentences[number] if told else f"{verb} {target}".strip()
        entries.append(_entry(step, target, sentence, verb, item))
    return entries


def _entry(
    step: str,
    target: str,
    action: str,
    verb: str = "",
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    entry: dict[str, Any] = {"step": step, "target": target, "action": action}
    if verb and verb != action:
        entry["verb"] = verb
    if details:
        entry["details"] = dict(details)
    return entry


def _item_target(result: Mapping[str, Any]) -> str:
    """Name the thing that an item of a loop is about; empty outside a loop."""
    if "ansible_loop_var" not in result:
        return ""
    item = result.get(plain_text(result["ansible_loop_var"]))
    return _named(item) if isinstance(item, Mapping) else _joined(item)


def _access(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the owner, group and mode that a builtin was asked for, as far as it says so."""
    invocation = result.get("invocation")
    arguments = invocation.get("module_args") if isinstance(invocation, Mapping) else None
    asked = arguments if isinstance(arguments, Mapping) else {}
    return {key: plain_text(asked[key]) for key in ACCESS if asked.get(key) is not None}


def _named(source: Mapping[str, Any]) -> str:
    for key in TARGET_KEYS:
        named = _joined(source.get(key))
        if named:
            return named
    return ""


def _joined(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(plain_text(item) for item in value if not isinstance(item, Mapping))
    return "" if value is None or isinstance(value, Mapping) else plain_text(value)


def _loop(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the items of a looped result; a module's own ``results`` is not a loop."""
    items = [item for item in _list(result.get("results")) if isinstance(item, Mapping)]
    return [item for item in items if "ansible_loop_var" in item]


def _list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else ()
