# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Request fields: types are checked as strictly as the real server's decoder does."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from sim_ollama.envconfig import FOREVER, parse_duration
from sim_ollama.errors import ApiError

GO_NAMES = {bool: "bool", str: "string", int: "number", float: "number", list: "array"}


KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("model", "name", "prompt", "system", "template", "suffix"), (str, "string")),
    **dict.fromkeys(("source", "destination", "from"), (str, "string")),
    **dict.fromkeys(("stream", "raw", "insecure", "verbose", "truncate"), (bool, "bool")),
    **dict.fromkeys(("options", "parameters", "files"), (dict, "map[string]interface {}")),
    **dict.fromkeys(("messages", "tools", "images"), (list, "[]interface {}")),
}


def check(body: dict[str, Any]) -> None:
    """Refuse known fields of a wrong type before anything else is looked at."""
    for key in body:
        if key in KINDS:
            _typed(body, key, *KINDS[key])


def text(body: dict[str, Any], key: str) -> str:
    """Return a string field, empty when absent."""
    return str(_typed(body, key, str, "string") or "")


def boolean(body: dict[str, Any], key: str) -> bool | None:
    """Return a boolean field, None when absent."""
    return _typed(body, key, bool, "bool")


def mapping(body: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an object field, empty when absent."""
    return dict(_typed(body, key, dict, "map[string]interface {}") or {})


def sequence(body: dict[str, Any], key: str) -> list[Any]:
    """Return a list field, empty when absent."""
    return list(_typed(body, key, list, "[]interface {}") or [])


def model_name(body: dict[str, Any]) -> str:
    """Return `model`, or the older `name`."""
    return text(body, "model") or text(body, "name")


def keep_alive(body: dict[str, Any]) -> float | None:
    """Return keep_alive in seconds: a number, or a string with a unit; negative is for ever."""
    value = body.get("keep_alive")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ApiError(400, f"Unsupported type: '{GO_NAMES.get(type(value), 'object')}'")
    seconds: float | None
    if isinstance(value, str):
        seconds = parse_duration(value)
        if seconds is None:
            bare = value.lstrip("+-").replace(".", "", 1).isdigit()
            kind = "missing unit in" if bare else "invalid"
            raise ApiError(400, f'time: {kind} duration "{value}"')
    else:
        seconds = float(value)
    return FOREVER if seconds < 0 else seconds


def nanoseconds(seconds: float) -> int:
    """Return a duration as the API gives it."""
    return int(seconds * 1e9)


def now() -> str:
    """Return the time in UTC with nine fraction digits."""
    return timestamp(time.time(), utc=True)


def timestamp(seconds: float, utc: bool = False) -> str:
    """Return RFC 3339 with nine fraction digits."""
    moment = datetime.fromtimestamp(int(seconds), timezone.utc)
    fraction = f"{int((seconds % 1) * 1e9):09d}"
    if utc:
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction}Z"
    local = moment.astimezone()
    offset = local.strftime("%z")
    return f"{local:%Y-%m-%dT%H:%M:%S}.{fraction}{offset[:3]}:{offset[3:]}"


def _typed(body: dict[str, Any], key: str, kind: type, go_type: str) -> Any:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, kind):
        found = GO_NAMES.get(type(value), "object")
        raise ApiError(
            400,
            f"json: cannot unmarshal {found} into Go struct field .{key} of type {go_type}",
        )
    return value
