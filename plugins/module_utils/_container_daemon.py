# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What GPU containers need in Docker's own configuration, merged into whatever stands there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

RUNTIME = "nvidia-container-runtime"


@dataclass(frozen=True)
class Merge:
    """What a merge makes of the file.

    Attributes:
        text: the new content; the old one when nothing is missing.
        added: what is added, in words; empty when nothing is.
        restart: whether the engine reads the addition only when it starts. Runtimes are read at
            a reload, which stops nothing.
    """

    text: str
    added: tuple[str, ...]
    restart: bool


def merge(path: str, text: str, *, runtime: bool, cdi: bool, host: str) -> Merge:
    """Add the runtime, the CDI feature or both; everything else stays as it stands.

    A runtime ``nvidia`` that stands there is somebody's decision, and stays as well.

    Raises:
        HostError: the file holds something else than a JSON object where one has to be.
    """
    content = _parse(path, text, host)
    added: list[str] = []
    restart = False
    if runtime:
        runtimes = _object(content, "runtimes", path, host)
        if "nvidia" not in runtimes:
            runtimes["nvidia"] = {"args": [], "path": RUNTIME}
            added.append("runtime nvidia")
    if cdi:
        features = _object(content, "features", path, host)
        if features.get("cdi") is not True:
            features["cdi"] = True
            added.append("feature cdi")
            restart = True
    if not added:
        return Merge(text, (), False)
    return Merge(json.dumps(content, indent=_indent(text)) + "\n", tuple(added), restart)


def _parse(path: str, text: str, host: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise HostError(
            f"{host}: {path} is no JSON: {error}; wanted: a JSON object.",
            "Correct it; the engine itself does not start from it.",
        ) from error
    if not isinstance(content, dict):
        raise HostError(
            f"{host}: {path} holds a {type(content).__name__}, wanted: a JSON object.",
            "Correct it; the engine itself does not start from it.",
        )
    return content


def _object(content: dict[str, Any], field: str, path: str, host: str) -> dict[str, Any]:
    value = content.setdefault(field, {})
    if not isinstance(value, dict):
        raise HostError(
            f"{host}: {path}: {field} is {json.dumps(value)}, wanted: a JSON object.",
            "Correct it by hand; nothing was written.",
        )
    return value


def _indent(text: str) -> int:
    for line in text.splitlines():
        if line.startswith(" "):
            return len(line) - len(line.lstrip(" "))
    return 4
