# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Names of models as Ollama reads them: ``host/namespace/model:tag``, most of it optional."""

from __future__ import annotations

import re
from typing import NamedTuple

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
EXAMPLE = "qwen3:1.7b"

_PARTS = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
}
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{12,64})")


class ModelName(NamedTuple):
    """A model's name with all its parts."""

    host: str
    namespace: str
    model: str
    tag: str

    def __str__(self) -> str:
        """Return the shortest form, as ``ollama list`` shows it: always with the tag."""
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def full(self) -> str:
        """The form with host, namespace and tag."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def key(self) -> str:
        """What two names have in common when Ollama takes them for the same model."""
        return self.full.lower()

    @property
    def manifest(self) -> str:
        """Path of the manifest, relative to the store."""
        return "/".join(("manifests", *self))


def parse_name(text: str) -> ModelName:
    """Read a name and fill in the defaults.

    Raises:
        HostError: the name is one that Ollama refuses.
    """
    problem = name_problem(text)
    if problem:
        raise HostError(f"{text!r} is no model name: {problem}, wanted one such as {EXAMPLE!r}.")
    return _split(text)


def name_problem(text: str) -> str:
    """Say why Ollama would refuse a name; empty when it would not."""
    if not text:
        return "it is empty"
    if "@" in text:
        return "a digest can't be part of a name"
    if "://" in text:
        return "a scheme can't be part of a name"
    if text.count("/") > 2:
        return "it has more than host, namespace and model"
    for kind, value in _split(text)._asdict().items():
        if not _PARTS[kind].fullmatch(value):
            return f"its {kind} is {value!r}"
    return ""


def manifest_name(relative: str) -> ModelName | None:
    """Return the name that a manifest's path (below ``manifests/``) stands for, if any."""
    parts = relative.split("/")
    if len(parts) != len(_PARTS):
        return None
    name = ModelName(*parts)
    if all(_PARTS[kind].fullmatch(value) for kind, value in name._asdict().items()):
        return name
    return None


def same(first: str, second: str) -> bool:
    """Say whether two valid names mean the same model."""
    return parse_name(first).key == parse_name(second).key


def pin_problem(text: str) -> str:
    """Say why a text is no digest to pin a model with; empty when it is one."""
    if _DIGEST.fullmatch(text.lower()):
        return ""
    digits = text.lower()[7:] if text.lower().startswith("sha256:") else text.lower()
    if not re.fullmatch(r"[0-9a-f]*", digits):
        return "it has characters that are no hexadecimal digits"
    return f"it has {len(digits)} hexadecimal digits"


def read_pin(text: str) -> str:
    """Return a pin as lower-case hexadecimal digits; empty when there is none.

    Raises:
        HostError: the text is no digest.
    """
    if not text:
        return ""
    problem = pin_problem(text)
    if problem:
        raise HostError(
            f"{text!r} is no digest: {problem}, wanted 12 to 64 as `ollama list` shows them."
        )
    return text.lower()[7:] if text.lower().startswith("sha256:") else text.lower()


def _split(text: str) -> ModelName:
    """Split from the right, as Ollama does; what is missing gets its default."""
    rest, tag = text, DEFAULT_TAG
    if text.rfind(":") > text.rfind("/"):
        rest, tag = text.rsplit(":", 1)
    parts = rest.split("/")
    host = parts[-3] if len(parts) > 2 else DEFAULT_HOST
    namespace = parts[-2] if len(parts) > 1 else DEFAULT_NAMESPACE
    return ModelName(host, namespace, parts[-1], tag)
