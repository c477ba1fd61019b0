# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Archives of models: an uncompressed POSIX tar with an index first.

Its members, in order: ``hx-models.json``, the manifests, the blobs, with the paths that they have
in a store. The index says ``format`` (1) and ``models``, a list of name, manifest (path), digest,
and blobs with digest and size; digests begin with ``sha256:``. Nothing in an archive depends on
when, where or by whom it is made: the same models give the same bytes.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    ModelName,
    manifest_name,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    BLOBS,
    MANIFESTS,
    Layer,
    unique,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import (
    RegistryError,
    Remote,
    exact_remote,
)

INDEX = "hx-models.json"
FORMAT = 1
INDEX_LIMIT = 64 * 1024 * 1024
MANIFEST_LIMIT = 4 * 1024 * 1024
_BLOB = re.compile(rf"{BLOBS}/sha256-([0-9a-f]{{64}})")
_BLOCK, _RECORD = 512, 20 * 512


class FormatError(Exception):
    """An archive isn't what this collection writes; the text is a part of a sentence."""


@dataclass(frozen=True)
class Packed:
    """A model in an archive."""

    name: ModelName
    remote: Remote


def index_of(models: Iterable[tuple[ModelName, str, Iterable[Layer]]]) -> bytes:
    """Write the index of name, digest and blobs of models."""
    listed = [
        {
            "name": name.full,
            "manifest": name.manifest,
            "digest": f"sha256:{digest}",
            "blobs": [
                {"digest": f"sha256:{layer.digest}", "size": layer.size} for layer in unique(layers)
            ],
        }
        for name, digest, layers in models
    ]
    return json.dumps({"format": FORMAT, "models": listed}, indent=1).encode() + b"\n"


def header(name: str, size: int) -> bytes:
    """Return what stands before a member's content."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """Return what stands after content of some size."""
    return b"\0" * (-size % _BLOCK)


def ending(size: int) -> bytes:
    """Return what stands at the end of an archive of some size."""
    return b"\0" * (2 * _BLOCK + -(size + 2 * _BLOCK) % _RECORD)


def blob_digest(member: tarfile.TarInfo) -> str:
    """Return the digest of the blob that a member is, with or without one."""
    match = _BLOB.fullmatch(member.name)
    return match.group(1) if match and member.isreg() else ""


def read_head(archive: tarfile.TarFile, place: str) -> dict[str, Packed]:
    """Read index and manifests, and return the models by the key of their name.

    Raises:
        FormatError: it is another archive, or its index and its manifests contradict each other.
    """
    data = _json(_next(archive, INDEX, INDEX_LIMIT))
    if data.get("format") != FORMAT:
        raise FormatError(f"its format is {data.get('format')!r}, wanted {FORMAT}")
    found = {}
    for entry in data.get("models") or []:
        path, digest = _field(entry, "manifest"), _field(entry, "digest")
        name = manifest_name(path[len(MANIFESTS) + 1 :])
        if name is None or name.manifest != path:
            raise FormatError(f"its index has the manifest {path!r}")
        try:
            remote = exact_remote(place, _next(archive, path, MANIFEST_LIMIT))
        except RegistryError as error:
            raise FormatError(f"{path}: {error.problem}") from error
        if f"sha256:{remote.digests[0]}" != digest:
            raise FormatError(f"{path} has the digest {remote.digests[0]}, its index says {digest}")
        found[name.key] = Packed(name, remote)
    return found


def _next(archive: tarfile.TarFile, wanted: str, limit: int) -> bytes:
    member = archive.next()
    found = member.name if member else "nothing"
    content = archive.extractfile(member) if member and member.isreg() else None
    if found != wanted or content is None or not member or member.size > limit:
        raise FormatError(f"it has {found!r} where {wanted} belongs")
    return content.read()


def _json(content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its {INDEX} is no JSON ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("models"), list):
        raise FormatError(f"its {INDEX} has no list of models")
    return data


def _field(entry: Any, key: str) -> str:
    return str(entry.get(key, "")) if isinstance(entry, dict) else ""
