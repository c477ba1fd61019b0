# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Engine releases: which version is installed, what has to happen, how files get into place.

An Ollama release is an archive with ``bin/ollama`` and ``lib/ollama/``. Libraries of another
version beside the binary break its GPU discovery, so the library folder is replaced as a whole.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from typing import Any, Callable

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import file_sha256

Runner = Callable[[list[str]], "tuple[int, str, str]"]

_VERSION = re.compile(r"(?:client )?version is (\d+\.\d+\.\d+\S*)")
_CHECKSUM = re.compile(r"^(?:sha256:)?([0-9a-f]{64})$")


def parse_version(output: str) -> str:
    """Return the binary's own version from ``ollama --version``, empty when it names none.

    With a server running the first line names the server's version; a line
    ``Warning: client version is X`` then names the binary's, when they differ.
    """
    found = _VERSION.findall(output)
    client = re.search(r"client version is (\d+\.\d+\.\d+\S*)", output)
    if client:
        return client.group(1)
    return found[0] if found else ""


def installed_version(binary: str, run: Runner) -> str:
    """Ask the binary for its version; a missing or broken one has none."""
    if not os.access(binary, os.X_OK):
        return ""
    rc, out, err = run([binary, "--version"])
    return parse_version(out + err) if rc == 0 else ""


def parse_checksum(text: str) -> str:
    """Return the 64 hex digits of ``sha256:<hex>`` or ``<hex>``.

    Raises:
        HostError: it is neither.
    """
    match = _CHECKSUM.match(text.strip().lower())
    if not match:
        raise HostError(f"checksum is '{text}', wanted sha256:<64 hex digits>.")
    return match.group(1)


def checksum_from_list(text: str, filename: str, source: str) -> str:
    """Find a file's line in a ``sha256sum`` list, whose names may start with ``./`` or ``*``.

    Raises:
        HostError: the list has no line for the file.
    """
    for line in text.splitlines():
        digest, _separator, name = line.strip().partition(" ")
        if name.strip().lstrip("*").replace("./", "", 1) == filename:
            return parse_checksum(digest)
    raise HostError(f"{source} has no line for {filename}.", "Is it the same release's list?")


def plan(found: str, wanted: str, unfinished: bool, url: str, prefix: str) -> list[dict[str, Any]]:
    """Decide whether the release has to be installed.

    Args:
        found: the installed version, empty when there is none.
        wanted: the declared version.
        unfinished: an earlier installation was interrupted.
        url: where the archive comes from.
        prefix: where it goes.
    """
    if found == wanted and not unfinished:
        return []
    return [
        {"action": "download", "target": url, "version": wanted},
        {"action": "install", "target": prefix, "version": wanted, "found": found or "none"},
    ]


def sentences(actions: list[dict[str, Any]]) -> list[str]:
    """Say each planned action in words."""
    result = []
    for item in actions:
        if item["action"] == "download":
            result.append(f"download Ollama {item['version']} from {item['target']}")
        else:
            result.append(
                f"install Ollama {item['version']} under {item['target']} (found: {item['found']})"
            )
    return result


def verify_archive(path: str, checksum: str) -> None:
    """Compare the archive's SHA-256 with the declared one; a wrong file is removed."""
    found = file_sha256(path)
    if found != checksum:
        os.unlink(path)
        raise HostError(
            f"{path} has sha256 {found}, wanted {checksum}.",
            "The download was damaged or the declared checksum is of another file.",
        )


def unpack(archive: str, staging: str, run: Runner) -> None:
    """Unpack ``.tgz`` or ``.tar.zst`` (by the zstd program) into a fresh folder."""
    if os.path.isdir(staging):
        shutil.rmtree(staging)
    os.makedirs(staging, mode=0o755)
    plain = archive
    if archive.endswith(".zst"):
        plain = os.path.join(staging, "release.tar")
        rc, _out, err = run(["zstd", "--decompress", "--force", "-o", plain, archive])
        if rc != 0:
            raise HostError(f"zstd can't unpack {archive}: {err.strip()}.", "Is zstd installed?")
    try:
        with tarfile.open(plain) as tar:
            for member in tar:
                _check_member(archive, member)
                member.uid = member.gid = 0  # what the archive says are accounts of another host
                member.uname = member.gname = ""
                member.mode &= 0o755
                tar.extract(member, staging)
    except tarfile.TarError as error:
        raise HostError(f"{archive} is no readable archive: {error}.") from error
    if plain != archive:
        os.unlink(plain)
    for needed in ("bin/ollama", "lib/ollama"):
        if not os.path.exists(os.path.join(staging, needed)):
            raise HostError(f"{archive} holds no {needed}, so it is no Ollama release.")


def _check_member(archive: str, member: tarfile.TarInfo) -> None:
    """Refuse what would be written, or would lead, outside of the folder."""
    places = [member.name]
    if member.islnk():
        places.append(member.linkname)
    elif member.issym():
        places.append(os.path.join(os.path.dirname(member.name), member.linkname))
    elif not (member.isfile() or member.isdir()):
        raise HostError(f"{archive} holds {member.name}, which is no file, folder or link.")
    for place in places:
        if os.path.isabs(place) or os.path.normpath(place).split("/", 1)[0] == "..":
            raise HostError(f"{archive} holds the path {place}, which leads outside.")


def put_in_place(staging: str, prefix: str) -> None:
    """Replace the library folder, then the binary, by renames; the old libraries go last.

    The caller holds a marker on disk while this runs, so an interruption is seen by the next run.
    """
    library = os.path.join(prefix, "lib", "ollama")
    old = library + ".hx-old"
    os.makedirs(os.path.join(prefix, "lib"), exist_ok=True)
    os.makedirs(os.path.join(prefix, "bin"), exist_ok=True)
    if os.path.isdir(old):
        shutil.rmtree(old)
    if os.path.isdir(library):
        os.rename(library, old)
    os.rename(os.path.join(staging, "lib", "ollama"), library)
    os.rename(os.path.join(staging, "bin", "ollama"), os.path.join(prefix, "bin", "ollama"))
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(staging, ignore_errors=True)
