# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The on-disk store: manifests and content-addressed blobs, in the real layout."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple

from sim_ollama import log, names

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.ollama.image."
DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
TRAVERSABLE = "ensure path elements are traversable"
PRUNE_GRACE_SECONDS = 3600.0


class StoreError(Exception):
    """A failure with the text that the real server gives."""


class InvalidDigestError(StoreError):
    """A digest that is not sha256 and 64 hex digits."""


class Manifest(NamedTuple):
    """One manifest file as read."""

    name: names.Name
    path: Path
    digest: str
    mtime: float
    data: dict[str, Any]

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The layers without the config."""
        return list(self.data.get("layers") or [])

    @property
    def config(self) -> dict[str, Any]:
        """The config's descriptor, empty where the manifest has none."""
        return dict(self.data.get("config") or {})

    @property
    def size(self) -> int:
        """The sum of the sizes as WRITTEN, config included; files are not looked at."""
        return sum(int(part.get("size", 0)) for part in [*self.layers, self.config])

    def digests(self) -> list[str]:
        """Every digest that this manifest refers to."""
        parts = [*self.layers, self.config]
        return [str(part["digest"]) for part in parts if part.get("digest")]

    def layer(self, kind: str) -> dict[str, Any] | None:
        """Return the first layer of a kind such as `model` or `template`."""
        return next((x for x in self.layers if x.get("mediaType") == LAYER_TYPE + kind), None)


def mkdir_all(path: Path) -> None:
    """Make a directory and its parents as Go's MkdirAll does, with its error texts."""
    try:
        if not path.stat().st_mode & 0o040000 or not path.is_dir():
            raise StoreError(f"mkdir {path}: not a directory")
        return
    except OSError:
        pass
    if path.parent != path:
        mkdir_all(path.parent)
    try:
        path.mkdir(mode=0o755)
    except OSError as exc:
        try:
            is_dir = path.is_dir() and not path.is_symlink()
        except OSError:
            is_dir = False
        if not is_dir:
            text = os.strerror(exc.errno or errno.EIO).lower()
            raise StoreError(f"mkdir {path}: {text}") from None


def write_json(value: object) -> bytes:
    """Encode as the server does: compact, no spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class Store:
    """One models directory."""

    def __init__(self, root: Path, warn: Callable[..., None] = log.warn) -> None:
        self.root = root
        self._warn = warn

    @property
    def blobs(self) -> Path:
        """The directory of blobs."""
        return self.root / "blobs"

    @property
    def manifests_dir(self) -> Path:
        """The directory of manifests."""
        return self.root / "manifests"

    def prepare(self) -> None:
        """Make the directories; a failure carries the hint that the real server gives."""
        for path in (self.blobs, self.manifests_dir):
            try:
                mkdir_all(path)
            except StoreError as exc:
                raise StoreError(f"{exc}: {TRAVERSABLE}") from None

    def blob_path(self, digest: str) -> Path:
        """Return where a blob lives; both spellings of the digest are accepted."""
        if not DIGEST.fullmatch(digest):
            raise InvalidDigestError("invalid digest format")
        return self.blobs / digest.replace(":", "-")

    # Manifests

    def read(self, name: names.Name) -> Manifest:
        """Read one manifest: OSError when missing, ValueError when it is no JSON object."""
        path = self.manifests_dir / name.path()
        raw = path.read_bytes()
        if not raw.strip():
            raise ValueError("EOF")
        try:
            data, _end = json.JSONDecoder().raw_decode(raw.decode("utf-8", "replace").lstrip())
        except ValueError:
            raise ValueError("unexpected end of JSON input") from None
        if not isinstance(data, dict):
            raise ValueError("json: cannot unmarshal value into Go value of type manifest")
        digest = hashlib.sha256(raw).hexdigest()
        return Manifest(name, path, digest, path.stat().st_mtime, data)

    def manifest_files(self) -> list[tuple[str, names.Name | None]]:
        """Return every file four levels deep with its name, None for a name that is invalid."""
        found = []
        for path in sorted(self.manifests_dir.glob("*/*/*/*")):
            if not path.is_dir():
                relative = path.relative_to(self.manifests_dir).as_posix()
                found.append((relative, names.from_path(relative)))
        return found

    def manifests(self, strict: bool = False) -> list[Manifest]:
        """Read all manifests; strict raises at the first bad one, else bad ones are skipped."""
        found = []
        for relative, name in self.manifest_files():
            if name is None:
                if strict:
                    raise StoreError(f"{relative} invalid model name")
                self._warn("manifest.go:172", "bad manifest name", path=relative)
                continue
            try:
                found.append(self.read(name))
            except (OSError, ValueError) as exc:
                if strict:
                    raise StoreError(f"{name.full()} {exc}") from None
                self._warn("manifest.go:180", "bad manifest", name=name.full(), error=exc)
        return found

    def existing(self, name: names.Name) -> names.Name:
        """Give a name the spelling of existing names, part by part, ignoring case."""
        known = [n for _path, n in self.manifest_files() if n is not None]
        parts = []
        for index, part in enumerate(name):
            same = [n[index] for n in known if n[index].lower() == part.lower()]
            parts.append(part if part in same or not same else same[0])
        return names.Name(*parts)

    def write_manifest(self, name: names.Name, data: bytes) -> None:
        """Write a manifest in place: not atomic, as in the real server."""
        path = self.manifests_dir / name.path()
        mkdir_all(path.parent)
        path.write_bytes(data)

    def copy(self, source: names.Name, target: names.Name) -> None:
        """Duplicate a manifest; no blob is copied."""
        raw = (self.manifests_dir / source.path()).read_bytes()
        self.write_manifest(target, raw)

    def delete(self, manifest: Manifest) -> None:
        """Remove a manifest, empty directories and the blobs that nothing else refers to."""
        manifest.path.unlink()
        self.prune_directories()
        self.remove_unreferenced(manifest.digests())

    def remove_unreferenced(self, digests: list[str]) -> int:
        """Remove those blobs of the list that no manifest refers to."""
        used = self.referenced()
        removed = 0
        for digest in sorted(set(digests) - used):
            try:
                self.blob_path(digest).unlink()
                removed += 1
            except (OSError, StoreError) as exc:
                self._warn("images.go:400", "couldn't remove blob", digest=digest, error=exc)
        return removed

    def referenced(self) -> set[str]:
        """Return every digest that some readable manifest refers to."""
        return {digest for m in self.manifests() for digest in m.digests()}

    # Blobs

    def layer_from_bytes(self, data: bytes, kind: str) -> dict[str, Any]:
        """Store bytes as a layer and return its descriptor."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        path = self.blob_path(digest)
        if not path.exists():
            self._commit(path, lambda file: file.write(data))
        media = CONFIG_TYPE if kind == "config" else LAYER_TYPE + kind
        return {"mediaType": media, "digest": digest, "size": len(data)}

    def layer_from_reader(self, read: Callable[[int], bytes]) -> str:
        """Store a stream under its true digest and return that digest."""
        handle, temporary = tempfile.mkstemp(prefix="sha256-", dir=self.blobs)
        digest = hashlib.sha256()
        try:
            with os.fdopen(handle, "wb") as file:
                while True:
                    chunk = read(1 << 16)
                    if not chunk:
                        break
                    digest.update(chunk)
                    file.write(chunk)
            name = "sha256:" + digest.hexdigest()
            Path(temporary).replace(self.blob_path(name))
            self.blob_path(name).chmod(0o644)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return name

    def _commit(self, path: Path, fill: Callable[[Any], object]) -> None:
        handle, temporary = tempfile.mkstemp(prefix="sha256-", dir=self.blobs)
        try:
            with os.fdopen(handle, "wb") as file:
                fill(file)
            Path(temporary).replace(path)
            path.chmod(0o644)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    # Start-up

    def rename_colon_blobs(self) -> None:
        """Rename blobs of the oldest layout, `sha256:<hex>`."""
        for path in list(self.blobs.iterdir()):
            if path.name.startswith("sha256:"):
                path.rename(path.with_name(path.name.replace(":", "-", 1)))

    def prune(self, grace: bool) -> None:
        """Remove what no manifest refers to; grace spares what changed within the last hour."""
        try:
            self.manifests(strict=True)
        except StoreError as exc:
            self._warn(
                "routes.go:1311",
                "corrupt manifests detected, skipping prune operation.  Re-pull or delete to clear",
                error=exc,
            )
            return
        newest = time.time() - PRUNE_GRACE_SECONDS
        blobs = []
        for path in sorted(self.blobs.iterdir()):
            if grace and path.lstat().st_mtime > newest:
                continue
            if DIGEST.fullmatch(path.name):
                blobs.append(path.name.replace("-", ":", 1))
                continue
            try:
                path.unlink()
            except OSError as exc:
                log.error("images.go:467", "couldn't remove blob", blob=path.name, error=exc)
        log.info("images.go:477", f"total blobs: {len(blobs)}")
        removed = self.remove_unreferenced(blobs)
        log.info("images.go:484", f"total unused blobs removed: {removed}")
        self.prune_directories()

    def prune_directories(self) -> None:
        """Remove empty directories below manifests."""
        for folder, _dirs, _files in os.walk(self.manifests_dir, topdown=False):
            path = Path(folder)
            if path != self.manifests_dir and not any(path.iterdir()):
                path.rmdir()
