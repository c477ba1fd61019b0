# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Images that cannot change under one's feet: by digest from a registry, or from a checked archive.

The id of a loaded image depends on the engine and on how it stores images, so it is not declared:
which archive became which image is written down when it is loaded.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._container_engine import Engine, ended
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    file_sha256,
    make_directories,
    write_atomic,
)

_BY_DIGEST = re.compile(r"^[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}$")
_LOADED = re.compile(r"^(?:Loaded image(?:\(s\))?(?: ID)?|Loaded image):\s*(\S+)", re.MULTILINE)
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})\s*$")


@dataclass(frozen=True)
class Source:
    """Where an image comes from.

    Attributes:
        host: name of the host in messages.
        reference: name with digest; empty for an archive.
        archive: path on the host; empty for a registry.
        sha256: checksum of the archive.
        form: what the archive holds: an ``image``, or the files of a ``rootfs``.
    """

    host: str
    reference: str = ""
    archive: str = ""
    sha256: str = ""
    form: str = "image"


def check_source(source: Source) -> None:
    """Refuse what could be another image tomorrow.

    Raises:
        HostError: a tag instead of a digest, or an archive without checksum.
    """
    if bool(source.reference) == bool(source.archive):
        given = "both" if source.archive else "neither"
        raise HostError(
            f"{source.host}: {given} of reference and archive given, wanted: one of them."
        )
    if source.reference and not _BY_DIGEST.match(source.reference):
        raise HostError(
            f"{source.host}: the image is {source.reference}, wanted: name@sha256:<64 hex digits>. "
            "A tag is another image tomorrow.",
            "Look the digest up, for example with: skopeo inspect docker://NAME:TAG",
        )
    if source.archive and not re.fullmatch(r"[0-9a-f]{64}", source.sha256):
        raise HostError(
            f"{source.host}: {source.archive} has the checksum '{source.sha256}', wanted: 64 hex "
            "digits of SHA-256.",
            "Make it with sha256sum where the archive was made.",
        )


def remembered(state_file: str, engine: Engine, source: Source) -> str:
    """Return the id that an archive was loaded as; empty when it is not (any more) there."""
    identity = _read_state(state_file).get(_key(engine, source), "")
    return identity if identity and engine.image_id(identity) else ""


def remember(state_file: str, engine: Engine, source: Source, identity: str) -> None:
    """Write down which image an archive became."""
    state = _read_state(state_file)
    state[_key(engine, source)] = identity
    make_directories(os.path.dirname(state_file))
    write_atomic(state_file, (json.dumps(state, indent=2, sort_keys=True) + "\n").encode())


def pull(engine: Engine, source: Source, timeout_s: float, authfile: str = "") -> str:
    """Pull by digest and return the image's id.

    Raises:
        HostError: it could not be pulled.
    """
    options: list[str] = []
    if authfile and engine.name == "podman":
        options = [f"--authfile={authfile}"]
    elif authfile:
        engine = Engine(
            engine.name,
            engine.host,
            engine.run,
            engine.timeout_s,
            base=("--config", os.path.dirname(authfile)),
        )
    outcome = engine.call("pull", "--quiet", *options, source.reference, timeout_s=timeout_s)
    if outcome.rc != 0:
        raise HostError(
            f"{source.host}: {engine.name} pull {source.reference} {ended(outcome)}.",
            "Check that the registry can be reached, or declare an archive instead.",
        )
    return _there(engine, source, source.reference)


def load(engine: Engine, source: Source, timeout_s: float) -> str:
    """Load an archive whose checksum is right, and return the image's id.

    Raises:
        HostError: it is missing, another one, or cannot be loaded.
    """
    try:
        found = file_sha256(source.archive)
    except FileNotFoundError as error:
        raise HostError(
            f"{source.host}: {source.archive} does not exist, wanted: the archive of an image.",
            "Copy it to the host, or declare a reference.",
        ) from error
    if found != source.sha256:
        raise HostError(
            f"{source.host}: {source.archive} has the SHA-256 {found}, wanted: {source.sha256}. "
            "It was not loaded.",
            "Copy it again, or correct the declared checksum if the archive is the right one.",
        )
    if source.form == "rootfs":
        arguments = ["import", source.archive]
    else:
        arguments = ["load", f"--input={source.archive}"]
    outcome = engine.call(*arguments, timeout_s=timeout_s)
    if outcome.rc != 0:
        raise HostError(f"{source.host}: {engine.name} {' '.join(arguments)} {ended(outcome)}.")
    name = _name(outcome.out, source)
    if not name:
        raise HostError(
            f"{source.host}: {engine.name} {' '.join(arguments)} named no image or more than one: "
            f"{outcome.out.strip()!r}.",
            "Make an archive of one image: podman save, or docker save, with one name.",
        )
    return _there(engine, source, name)


def _name(out: str, source: Source) -> str:
    if source.form == "rootfs":
        match = _ID.search(out)
        return match.group(1) if match else ""
    names = _LOADED.findall(out)
    return names[0] if len(names) == 1 else ""


def _there(engine: Engine, source: Source, name: str) -> str:
    identity = engine.image_id(name)
    if not identity:
        raise HostError(
            f"{source.host}: {name} is not among the images of {engine.name} although it was just "
            "fetched."
        )
    return identity


def _key(engine: Engine, source: Source) -> str:
    return f"{engine.name} {source.form} {source.sha256}"


def _read_state(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            return dict(json.load(file))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise HostError(
            f"{path} is damaged: {error}.", "Remove it; archives are then loaded again."
        ) from error
