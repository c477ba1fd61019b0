# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""An archive as the source of a model's files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import file_sha256
from ansible_collections.hx_infra.llm.plugins.module_utils._hub import PROBE, RetryError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_download import Fetch, Wish
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_http import Reply, host_of
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files import (
    Wanted,
    refuse_forbidden,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_apply import Builder
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_archive import Unpacking
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_origin import Origin
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_plan import Plan
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_report import Teller
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_tree import (
    Entry,
    Tree,
    defect,
    read_checksums,
    read_tree,
)


class ArchiveOrigin(Origin):
    """An archive, on the host or at a URL."""

    @property
    def remote(self) -> bool:
        """Whether it has to be downloaded."""
        return "://" in self.source.place

    def size(self) -> int:
        """Return its size; -1 when nobody says it."""
        if not self.remote:
            if not os.path.isfile(self.source.place):
                raise HostError(f"source.archive {self.source.place} is not there.")
            return os.path.getsize(self.source.place)
        line = self.line()
        for attempt in range(1, 100):
            try:
                reply = self._open(-1, 30.0)
                reply.close()
                whole = reply.headers.get("content-length", "") if reply.status == 200 else ""
                length = reply.headers.get("content-range", "").rpartition("/")[2] or whole
                return int(length) if length.isdigit() else -1
            except RetryError as error:
                line.wait(attempt, error, self.source.place)
        return -1

    def prepare(self, plan: Plan) -> None:
        """Verify an archive on the host before anything is unpacked."""
        if not self.remote:
            found = file_sha256(self.source.place)
            if found != self.source.pin:
                raise HostError(
                    f"{self.source.place} has sha256 {found}, wanted {self.source.pin}.",
                    "It is damaged, or the declared checksum is that of another archive.",
                )

    def bring(self, builder: Builder, plan: Plan) -> tuple[int, int]:
        """Download if needed, and unpack; return the bytes that came and those that were there."""
        archive, come, resumed = self.source.place, 0, 0
        if self.remote:
            wish = Wish(self.source.place, sha256=self.source.pin)
            fetch = Fetch(wish, builder.root, self._open, self.line())
            fetch.run()
            archive, come, resumed = fetch.path, fetch.at - fetch.resumed, fetch.resumed
        unpacking = Unpacking(
            self.source.place, builder.root, self._accepts, self.guard, Teller(
                self.io.progress, self.declaration.name, "unpacking"
            )
        )  # fmt: skip
        paths = unpacking.unpack(archive)
        if self.remote:
            os.unlink(archive)
        tree = read_tree(builder.root)
        sums = {path: read_checksums(tree, tree.entries[path], self.teller) for path in paths}
        self._check(tree, sums)
        builder.add_unpacked(paths, lambda path: sums[path])
        return come, resumed

    def _accepts(self, path: str) -> bool:
        rules = self.declaration.rules
        if self.source.files:
            return path in dict(self.source.files)
        if rules.exclude and not replace(rules, include=("*",)).matches(path):
            return False
        refuse_forbidden(rules, [path], self.source.place)
        return True

    def _check(self, tree: Tree, sums: Mapping[str, tuple[str, str]]) -> None:
        for path, sha256 in self.source.files:
            entry = tree.entries.get(path) if path in sums else None
            known = Entry(path, entry.info, *sums[path]) if entry else None
            why = defect(Wanted(path, sha256=sha256), known)
            if why:
                raise HostError(f"{self.source.place}: {path}: {why}.", "Compare source.files.")

    def _open(self, start: int, timeout: float) -> Reply:
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start < 0:
            headers = {"Range": PROBE}
        host = host_of(self.source.place)
        try:
            reply = self.io.http(self.source.place, headers, "", timeout)
        except OSError as error:
            raise RetryError(f"{host} can't be reached: {error}") from error
        if reply.status in (200, 206, 416):
            return reply
        reply.close()
        if reply.status == 429 or reply.status >= 500:
            raise RetryError(f"{reply.host} answers {reply.status}")
        raise HostError(
            f"{host}: the archive's address is answered with {reply.status}.",
            "Check source.archive.",
        )
