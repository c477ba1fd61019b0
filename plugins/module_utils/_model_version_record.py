# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a host remembers about the update of a model, and the name of its kept version.

The kept version is a second name of the model, so that the store itself says which version it is;
the record says what came of it. A record that is damaged counts as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import PREVIOUS_SUFFIX
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    make_directories,
    write_atomic,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import ModelName

FORMAT = 1
FOLDER = "updates"
REJECTED_SUFFIX = "-hx-rejected"
TAG_LIMIT = 80  # characters that Ollama takes for a tag
FILE_LIMIT = 64 * 1024  # bytes; a record has a few hundred

# A version is kept and not judged; is to be gone back to; is back; stands judged as the lesser one.
NONE, PENDING, RESTORING, RESTORED, ACCEPTED = "", "pending", "restoring", "restored", "accepted"
STATES = (NONE, PENDING, RESTORING, RESTORED, ACCEPTED)

_NAME_LIMIT = 180  # bytes of an encoded name; a file system takes 255 with suffixes
_HEX = re.compile(r"(?:[0-9a-f]{64})?")


@dataclass(frozen=True)
class Rejected:
    """The version that was gone back from last: its digest, when (RFC 3339), and why."""

    digest: str
    at: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Record:
    """What is remembered about a model.

    Attributes:
        state: one of ``STATES``.
        digest: of the version that was kept.
        since: when it was kept, RFC 3339.
        offered: the digest that the update was to bring, as far as it was known.
        rejected: the version that was gone back from last.
    """

    state: str = NONE
    digest: str = ""
    since: str = ""
    offered: str = ""
    rejected: Rejected | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to remember."""
        return self.state == NONE and self.rejected is None


def kept_name(name: ModelName) -> ModelName:
    """Return the name that a model's previous version is kept under.

    Raises:
        HostError: the name is that of a kept version, or it would become too long.
    """
    return _with_suffix(name, PREVIOUS_SUFFIX)


def kept_versions(listed: Iterable[str], declared: Iterable[str]) -> set[str]:
    """Return those names of an engine's list that updates keep versions of declared models under.

    Both as the engine writes them, with the tag.
    """
    wanted = {name.lower() for name in declared}
    return {
        name
        for name in listed
        if name.lower().endswith(PREVIOUS_SUFFIX)
        and name[: -len(PREVIOUS_SUFFIX)].lower() in wanted
    }


def rejected_name(name: ModelName) -> ModelName:
    """Return the name that a version has for the moment in which it is replaced and removed."""
    return _with_suffix(name, REJECTED_SUFFIX)


def record_path(state_dir: str, name: ModelName) -> str:
    """Return the path of a model's record."""
    encoded = quote(name.key, safe="")
    if len(encoded) > _NAME_LIMIT:
        digest = hashlib.sha256(name.key.encode()).hexdigest()
        encoded = f"{encoded[:_NAME_LIMIT]}-{digest[:16]}"
    return os.path.join(state_dir, FOLDER, f"{encoded}.json")


def read_record(state_dir: str, name: ModelName) -> Record:
    """Return what is remembered about a model; an empty record when there is nothing readable.

    Raises:
        HostError: the file is there, but the system refuses to read it.
    """
    path = record_path(state_dir, name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            content = stream.read(FILE_LIMIT)
    except FileNotFoundError:
        return Record()
    except OSError as error:
        raise HostError(f"{path} can't be read: {error.strerror}.") from error
    with contextlib.suppress(AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return _parsed(json.loads(content), name)
    return Record()


def write_record(state_dir: str, name: ModelName, record: Record) -> None:
    """Write what is to be remembered, or remove the file when that is nothing.

    Raises:
        HostError: it can't be written.
    """
    path = record_path(state_dir, name)
    try:
        if record.empty:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        make_directories(state_dir)
        make_directories(os.path.dirname(path), 0o700)
        content = {"format": FORMAT, "model": str(name), **asdict(record)}
        write_atomic(path, json.dumps(content, sort_keys=True).encode() + b"\n", 0o600)
    except OSError as error:
        raise HostError(
            f"the record of the update {path} can't be written: {error.strerror or error}.",
            "Correct its access or free some space.",
        ) from error


def _parsed(content: Mapping[str, Any], name: ModelName) -> Record:
    rejected = content["rejected"]
    record = Record(
        state=content["state"],
        digest=content["digest"],
        since=str(content["since"]),
        offered=content["offered"],
        rejected=None if rejected is None else Rejected(**{k: str(v) for k, v in rejected.items()}),
    )
    digests = [record.digest, record.offered, record.rejected.digest if record.rejected else ""]
    sound = content["format"] == FORMAT and content["model"].lower() == str(name).lower()
    if not sound or record.state not in STATES or not all(map(_HEX.fullmatch, digests)):
        raise ValueError("no record of this model")
    return record


def _with_suffix(name: ModelName, suffix: str) -> ModelName:
    for taken in (PREVIOUS_SUFFIX, REJECTED_SUFFIX):
        if name.tag.lower().endswith(taken):
            raise HostError(
                f"{name} is the name of a version that is kept, wanted the model's own name."
            )
    if len(name.tag) + len(suffix) > TAG_LIMIT:
        raise HostError(
            f"no version of {name} can be kept: its tag has {len(name.tag)} characters, wanted at"
            f" most {TAG_LIMIT - len(suffix)}, because {suffix} is added."
        )
    return name._replace(tag=f"{name.tag}{suffix}")
