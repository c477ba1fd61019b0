# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Asking a model registry what a pull would bring, without pulling."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import ModelName
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    Layer,
    parse_manifest,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Exchange, Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Answer, Http

ACCEPT = "application/vnd.docker.distribution.manifest.v2+json"
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Remote:
    """A model as a registry offers it.

    Attributes:
        url: where its manifest is.
        digests: the digests that a pull of it can give: of the manifest as it is, which Ollama
            stores since 0.19.0, and as written anew, which older versions store.
        layers: its blobs.
        content: the manifest as it was served.
    """

    url: str
    digests: tuple[str, ...]
    layers: tuple[Layer, ...]
    content: bytes = b""

    @property
    def size(self) -> int:
        """Sum of the sizes in the manifest."""
        return sum(layer.size for layer in self.layers)

    def meets(self, pin: str) -> bool:
        """Say whether a pull can give the pinned digest."""
        return any(digest.startswith(pin) for digest in self.digests)

    def digest_for(self, pin: str) -> str:
        """Return the digest that a pull is expected to give."""
        return next((digest for digest in self.digests if digest.startswith(pin)), self.digests[0])


class RegistryError(HostError):
    """A source of manifests has none for us.

    Args:
        url: what was asked for.
        problem: why not, as a part of a sentence about the source.
        remedy: what the operator can do.
        reachable: whether there was an answer at all.
    """

    def __init__(self, url: str, problem: str, remedy: str = "", *, reachable: bool = True) -> None:
        super().__init__(f"{url}: {problem}.", remedy)
        self.url = url
        self.problem = problem
        self.reachable = reachable


def manifest_url(name: ModelName, *, insecure: bool) -> str:
    """Return the address of a model's manifest; an insecure registry speaks plain HTTP."""
    scheme = "http" if insecure else "https"
    return f"{scheme}://{name.host}/v2/{name.namespace}/{name.model}/manifests/{name.tag}"


def ask(
    http: Http, source: ModelName, *, insecure: bool, watch: Watch | None = None
) -> Remote | None:
    """Ask a registry for a manifest.

    Args:
        http: the HTTP function.
        source: the full name to ask for.
        insecure: whether the registry speaks plain HTTP.
        watch: when to give up.

    Returns:
        What the registry offers, or None when it asks for a login that only the engine's own key
        can give.

    Raises:
        RegistryError: the registry can't be reached, or has no such model, or fails.
        HostError: it is time to give up.
    """
    url = manifest_url(source, insecure=insecure)
    watch = watch or Watch()

    def send() -> Answer:
        return http("GET", url, None, {"Accept": ACCEPT}, watch.seconds(TIMEOUT_S))

    try:
        with Exchange(send, watch, f"asking {source.host} for {source}") as exchange:
            status = exchange.answer().status
            content = exchange.read()
    except OSError as error:
        raise RegistryError(
            url,
            f"it can't be reached: {error}",
            "Check the registry's address, or its name resolution and firewall on this host.",
            reachable=False,
        ) from error
    if status == 401:
        return None
    if status == 404:
        raise RegistryError(url, "it doesn't have it (404)", "Check the name and the tag.")
    if status != 200:
        text = content.decode("utf-8", errors="replace").strip()[:200]
        raise RegistryError(url, f"it answers {status} {text}".strip())
    return read_remote(url, content)


def read_remote(url: str, content: bytes) -> Remote:
    """Read a registry's manifest.

    Raises:
        RegistryError: it is none.
    """
    try:
        layers = parse_manifest(content)
        digests = (_digest(content), _digest(_rewritten(json.loads(content))))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RegistryError(url, f"its answer is no manifest: {error}") from error
    return Remote(url, tuple(dict.fromkeys(digests)), layers, content)


def exact_remote(url: str, content: bytes) -> Remote:
    """Read a manifest that is going to be stored byte for byte, so that it has one digest only.

    Raises:
        RegistryError: it is none.
    """
    try:
        return Remote(url, (_digest(content),), parse_manifest(content), content)
    except (ValueError, RecursionError) as error:
        raise RegistryError(url, f"its manifest is none: {error}") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _rewritten(data: dict[str, Any]) -> bytes:
    """Write a manifest as Go's encoder writes the fields that Ollama before 0.19.0 knew."""
    text = json.dumps(
        {
            "schemaVersion": data["schemaVersion"],
            "mediaType": data["mediaType"],
            "config": _known_fields(data["config"]),
            "layers": [_known_fields(layer) for layer in data["layers"]],
        },
        separators=(",", ":"),
        ensure_ascii=False,
    )
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def _known_fields(layer: dict[str, Any]) -> dict[str, Any]:
    known = {key: layer[key] for key in ("mediaType", "digest", "size")}
    return {**known, "from": layer["from"]} if layer.get("from") else known
