# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The options of the modules that take declared models; documented in ``declared_models``."""

from __future__ import annotations

from typing import Any

# Of an entry of ``models``.
MODEL_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "digest": {"type": "str", "default": ""},
    "source": {"type": "str", "default": ""},
    "insecure": {"type": "bool", "default": False},
    "update": {"type": "bool", "default": False},
    "slo": {"type": "dict", "default": {}},
}
# Where those come from that name no source.
REGISTRY_OPTIONS: dict[str, Any] = {
    "registry": {"type": "str", "default": ""},
    "registry_insecure": {"type": "bool", "default": False},
}
