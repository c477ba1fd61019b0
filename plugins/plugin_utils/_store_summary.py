# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What the stores of several hosts are like, as a table and sentences for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    parse_name,
    read_pin,
)

HEADINGS = ("host", "declared", "models", "occupied", "verified", "findings")
SHORT = 12  # digits of a digest that people read

Row = tuple[str, ...]


def store_summary(stores: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Put what was found on several hosts together.

    A host fails when its store could not be looked at, or a declared model isn't whole there in
    the declared version. Everything else that was found is worth knowing and no more.

    Args:
        stores: for each host ``host``, ``store`` (what the module model_store_info said) and
            ``models`` (what is declared).

    Returns:
        ``text``, a table with a line for each host and the findings below it, and ``failed``, by
        host the sentences for which it fails, each host with at least an empty list.
    """
    rows: list[Row] = [HEADINGS]
    told: list[str] = []
    failed: dict[str, list[str]] = {}
    for entry in stores:
        host, store = str(entry["host"]), entry["store"]
        failed[host] = problems(store, entry["models"])
        rows.append(_row(host, store, entry["models"], failed[host]))
        told += [f"{host}: FAIL: {text}" for text in failed[host]]
        told += [f"{host}: {text}" for text in store.get("findings") or []]
    return {"text": "\n".join([*_table(rows), *([""] if told else []), *told]), "failed": failed}


def problems(store: Mapping[str, Any], declared: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what keeps a host from having the declared models."""
    if "models" not in store:
        lines = str(store.get("msg") or "no message").strip().splitlines()
        return [f"its store could not be looked at: {lines[0] if lines else 'no message'}"]
    if not store.get("exists", True):
        return [f"there is no store at {store['store']}, wanted one"] if declared else []
    there = {parse_name(model["name"]).key: model for model in store["models"]}
    return [text for entry in declared for text in [_problem(entry, there)] if text]


def _problem(entry: Mapping[str, Any], there: Mapping[str, Mapping[str, Any]]) -> str:
    try:
        name, pin = parse_name(entry["name"]), read_pin(entry.get("digest") or "")
    except HostError as error:  # of one host: the others are reported all the same
        return str(error).rstrip(".")
    model = there.get(name.key)
    if model is None:
        return f"{name} is not there, wanted it whole"
    if not str(model["digest"]).startswith(pin):
        return f"{name} has the digest {model['digest'][:SHORT]}, wanted {pin[:SHORT]}"
    if model["whole"]:
        return ""
    defects = [f"blob sha256-{item['digest'][:SHORT]} {item['state']}" for item in model["defects"]]
    return f"{name} is not whole: {', '.join(defects)}; wanted it whole"


def _row(
    host: str, store: Mapping[str, Any], declared: Sequence[Mapping[str, Any]], bad: Sequence[str]
) -> Row:
    if "models" not in store:
        return (host, f"? of {len(declared)}", "?", "?", "?", "not looked at")
    models = store["models"]
    verified = sum(bool(model["verified"]) for model in models)
    findings = len(store.get("findings") or [])
    return (
        host,
        f"{len(declared) - min(len(bad), len(declared))} of {len(declared)}",
        str(len(models)),
        human_size(int((store.get("totals") or {}).get("held_bytes") or 0)),
        f"{verified} of {len(models)}",
        str(findings) if findings else "none",
    )


def _table(rows: Sequence[Row]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows
    ]
