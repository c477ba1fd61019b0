# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The registry block of an environment file, replaced without touching the settings beside it.

What the models are is known when the catalog was reconciled; what the settings are was decided
when the service was configured. So the block can be written by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import (
    REGISTRY,
    SIZE,
    Model,
    registry,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._env_load import load, settings
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_config import is_informational

_NAME = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=")


def with_registry(content: bytes, models: Sequence[Model], path: str) -> bytes:
    """Return a file's content with its registry block replaced by these models.

    Lines that assign model variables, the list and the counts go, and so do the comments that
    belong to them; every other line stays as it is.

    Args:
        content: the file.
        models: the models that it has to name.
        path: the file's path, for the message.

    Raises:
        HostError: the settings would not be the same afterwards, because a value of the old block
            goes on over several lines.
    """
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    kept = [line for line in lines if not _is_registry(line)]
    while kept and not kept[-1].strip():
        kept.pop()
    text = "\n".join([*kept, "", *registry(models)]) + "\n"
    result = text.encode("utf-8", "surrogateescape")
    if settings_changed(content, result):
        raise HostError(
            f"the models in {path} can't be replaced without changing other settings; wanted a"
            " file with one variable a line.",
            "Run the phase services, which writes the whole file.",
        )
    return result


def _is_registry(line: str) -> bool:
    if line.strip() == REGISTRY or line.lstrip().startswith(SIZE):
        return True
    match = _NAME.match(line)
    return bool(match and is_informational(match.group(1)))


def settings_changed(before: bytes | None, after: bytes) -> bool:
    """Tell whether a service that has loaded one content would be another one with the other.

    Args:
        before: the old content; None when there is no file.
        after: the new content.
    """
    return before is None or settings(load(before)) != settings(load(after))
