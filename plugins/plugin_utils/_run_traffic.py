# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a run did to a host's traffic: the section of the record, and how a report shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_results as results

ROLE = "traffic"
GATEWAY = "__traffic_gateway"


def section(variables: Mapping[str, Any], owner: str = "remediate") -> dict[str, Any]:
    """Return what the role's results say of drain and way back; nothing when there was neither.

    Args:
        variables: the host's variables, with the role's facts and registered results.
        owner: the name under which the run drains.
    """
    drains = _items(variables, "__traffic_result_drain")
    returns = _items(variables, "__traffic_result_undrain")
    if not drains and not returns:
        return {}
    by = sorted({_text(item.get("drained_by")) or owner for item in drains})
    found: dict[str, Any] = {}
    if drains:
        found.update(
            drained=not any(results.is_failed(item) or item.get("unreachable") for item in drains),
            drained_by=by,
            gateways=[_text(item.get(GATEWAY)) for item in drains],
            drained_before=all(bool(item.get("drained_before")) for item in drains),
            waited_seconds=round(sum(_number(item.get("waited_seconds")) for item in drains), 1),
            open_streams=int(_number(variables.get("traffic_drained_streams"))),
            cut_streams=sum(int(_number(item.get("cut_streams"))) for item in drains),
        )
    if returns:
        # At all of them, or the host is drained still.
        failed = any(results.is_failed(item) or item.get("unreachable") for item in returns)
        found["undrained"] = not failed and any(item.get("changed") for item in returns)
        found["undrained_at"] = [_text(item.get(GATEWAY)) for item in returns]
        began, ended = variables.get("traffic_drained_at"), variables.get("traffic_returned_at")
        if found["undrained"] and began and ended:
            found["seconds"] = round(_number(ended) - _number(began), 1)
    return found


def as_data(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section as further data of a record; empty when there is nothing to say."""
    found = section(variables)
    return {ROLE: found} if found else {}


def figure(record: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the number that stands for the drain in a report, or None when there was none."""
    data = record["data"].get(ROLE) or {}
    if not (data.get("drained") or data.get("undrained")):
        return None
    where = ", ".join(data.get("gateways") or data.get("undrained_at") or [])
    if record["mode"] == "check":
        return {"label": "drain planned", "value": "1", "note": f"at {where}, then undrained"}
    if not data.get("undrained"):
        who = ", ".join(data.get("drained_by") or [])
        return {"label": "drained still", "value": "1", "note": f"at {where}, by {who}"}
    if not data.get("drained"):
        return {
            "label": "undrained",
            "value": "1",
            "note": f"at {where}, drained by an earlier run",
        }
    streams = text.counted(int(data.get("open_streams") or 0), "open stream")
    waited = text.duration(float(data.get("waited_seconds") or 0))
    return {
        "label": "without requests",
        "value": text.duration(data.get("seconds")),
        "note": f"drained at {where}, {streams} waited for in {waited}",
    }


def _items(variables: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    """Return the items of a registered loop over gateways, less those that were skipped."""
    registered = results.plain(variables.get(name) or {})
    items = registered.get("results") if isinstance(registered, dict) else None
    return [item for item in items or [] if isinstance(item, dict) and not item.get("skipped")]


def _text(value: Any) -> str:
    return results.plain_text(value) if value else ""


def _number(value: Any) -> float:
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return 0.0
