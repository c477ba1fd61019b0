# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What is declared about a model's files, and which of a source's files are wanted."""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub import COMMIT, SHA256, HubFile

HUB, PATH, ARCHIVE = "hub", "path", "archive"
MANIFEST = ".hx-model.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".pickle")
PROGRAMS = (".py", ".pyc", ".so", ".sh")
WEIGHTS = (".safetensors", ".gguf", *PICKLES)
INCLUDE = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.model",
    "*.tiktoken",
    "tokenizer*",
    "vocab*",
    "merges.txt",
)
_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_REVISION = re.compile(r"[\w./-]+")
_SUM_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")


@dataclass(frozen=True)
class Wanted:
    """A file that is wanted; what nobody has said is -1 or empty."""

    path: str
    size: int = -1
    sha256: str = ""
    git_sha1: str = ""


@dataclass(frozen=True)
class Rules:
    """Which kinds of files are taken."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_pickle: bool = False
    allow_code: bool = False

    def forbids(self, path: str) -> str:
        """Say why a path is not taken; empty when it may be."""
        lower = path.lower()
        if lower.endswith(PICKLES) and not self.allow_pickle:
            return "it is in Python's pickle format, which can run any code (allow_pickle)"
        if lower.endswith(PROGRAMS) and not self.allow_code:
            return "it is a program (allow_code)"
        return ""

    def matches(self, path: str) -> bool:
        """Say whether include and exclude leave a path in."""
        patterns = self.include or INCLUDE
        return _any(path, patterns) and not _any(path, self.exclude)


@dataclass(frozen=True)
class Source:
    """Where a model's files come from.

    Attributes:
        kind: ``hub``, ``path`` or ``archive``.
        place: the hub's base URL, the directory, or the archive's path or URL.
        model: the model's id on the hub.
        pin: the revision on the hub, or the archive's checksum.
        files: the declared SHA-256 of each file; empty when not declared.
    """

    kind: str
    place: str
    model: str = ""
    pin: str = ""
    files: tuple[tuple[str, str], ...] = ()

    @property
    def pinned(self) -> str:
        """How firmly it is pinned: ``files``, ``source`` or ``no``."""
        if self.files:
            return "files"
        if self.kind == HUB:
            return "source" if COMMIT.fullmatch(self.pin) else "no"
        return "source" if self.pin else "no"

    @property
    def said(self) -> str:
        """Name it for people."""
        return f"{self.model}@{self.pin[:12]}" if self.kind == HUB else self.place

    def noted(self, rules: Rules) -> dict[str, Any]:
        """Return what the note in the directory says about it: all that decides which files."""
        declared = bool(self.files)
        if self.kind == HUB:
            note = {"kind": HUB, "model": self.model, "revision": self.pin, "declared": declared}
            return {**note, "include": list(rules.include), "exclude": list(rules.exclude),
                    "pickle": rules.allow_pickle, "code": rules.allow_code}  # fmt: skip
        if self.kind == ARCHIVE:
            return {"kind": ARCHIVE, "sha256": self.pin, "exclude": list(rules.exclude),
                    "declared": declared}  # fmt: skip
        return {"kind": PATH, "path": self.place, "declared": declared}


@dataclass(frozen=True)
class Declaration:
    """Everything that was declared about a model's files."""

    name: str
    dest: str
    source: Source | None
    rules: Rules
    exclusive: bool = False
    prune_partials: bool = True
    full: bool = False
    update: bool = False

    @property
    def in_place(self) -> bool:
        """Whether the files are only verified where they are."""
        return (
            self.source is not None
            and self.source.kind == PATH
            and os.path.realpath(self.source.place) == os.path.realpath(self.dest)
        )


def read_declaration(params: Mapping[str, Any]) -> Declaration:
    """Read the options of the module.

    Raises:
        HostError: something is missing, contradicts itself, or isn't pinned.
    """
    raw = params["source"] or {}
    rules = Rules(
        tuple(raw.get("include") or ()),
        tuple(raw.get("exclude") or ()),
        params["allow_pickle"],
        params["allow_code"],
    )
    source = _read_source(raw, params["allow_unpinned"]) if raw else None
    if source is None and params["state"] == "present":
        raise HostError("source is not given.", "Give source.hub, source.path or source.archive.")
    dest = params["dest"] or (source.place if source and source.kind == PATH else "")
    if not dest:
        raise HostError("dest is not given.", "Give the directory that the model is served from.")
    if not os.path.isabs(dest) or os.path.normpath(dest) == "/":
        raise HostError(f"dest is {dest}, wanted the absolute path of a directory of its own.")
    if source:
        for path, _sha256 in source.files:
            refuse_forbidden(rules, [path], "source.files")
        refuse_forbidden(rules, rules.include, "source.include")
    return Declaration(
        params["name"],
        os.path.normpath(dest),
        source,
        rules,
        params["exclusive"],
        params["prune_partials"],
        params["verify"] == "full",
        params["update"],
    )


def _read_source(raw: Mapping[str, Any], allow_unpinned: bool) -> Source:
    kinds = [kind for kind in (HUB, PATH, ARCHIVE) if raw.get(kind)]
    if len(kinds) != 1:
        named = " and ".join(kinds) or "none of them"
        raise HostError(f"source names {named}, wanted exactly one of hub, path and archive.")
    files = tuple(sorted(_read_files(raw.get("files") or {}, "source.files").items()))
    read = {HUB: _read_hub, PATH: _read_path, ARCHIVE: _read_archive}[kinds[0]]
    return read(raw, files, allow_unpinned)


def _read_hub(raw: Mapping[str, Any], files: tuple[Any, ...], allow_unpinned: bool) -> Source:
    model, revision = raw["hub"], raw["revision"] or ("main" if allow_unpinned else "")
    if not _ID.fullmatch(model) or ".." in model:
        raise HostError(f"source.hub is {model!r}, wanted an id such as org/name.")
    if not COMMIT.fullmatch(revision) and not allow_unpinned:
        raise HostError(
            f"source.revision is {revision!r}, wanted a commit of 40 hexadecimal digits.",
            "A branch can change under you. The hub shows the commit under Files and versions; "
            "allow_unpinned takes a branch all the same.",
        )
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise HostError(f"source.revision is {revision!r}, which is no revision.")
    endpoint = raw["endpoint"].rstrip("/")
    _check_url(endpoint, "source.endpoint", raw["insecure"])
    return Source(HUB, endpoint, model, revision, files)


def _read_path(raw: Mapping[str, Any], files: tuple[Any, ...], allow_unpinned: bool) -> Source:
    if not files and not raw.get("manifest") and not allow_unpinned:
        raise HostError(
            f"source.path {raw['path']} comes without checksums.",
            "Give source.files or source.manifest (sha256sum writes one), or allow_unpinned.",
        )
    return Source(PATH, os.path.normpath(raw["path"]), files=files)


def _read_archive(raw: Mapping[str, Any], files: tuple[Any, ...], _allow: bool) -> Source:
    sha256 = raw["sha256"].lower().replace("sha256:", "")
    if not SHA256.fullmatch(sha256):
        raise HostError(f"source.sha256 is {raw['sha256']!r}, wanted 64 hexadecimal digits.")
    if "://" in raw["archive"]:
        _check_url(raw["archive"], "source.archive", raw["insecure"])
    elif not os.path.isabs(raw["archive"]):
        raise HostError(f"source.archive is {raw['archive']}, wanted an absolute path or a URL.")
    return Source(ARCHIVE, raw["archive"], pin=sha256, files=files)


def _check_url(url: str, option: str, insecure: bool) -> None:
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise HostError(f"{option} holds a password.", "Give a token in token_file.")
    if parts.scheme != "https" and not (parts.scheme == "http" and insecure):
        raise HostError(
            f"{option} is {url}, wanted https.", "source.insecure takes plain HTTP all the same."
        )
    if not parts.hostname:
        raise HostError(f"{option} is {url}, which names no host.")


def read_list(text: str, where: str) -> dict[str, str]:
    """Read the checksums that ``sha256sum`` has written, one line per file.

    Raises:
        HostError: a line is something else.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _SUM_LINE.fullmatch(line)
        if not match:
            raise HostError(f"{where}, line {number}: wanted a checksum, two spaces and a path.")
        name = match.group(2)
        found[name[2:] if name.startswith("./") else name] = match.group(1)
    return _read_files(found, where)


def _read_files(raw: Mapping[str, Any], where: str) -> dict[str, str]:
    found = {}
    for path, value in raw.items():
        check_path(str(path), where)
        sha256 = str(value).lower().replace("sha256:", "")
        if not SHA256.fullmatch(sha256):
            raise HostError(
                f"{where}: {path} has the checksum {value!r}, wanted 64 hexadecimal digits.",
                "Quote it if it consists of decimal digits only.",
            )
        found[str(path)] = sha256
    return found


def check_path(path: str, where: str) -> None:
    """Make sure that a path stays in its directory and is no name of ours.

    Raises:
        HostError: it doesn't.
    """
    parts = path.split("/")
    bad = not path or posixpath.isabs(path) or {"", ".", ".."} & set(parts)
    if bad or "\\" in path or any(ord(letter) < 32 for letter in path):
        raise HostError(f"{where} holds the path {path!r}, which leads outside or is none.")
    if parts[0] == MANIFEST or (len(parts) == 1 and path.endswith(".partial")):
        raise HostError(f"{where} holds the path {path!r}, a name that is needed here.")


def refuse_forbidden(rules: Rules, paths: Iterable[str], where: str) -> None:
    """Refuse kinds of files that can run code.

    Raises:
        HostError: there is one, and it wasn't allowed.
    """
    for path in paths:
        why = rules.forbids(path)
        if why:
            raise HostError(
                f"{where} holds {path}, which is refused: {why}.",
                "Take safetensors, exclude it, or allow it when you trust who made it.",
            )


def select(files: Iterable[HubFile], source: Source, rules: Rules) -> list[Wanted]:
    """Choose the wanted files from those that a hub offers.

    Raises:
        HostError: a declared file isn't offered or has another checksum, or there are no weights.
    """
    offered = {file.path: file for file in files}
    if source.files:
        return [_declared(path, sha256, offered, source) for path, sha256 in source.files]
    matching = [file for file in offered.values() if rules.matches(file.path)]
    chosen = [file for file in matching if not rules.forbids(file.path)]
    for file in chosen:
        check_path(file.path, f"{source.said} on the hub")
    if not any(file.path.lower().endswith(WEIGHTS) for file in chosen):
        pickles = sorted(path for path in offered if path.lower().endswith(PICKLES))
        others = f"; it offers pickles ({', '.join(pickles[:5])})" if pickles else ""
        raise HostError(
            f"{source.said} has no weights among the {len(chosen)} files that are wanted{others}.",
            "Choose a revision with safetensors, or set source.include and allow_pickle.",
        )
    return [Wanted(*file_fields(file)) for file in sorted(chosen, key=lambda file: file.path)]


def file_fields(file: HubFile) -> tuple[str, int, str, str]:
    """Return path, size and both checksums."""
    return file.path, file.size, file.sha256, file.git_sha1


def _declared(path: str, sha256: str, offered: Mapping[str, HubFile], source: Source) -> Wanted:
    file = offered.get(path)
    if file is None:
        raise HostError(
            f"source.files declares {path}, which {source.said} doesn't have.",
            "Check the path and the revision.",
        )
    if file.sha256 and file.sha256 != sha256:
        raise HostError(
            f"{path} of {source.said} has sha256 {file.sha256} on the hub, wanted {sha256}.",
            "The revision or the checksum is that of another file.",
        )
    return Wanted(path, file.size, sha256, file.git_sha1)


def _any(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
