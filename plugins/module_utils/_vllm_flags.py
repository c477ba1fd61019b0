# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Judge a service's further flags and variables by what its version of vLLM understands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_flags_data import (
    DANGEROUS,
    DANGEROUS_ENVIRONMENT,
    GONE_FORMATS,
    OWNED,
    VERSIONS,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_problem import nearest, problem

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "list": "a list",
    "json": "a mapping",
    "switch": "true or false",
    "flag": "true or false",
}


def known_versions() -> list[str]:
    """Return the minor versions that there are lists for."""
    return sorted(VERSIONS)


def for_version(version: str) -> dict[str, Any] | None:
    """Return the lists of a version such as ``0.32.0``; None when there are none for it."""
    return VERSIONS.get(".".join(version.split("+", maxsplit=1)[0].split(".")[:2]))


def normal(name: str) -> str:
    """Return a flag's name as vLLM's help shows it, without leading dashes."""
    return name.replace("_", "-")


def check_extra_args(name: str, extra: Mapping[str, Any], version: str) -> list[dict[str, str]]:
    """Return the problems of a service's further flags."""
    lists = for_version(version)
    if lists is None:
        return []  # told once, for the whole plan
    result = []
    seen: dict[str, str] = {}
    for given, value in extra.items():
        flag = normal(given)
        if flag in seen:
            result.append(problem(name, f"extra_args.{given}", seen[flag], "each flag once"))
            continue
        seen[flag] = given
        allowed = _refusal(flag, value, lists, version)
        if allowed:
            result.append(problem(name, f"extra_args.{given}", _show(value), allowed))
    return result


def _refusal(flag: str, value: Any, lists: Mapping[str, Any], version: str) -> str:
    """Say what is allowed in place of a flag or its value; empty when it is allowed itself."""
    negative = flag.startswith("no-")
    positive = flag[3:] if negative else flag
    reason = _never(positive, lists, version)
    if reason:
        return reason
    if negative and lists["flags"].get(positive) == "switch":
        return f"{positive}: false, without the prefix"
    if flag not in lists["flags"]:
        return f"a flag on the list of vLLM {version}{nearest(flag, lists['flags'])}"
    if flag == "load-format" and value in GONE_FORMATS:
        return f"not {value}: {GONE_FORMATS[value]}"
    return _wrong_kind(lists["flags"][flag], value)


def _never(flag: str, lists: Mapping[str, Any], version: str) -> str:
    """Say why a flag may not be declared here whatever its value; empty when it may."""
    if flag in OWNED:
        return f"not here; declare {OWNED[flag]}"
    if flag in DANGEROUS:
        return f"never: it {DANGEROUS[flag]}"
    if flag in lists["retired"]:
        return f"not in vLLM {version} any more or for long; use {lists['retired'][flag]}"
    return ""


def _wrong_kind(kind: Any, value: Any) -> str:
    if isinstance(kind, tuple):
        ok = not isinstance(value, bool) and value in kind
        return "" if ok else ", ".join(map(str, kind))
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        "int": whole,
        "float": whole or isinstance(value, float),
        "str": isinstance(value, str) and bool(value),
        "list": isinstance(value, list) and bool(value),
        "json": isinstance(value, Mapping),
        "switch": isinstance(value, bool),
        "flag": isinstance(value, bool),
    }
    return "" if fits[kind] else _WORDS[kind]


def check_environment(
    name: str, environment: Mapping[str, Any], version: str
) -> list[dict[str, str]]:
    """Return the problems of a service's further variables; values are never shown."""
    lists = for_version(version)
    result = []
    for variable in environment:
        field = f"service.environment.{variable}"
        if variable in DANGEROUS_ENVIRONMENT:
            reason = DANGEROUS_ENVIRONMENT[variable]
            result.append(problem(name, field, "a value", f"never: it {reason}"))
        elif lists is not None and variable not in lists["environment"]:
            allowed = ", ".join(lists["environment"])
            near = nearest(variable, lists["environment"])
            result.append(problem(name, field, "a value (unknown variable)", allowed + near))
    return result


def check_choice(
    name: str, field: str, value: str | None, version: str, key: str
) -> list[dict[str, str]]:
    """Judge a field whose values the version decides, such as the quantisation."""
    lists = for_version(version)
    if value is None or lists is None or value in lists[key]:
        return []
    if value in GONE_FORMATS:
        return [problem(name, field, value, f"not {value}: {GONE_FORMATS[value]}")]
    return [problem(name, field, value, ", ".join(lists[key]) + nearest(value, lists[key]))]


def render(extra: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return further flags for the file that ``--config`` reads.

    Booleans are written in their true form alone, because ``false`` is dropped without a word
    where a flag has no form that starts with ``no-``; nothing is written for ``null``.
    """
    flags = (for_version(version) or {"flags": {}})["flags"]
    result: dict[str, Any] = {}
    for given, value in extra.items():
        flag = normal(given)
        if value is None:
            continue
        if value is False:
            if flags.get(flag) == "switch":
                result[f"no-{flag}"] = True
            continue
        result[flag] = value
    return result


def _show(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:80]}..."
