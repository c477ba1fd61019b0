# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What is asked of a model hub: the commit of a revision, and the files at a commit.

``GET /api/models/{id}/tree/{revision}?recursive=true`` lists files with path, size and ``oid``
(git's checksum of the blob, or of a pointer); large files have ``lfs`` with the SHA-256 as ``oid``
and the true size. The list comes in pages, joined by the header ``Link``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_http import Get, Reply, host_of

TIMEOUT_S = 30.0
TRIES = 5
RETRY_AFTER_MAX_S = 300.0
MAX_PAGES = 1000
PROBE = "bytes=0-0"
SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")
_NEXT = re.compile(r'<([^>]+)>\s*;[^,]*\brel="?next"?')


@dataclass(frozen=True)
class HubFile:
    """A file as a hub offers it; one of both checksums is empty."""

    path: str
    size: int
    sha256: str = ""
    git_sha1: str = ""


class RetryError(Exception):
    """The hub can't answer now, but may later; ``wait_s`` is what it asks for, if it does."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Hub:
    """A hub and one model there.

    Attributes:
        endpoint: the hub's base URL.
        model: its id, ``org/name``.
        token: what to identify oneself with; empty for nothing.
        deadline: the monotonic time at which waiting ends.
        tell: is told what is waited for.
    """

    endpoint: str
    model: str
    get: Get
    token: str = ""
    deadline: float = float("inf")
    tell: Callable[[str], None] = lambda _note: None
    sleep: Callable[[float], None] = time.sleep

    def commit(self, revision: str) -> str:
        """Return the commit that a branch or tag stands for.

        Raises:
            HostError: the hub doesn't have it, or gives no access.
        """
        url = f"{self.endpoint}/api/models/{self.model}/revision/{quote(revision, safe='')}"
        found = self._json(url, f"revision {revision}")[0]
        sha = found.get("sha") if isinstance(found, dict) else None
        if not isinstance(sha, str) or not COMMIT.fullmatch(sha):
            raise HostError(f"{self._where} names no commit for revision {revision}.")
        return sha

    def files(self, commit: str) -> list[HubFile]:
        """List all files at a commit.

        Raises:
            HostError: the hub doesn't have it, gives no access, or its list can't be understood.
        """
        base = f"{self.endpoint}/api/models/{self.model}/tree/{quote(commit, safe='')}"
        url, found = f"{base}?recursive=true", []
        for _page in range(MAX_PAGES):
            entries, link = self._json(url, f"the files of revision {commit}")
            found += read_tree(entries, self._where)
            following = _NEXT.search(link)
            if not following:
                return found
            parts = urlsplit(urljoin(url, following.group(1)))  # a mirror may name the hub itself
            url = f"{self.endpoint}{parts.path}?{parts.query}"
        raise HostError(f"{self._where} lists its files in more than {MAX_PAGES} pages.")

    def open(self, commit: str, path: str, start: int, timeout: float) -> Reply:
        """Ask for a file from a byte on; with a negative number for its first byte alone.

        Raises:
            HostError: the hub doesn't have it or gives no access.
            RetryError: it may work later.
        """
        url = f"{self.endpoint}/{self.model}/resolve/{commit}/{quote(path)}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start < 0:
            headers = {"Range": PROBE}
        try:
            reply = self.get(url, headers, self.token, timeout)
        except OSError as error:
            raise RetryError(f"{host_of(url)} can't be reached: {error}") from error
        if reply.status in (200, 206, 416):
            if reply.commit and reply.commit != commit:
                reply.close()
                raise HostError(
                    f"{self._where} gives {path} of commit {reply.commit}, wanted {commit}."
                )
            return reply
        if reply.host != host_of(url) and reply.status in (401, 403, 404):
            raise RetryError(f"{reply.host} answers {reply.status} to the hub's own redirect")
        raise self._refusal(reply, path)

    @property
    def _where(self) -> str:
        return f"{host_of(self.endpoint)}: {self.model}"

    def _json(self, url: str, what: str) -> tuple[Any, str]:
        for attempt in range(1, TRIES + 1):
            try:
                reply = self.get(url, {"Accept": "application/json"}, self.token, TIMEOUT_S)
                if reply.status != 200:
                    raise self._refusal(reply, what)
                return json.loads(reply.read()), reply.headers.get("link", "")
            except ValueError as error:
                raise HostError(
                    f"{self._where}: {what}: the answer is no JSON: {error}."
                ) from error
            except OSError as error:
                self.wait(attempt, RetryError(f"it can't be reached: {error}"), what)
            except RetryError as error:
                self.wait(attempt, error, what)
        raise AssertionError("unreachable")

    def wait(self, attempt: int, error: RetryError, what: str) -> None:
        """Wait before another try, or give up.

        Raises:
            HostError: the tries or the time are used up, or the hub wants too long a pause.
        """
        pause = min(2.0 ** (attempt - 1), 30.0) if error.wait_s is None else error.wait_s
        left = self.deadline - time.monotonic()
        if attempt >= TRIES or pause > min(RETRY_AFTER_MAX_S, left):
            asked = f" It asks to wait {error.wait_s:.0f} s." if error.wait_s else ""
            raise HostError(
                f"{self._where}: {what}: {error}, after {attempt} tries.{asked}",
                "Check the address, the proxy and the firewall of this host, or run again later; "
                "the next run goes on from here.",
            ) from error
        self.tell(f"{error}; asking again in {pause:.0f} s")
        self.sleep(pause)

    def _refusal(self, reply: Reply, what: str) -> Exception:
        """Say what an answer that isn't the wanted one means."""
        said = _said(reply)
        code = reply.headers.get("x-error-code", "")
        reply.close()
        start = f"{self._where}: {what}: answered {reply.status}{said}."
        if reply.status == 429 or reply.status >= 500:
            return RetryError(
                f"{reply.host} answers {reply.status}{said}",
                retry_after(reply.headers),
            )
        if code == "GatedRepo" or reply.status == 403:
            page = f"{self.endpoint}/{self.model}"
            has = "the token's account has no access" if self.token else "no token was given"
            return HostError(
                f"{start} The model is gated and {has}.",
                f"Accept its licence at {page}, and give a token of that account in token_file.",
            )
        if reply.status == 401:
            has = "the token is not accepted" if self.token else "no token was given"
            return HostError(
                f"{start} There is no such model, or it is private and {has}.",
                "Check the id, and give a valid token in token_file if the model is private.",
            )
        if code == "RevisionNotFound":
            return HostError(f"{start} There is no such revision.", "Check source.revision.")
        if reply.status == 404:
            return HostError(f"{start} It is not there.", "Check source.hub and the path.")
        return HostError(start)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks to wait; a date is taken as unknown.

    The hub tells with ``RateLimit: "api";r=0;t=55`` when its window ends.
    """
    asked = re.fullmatch(r"\s*(\d{1,9})\s*", headers.get("retry-after", ""))
    asked = asked or re.search(r";\s*r=0\s*;\s*t=(\d{1,9})\b", headers.get("ratelimit", ""))
    return float(asked.group(1)) if asked else None


def read_tree(entries: Any, where: str) -> list[HubFile]:
    """Read one page of a hub's list of files.

    Raises:
        HostError: it can't be understood.
    """
    try:
        return [_read_entry(item) for item in entries if item["type"] == "file"]
    except (KeyError, TypeError, ValueError) as error:
        raise HostError(f"{where}: its list of files can't be understood: {error!r}.") from error


def _read_entry(item: dict[str, Any]) -> HubFile:
    large = item.get("lfs")
    if large:
        sha256 = str(large["oid"]).lower().replace("sha256:", "")
        if not SHA256.fullmatch(sha256):
            raise ValueError(f"{item['path']} has checksum {sha256}")
        return HubFile(str(item["path"]), int(large["size"]), sha256=sha256)
    sha1 = str(item["oid"]).lower()
    if not COMMIT.fullmatch(sha1):
        raise ValueError(f"{item['path']} has checksum {sha1}")
    return HubFile(str(item["path"]), int(item["size"]), git_sha1=sha1)


def _said(reply: Reply) -> str:
    text = reply.headers.get("x-error-message", "")
    if not text:
        try:
            data = json.loads(reply.read(4096))
            text = str(data.get("error", "")) if isinstance(data, dict) else ""
        except (OSError, ValueError):
            text = ""
    text = " ".join(text.split())[:200]
    return f" ({text.rstrip('.')})" if text else ""
