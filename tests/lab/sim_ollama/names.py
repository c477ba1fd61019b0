# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Model names: parsing, validity and the short form, as the server reads them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
MISSING = "!MISSING!"
MAX_PART = 80
MAX_HOST = 350


class Name(NamedTuple):
    """One model name in its four parts."""

    host: str
    namespace: str
    model: str
    tag: str

    def is_valid(self) -> bool:
        """Tell whether every part is present and made of allowed characters."""
        return (
            _valid_part(self.host, "host")
            and _valid_part(self.namespace, "namespace")
            and _valid_part(self.model, "model")
            and _valid_part(self.tag, "tag")
        )

    def path(self) -> PurePosixPath:
        """Return the manifest's path below `manifests/`."""
        return PurePosixPath(self.host, self.namespace, self.model, self.tag)

    def full(self) -> str:
        """Return the name with all its parts."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    def short(self) -> str:
        """Return the shortest form; the tag always stays."""
        text = f"{self.model}:{self.tag}"
        if self.host != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{text}"
        if self.namespace != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{text}"
        return text


def parse(text: str) -> Name:
    """Read a name as a user writes it and fill the defaults in."""
    host, namespace, tag = DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG
    rest = text
    if rest.rfind(":") > rest.rfind("/"):
        rest, _colon, tag = rest.rpartition(":")
        tag = tag or MISSING
    rest, slash, model = rest.rpartition("/")
    model = model or MISSING
    if slash:
        rest, slash, namespace = rest.rpartition("/")
        namespace = namespace or MISSING
        if slash:
            host = rest.split("://", 1)[-1] or MISSING
    return Name(host, namespace, model, tag)


def from_path(relative: str) -> Name | None:
    """Read a manifest's path below `manifests/`; None when it names no model."""
    parts = relative.split("/")
    if len(parts) != 4:
        return None
    name = Name(*parts)
    return name if name.is_valid() else None


def _valid_part(text: str, kind: str) -> bool:
    if not 1 <= len(text) <= (MAX_HOST if kind == "host" else MAX_PART):
        return False
    for index, char in enumerate(text):
        if char.isascii() and (char.isalnum() or char == "_"):
            continue
        allowed = (
            index > 0
            and char in "-.:"
            and not (char == "." and kind == "namespace")
            and not (char == ":" and kind != "host")
        )
        if not allowed:
            return False
    return True
