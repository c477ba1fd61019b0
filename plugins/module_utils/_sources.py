# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Where models come from: another host of the inventory, a registry, an archive.

A source is asked for an offer, which costs a few requests and no download, and, when the plan has
chosen it, for the model itself. What peers and archives give goes through the store's own writer,
blobs first and the manifest last; a registry is the engine's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._source_archive import ArchiveSource
from ansible_collections.hx_infra.llm.plugins.module_utils._source_copy import Tell, tell_nobody
from ansible_collections.hx_infra.llm.plugins.module_utils._source_http import Retries
from ansible_collections.hx_infra.llm.plugins.module_utils._source_peer import PeerSource
from ansible_collections.hx_infra.llm.plugins.module_utils._source_registry import (
    Pull,
    RegistrySource,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_import import StoreWriter
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Http

__all__ = ["ARCHIVE", "PEER", "REGISTRY", "Offer", "Source", "make_sources", "source_for"]

PEER, REGISTRY, ARCHIVE = PeerSource.kind, RegistrySource.kind, ArchiveSource.kind

_CHECKSUM = re.compile(r"sha256:([0-9a-f]{64})")


class Source(Protocol):
    """One place that models come from.

    Attributes:
        label: what people call it; unique in a run.
        kind: ``peer``, ``registry`` or ``archive``.
    """

    label: str
    kind: str

    def offer(self, item: Wanted) -> Offer:
        """Say what it has; a source that fails says so in the offer.

        Raises:
            HostError: it is time to give up.
        """

    def fetch(
        self, item: Wanted, offer: Offer, on_progress: Callable[[str, int, int], None]
    ) -> None:
        """Bring a model into the store, blobs first, the manifest last.

        Args:
            item: the declared model.
            offer: what this source said about it.
            on_progress: called with what happens, and bytes done and in total of the model.

        Raises:
            HostError: it can't be had; what has come stays, and a later run goes on from there.
        """


def make_sources(
    specs: Sequence[Mapping[str, Any]],
    *,
    writer: StoreWriter,
    registry: Pull,
    http: Http,
    retries: Retries = Retries(),  # noqa: B008 - frozen
    watch: Watch | None = None,
    tell: Tell = tell_nobody,
) -> list[Source]:
    """Read the option ``sources``, in its order; none stands for the registry alone.

    Args:
        specs: what was declared.
        writer: writes into the store for peers and archives; it touches nothing before that.
        registry: pulls a model through the engine.
        http: asks registries.
        retries: how often and how patiently peers and archives are asked again.
        watch: when to give up on sources, in whatever they do.
        tell: told a model that peers and archives are asked for, and what that waits for.

    Raises:
        HostError: a declared source lacks something, or two of them have one name.
    """
    watch = watch or Watch()
    asked = {"retries": retries.under(watch), "watch": watch, "tell": tell}
    found: list[Source] = []
    for spec in specs or ({"type": REGISTRY},):
        kind = str(spec.get("type") or "")
        if kind == REGISTRY:
            source: Source = RegistrySource(http, registry, watch)
        elif kind == PEER:
            source = _peer(spec, writer, asked)
        elif kind == ARCHIVE:
            source = _archive(spec, writer, asked)
        else:
            raise HostError(
                f"a source is of the type {kind!r}, wanted {PEER}, {REGISTRY} or {ARCHIVE}."
            )
        if any(other.label == source.label for other in found):
            raise HostError(f"the source {source.label!r} is declared twice.", "Give it a name.")
        found.append(source)
    return found


def source_for(sources: Sequence[Source], label: str) -> Source:
    """Return the source that made an offer, by what the offer calls it."""
    for source in sources:
        if label == source.label:
            return source
    for source in sources:  # the registry's offers name its host
        if source.kind == REGISTRY and label.startswith(f"{source.label} "):
            return source
    raise HostError(f"there is no source {label!r}.")


def _peer(spec: Mapping[str, Any], writer: StoreWriter, asked: dict[str, Any]) -> PeerSource:
    url, token = str(spec.get("url") or ""), str(spec.get("token") or "")
    name = str(spec.get("name") or url)
    if not url.startswith(("http://", "https://")):
        raise HostError(f"the peer {name!r} has the url {url!r}, wanted http://host:port.")
    if not token:
        raise HostError(f"the peer {name!r} has no token.", "Its server gives models to no other.")
    return PeerSource(name, url, token, writer, ca_path=spec.get("ca_path"), **asked)


def _archive(spec: Mapping[str, Any], writer: StoreWriter, asked: dict[str, Any]) -> ArchiveSource:
    path, url = str(spec.get("path") or ""), str(spec.get("url") or "")
    place = path or url
    if bool(path) == bool(url) or (url and not url.startswith(("http://", "https://"))):
        raise HostError(
            f"the archive {spec.get('name') or place!r} has path {path!r} and url {url!r}, wanted "
            "one of them, the url with http:// or https://."
        )
    checksum = _CHECKSUM.fullmatch(str(spec.get("checksum") or "").lower())
    if checksum is None:
        raise HostError(
            f"the archive {place} has the checksum {spec.get('checksum')!r}, wanted sha256: and 64 "
            "hexadecimal digits.",
            f"It is in {place}.sha256 where the archive was made.",
        )
    return ArchiveSource(
        str(spec.get("name") or place),
        place,
        checksum.group(1),
        writer,
        ca_path=spec.get("ca_path"),
        **asked,
    )
