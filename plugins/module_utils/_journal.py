# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A journal that tells the next run where a killed one stood, and a lock against a second run."""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    fsync_directory,
    make_directories,
    write_atomic,
)

_UNREADABLE = "Look at what it describes, then remove it and run again."


class Journal:
    """One JSON object on disk, replaced as a whole at each step.

    Args:
        path: the journal's file; its directory is created at the first write.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """Return what the last run wrote; empty when there is nothing."""
        try:
            with open(self.path, encoding="utf-8") as stream:
                content = json.load(stream)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            message = f"The journal {self.path} cannot be read: {error}."
            raise HostError(message, _UNREADABLE) from error
        if not isinstance(content, dict):
            raise HostError(f"The journal {self.path} holds no object.", _UNREADABLE)
        return content

    def write(self, content: dict[str, Any]) -> None:
        """Replace the journal durably."""
        make_directories(os.path.dirname(self.path), 0o750)
        data = json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"
        write_atomic(self.path, data, 0o640)

    def remove(self) -> None:
        """Forget the journal; the work that it describes is finished."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return
        fsync_directory(os.path.dirname(self.path))


class RunLock:
    """An advisory lock that the kernel releases when its holder ends, however it ends.

    Args:
        path: the lock file.
        what: what a second run would disturb, for the message.
        create: whether the file may be created and the lock is for one holder alone; in check mode
            an existing one is shared.
    """

    def __init__(self, path: str, what: str, create: bool = True) -> None:
        self._path = path
        self._what = what
        self._create = create
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        if self._create:
            make_directories(os.path.dirname(self._path), 0o750)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        else:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return self
        try:
            kind = fcntl.LOCK_EX if self._create else fcntl.LOCK_SH
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            self._descriptor = None
            raise HostError(
                f"Another run is working on {self._what} (it holds {self._path}).",
                "Wait until it has ended, then run again.",
            ) from error
        return self

    def __exit__(self, *_unused: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
