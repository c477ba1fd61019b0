# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of the nightly test: what is put in place by rename, secrets, the lock, log, metrics."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OWNER_ALONE = 0o077
OWNER_AND_GROUP = 0o007


class FileError(Exception):
    """A file is not as it must be, or could not be written."""


def replace_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Put a file in place by rename, so that a reader sees the old one or the new one.

    Raises:
        FileError: it could not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise FileError(f"{path} could not be written: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def load_settings(path: Path) -> dict[str, Any]:
    """Return the object of a settings file.

    Raises:
        FileError: it can't be read or holds no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise FileError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise FileError(f"{path} holds no JSON object")
    return found


def read_secret(path: str, credential: str, forbidden: int = OWNER_ALONE) -> str:
    """Return a secret: from systemd's credential of that name, else from the file itself.

    Args:
        path: the file.
        credential: name under which the unit loads it (``LoadCredential=``).
        forbidden: mode bits that the file must not have.

    Raises:
        FileError: it can't be read, others may read it, or it is not one line of text.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    loaded = Path(folder) / credential if folder else None
    try:
        handed_over = loaded is not None and loaded.is_file()
    except OSError as error:  # in a container whose mounts are private systemd's never arrive
        raise FileError(
            f"{loaded}, systemd's copy of {path}, can't be read: {error.strerror}"
        ) from error
    # systemd guards its own copies; their mode shows the mask of an access list.
    if handed_over:
        path, forbidden = str(loaded), 0
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            text = file.read(65536)
    except OSError as error:
        raise FileError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path} holds no text") from error
    if mode & forbidden:
        raise FileError(f"{path} has mode {mode:04o}, wanted {0o666 & ~forbidden:04o} or less")
    return parse_secret(text, path)


def parse_secret(text: str, source: str) -> str:
    """Return the one line of a secret's file, or the value of its line ``VLLM_API_KEY=...``.

    Raises:
        FileError: there is neither.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    named = [line.partition("=")[2] for line in lines if line.startswith("VLLM_API_KEY=")]
    found = named or lines
    if len(found) != 1 or not found[0].strip("\"'"):
        raise FileError(f"{source} has {len(lines)} lines of text, wanted one with the secret")
    return found[0].strip("\"'")


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[bool]:
    """Hold a lock file; gives False when somebody else holds it.

    Raises:
        FileError: the file can't be opened.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise FileError(f"{path} could not be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def say(text: str) -> None:
    """Write a line to the log at once; a log that can't be written must not end a run."""
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n"
    with contextlib.suppress(OSError):
        os.write(1, line.encode("utf-8", "replace"))


def series(name: str, text: str, kind: str, samples: list[tuple[dict[str, str], float]]) -> str:
    """Return a metric in Prometheus' text format; nothing when it has no samples."""
    if not samples:
        return ""
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inner = ",".join(f'{key}="{_escaped(labels[key])}"' for key in sorted(labels))
        number = f"{value:.3f}" if isinstance(value, float) else str(value)
        lines.append(f"{name}{{{inner}}} {number}" if inner else f"{name} {number}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
