# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Unpacking an archive that nobody trusts: only plain files, only below one directory.

Links are allowed when they lead to another file of the archive, and become hard links. Owners,
modes and times in the archive are ignored.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_download import (
    CHUNK,
    GUARD_EVERY,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files import check_path

LINK_MAX = 4096
_ZSTD = b"\x28\xb5\x2f\xfd"
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Member:
    """An entry of an archive; ``link`` is the path in the archive that it leads to."""

    path: str
    size: int
    link: str = ""
    content: Callable[[], IO[bytes]] | None = None


@dataclass
class Unpacking:
    """Where an archive goes and what watches over it.

    Attributes:
        label: the archive, for messages.
        root: the directory; what is there stays.
        accept: says whether a path is wanted, and raises when it must not be there.
        guard: raises when the disk has become too full.
        tell: called with the bytes that were written, and the path.
    """

    label: str
    root: str
    accept: Callable[[str], bool]
    guard: Callable[[int], None]
    tell: Callable[[int, str], None]
    written: set[str] = field(default_factory=set)

    def unpack(self, archive: str) -> list[str]:
        """Unpack, and return the paths of the files.

        Raises:
            HostError: the archive is damaged, or holds what it must not.
        """
        links: dict[str, str] = {}
        prefix = self._common_folder(archive)
        try:
            with _members(archive, self.label) as members:
                for member in members:
                    path = self._inside(member.path, prefix)
                    if not path or not self.accept(path):
                        continue
                    if member.link:
                        links[path] = self._inside(self._checked(member.link), prefix)
                    else:
                        self._write(path, member)
        except _BROKEN as error:
            raise HostError(f"{self.label} is damaged or no archive: {error}.") from error
        for path in links:
            self._link(path, links)
        return sorted(self.written)

    def _common_folder(self, archive: str) -> str:
        """Check every path, and the space; return the single folder around everything."""
        tops, nested, total = set(), True, 0
        try:
            with _members(archive, self.label) as members:
                for member in members:
                    path = self._checked(member.path)
                    if member.link:
                        self._checked(member.link)
                    tops.add(path.split("/")[0])
                    nested = nested and "/" in path
                    total += member.size
        except _BROKEN as error:
            raise HostError(f"{self.label} is damaged or no archive: {error}.") from error
        if not tops:
            raise HostError(f"{self.label} holds no files.")
        self.guard(total)
        return f"{tops.pop()}/" if nested and len(tops) == 1 else ""

    def _checked(self, path: str) -> str:
        plain = path[2:] if path.startswith("./") else path
        if posixpath.isabs(plain) or ".." in plain.split("/"):
            raise HostError(f"{self.label} holds the path {path!r}, which leads outside.")
        return plain

    def _inside(self, path: str, prefix: str) -> str:
        plain = self._checked(path)
        plain = plain[len(prefix) :] if prefix and plain.startswith(prefix) else plain
        check_path(plain, self.label)
        return plain

    def _place(self, path: str) -> str:
        if path in self.written:
            raise HostError(f"{self.label} holds {path} twice.")
        target = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)  # an undeclared file that was kept
        self.written.add(path)
        return target

    def _write(self, path: str, member: Member) -> None:
        if member.content is None:
            raise HostError(f"{self.label}: {path} has no content.")
        self.guard(member.size)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._place(path), flags, 0o644)
            with os.fdopen(descriptor, "wb") as target, member.content() as source:
                self._copy(source, target, path)
                target.flush()
                os.fchmod(target.fileno(), 0o644)
                os.fsync(target.fileno())
        except OSError as error:
            raise HostError(f"{self.label}: {path} can't be unpacked: {error}.") from error

    def _copy(self, source: IO[bytes], target: Any, path: str) -> None:
        since = 0
        while True:
            data = source.read(CHUNK)
            if not data:
                return
            target.write(data)
            self.tell(len(data), path)
            since += len(data)
            if since >= GUARD_EVERY:
                since = 0
                self.guard(0)

    def _link(self, path: str, links: dict[str, str]) -> None:
        target, seen = path, set()
        while target in links and target not in seen:
            seen.add(target)
            target = links[target]
        if target not in self.written or target in links:
            raise HostError(
                f"{self.label} holds the link {path} to {links[path]}, which is no file in it."
            )
        os.link(os.path.join(self.root, target), self._place(path))


@contextlib.contextmanager
def _members(archive: str, label: str) -> Iterator[Iterable[Member]]:
    with open(archive, "rb") as stream:
        magic = stream.read(4)
    if magic == _ZSTD:
        with _zstd(archive, label) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            yield _tar_members(tar, label)
    elif magic[:2] == b"PK":
        with zipfile.ZipFile(archive) as container:
            yield _zip_members(container, label)
    else:
        with tarfile.open(archive, mode="r|*") as tar:
            yield _tar_members(tar, label)


@contextlib.contextmanager
def _zstd(archive: str, label: str) -> Iterator[IO[bytes]]:
    program = shutil.which("zstd")
    if not program:
        raise HostError(f"{label} is packed with zstd, which is not on this host.", "Install zstd.")
    argv: Sequence[str] = [program, "--decompress", "--stdout", "--quiet", "--", archive]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        output = process.stdout or io.BytesIO()
        try:
            yield output
            while output.read(CHUNK):  # what follows the end of the tar
                continue
        finally:
            output.close()
            failed = process.wait()
        if failed:
            raise HostError(f"{label} is damaged: zstd ends with status {failed}.")


def _tar_members(tar: tarfile.TarFile, label: str) -> Iterator[Member]:
    for member in tar:
        if member.isdir():
            continue
        if member.issym():
            at = posixpath.dirname(member.name)
            link = posixpath.normpath(posixpath.join(at, member.linkname))
            yield Member(member.name, 0, link=link)
        elif member.islnk():
            yield Member(member.name, 0, link=member.linkname)
        elif member.isreg():
            yield Member(member.name, member.size, content=_reader(tar, member))
        else:
            raise HostError(f"{label} holds {member.name}, which is no file, folder or link.")


def _reader(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def read() -> IO[bytes]:
        content = tar.extractfile(member)
        if content is None:
            raise tarfile.ReadError(f"{member.name} has no content")
        return content

    return read


def _zip_members(container: zipfile.ZipFile, label: str) -> Iterator[Member]:
    for member in container.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.is_dir():
            continue
        if kind == stat.S_IFLNK:
            at = posixpath.dirname(member.filename)
            if member.file_size > LINK_MAX:
                raise HostError(f"{label} holds the link {member.filename}, which is too long.")
            value = container.read(member).decode("utf-8", errors="replace")
            link = posixpath.normpath(posixpath.join(at, value))
            yield Member(member.filename, 0, link=link)
        elif kind in (0, stat.S_IFREG):
            yield Member(member.filename, member.file_size, content=_opener(container, member))
        else:
            raise HostError(f"{label} holds {member.filename}, which is no file, folder or link.")


def _opener(container: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: container.open(member)
