# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""An archive as a source: a file of this host, or one that a web server gives.

An offer reads the archive's index alone. The first model that is fetched reads the archive once
from its beginning to its end, takes the blobs that are needed as they come by, and compares the
checksum of all of it; only then the manifest is written. Further models read their blobs alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import ARCHIVE, Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_archive_format import (
    FormatError,
    Packed,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import Remote
from ansible_collections.hx_infra.llm.plugins.module_utils._source_archive_reader import Reader
from ansible_collections.hx_infra.llm.plugins.module_utils._source_copy import (
    COPYING,
    Copying,
    Tell,
    asking_again,
    remote_of,
    tell_nobody,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._source_http import Client, Retries
from ansible_collections.hx_infra.llm.plugins.module_utils._store_import import StoreWriter


class ArchiveSource:
    """An archive that ``model_archive`` wrote, with the checksum that is expected of it.

    Args:
        name: what people call it.
        place: a path, or an http or https address.
        checksum: SHA-256 of all of it, in hexadecimal digits.
        writer: writes into this host's store.
        ca_path: certificates to trust for HTTPS.
        retries: how patiently a web server is asked.
        watch: when to give up.
        tell: told the model that it is asked for, and what that waits for.
    """

    kind = ARCHIVE

    def __init__(
        self,
        name: str,
        place: str,
        checksum: str,
        writer: StoreWriter,
        *,
        ca_path: str | None = None,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        watch: Watch | None = None,
        tell: Tell = tell_nobody,
    ) -> None:
        self.label = f"{self.kind} {name}"
        self._checksum = checksum
        self._writer = writer
        self._watch = watch or Watch()
        self._tell = tell
        self._reader = Reader(place, Client("", ca_path, retries, self._watch))
        self._lock = threading.Lock()
        self._models: Mapping[str, Packed] = {}
        self._looked: Offer | None = None
        self._verified = False
        self._spoilt = ""

    def offer(self, item: Wanted) -> Offer:
        """Look into the index, which is read once.

        Raises:
            HostError: it is time to give up.
        """
        with self._lock:
            if self._looked is None:
                self._looked = self._look(str(item.name))
        packed = self._models.get(item.name.key)
        if packed:
            return Offer(self.label, self.kind, packed.remote)
        return self._looked

    def fetch(
        self, item: Wanted, offer: Offer, on_progress: Callable[[str, int, int], None]
    ) -> None:
        """Bring the model's blobs, verify the archive unless this run has, write the manifest."""
        remote = remote_of(item, offer)
        try:
            with self._lock:  # the others wait until the archive is known to be good
                if not self._verified:
                    self._read_all(item, remote, on_progress)
            copying = Copying(self._writer, remote, on_progress)
            for layer in copying.missing:

                def open_at(offset: int, digest: str = layer.digest) -> Iterator[bytes]:
                    return self._reader.blob(digest, offset, copying.trouble)

                copying.bring(layer, open_at)
            copying.finish(item.name)
        except HostError as error:
            raise HostError(f"{self.label}: {error.message}", error.remedy) from error

    def _look(self, name: str) -> Offer:
        """Read the index, and return what to say about a model that isn't in it."""
        problem, reachable = "it doesn't have it", True
        watch, what = self._watch, f"reading the index of {self.label}"
        until, got = watch.clock() + watch.stall_s, 0

        def on_read(at: int) -> None:
            nonlocal got
            got = at
            go_on(f"{what}, {human_size(at)} so far")

        def on_trouble(trouble: str) -> None:
            go_on(f"{self.label}: {asking_again(trouble)}")

        def go_on(note: str) -> None:
            watch.check(what)
            if watch.clock() >= until:
                raise HostError(
                    f"its index isn't whole after {watch.stall_s:g} s, {got} bytes came"
                )
            self._tell(name, note)

        try:
            self._models = self._reader.head(on_read, on_trouble)
        except FormatError as error:
            problem = f"it is no archive of models: {error}"
        except HostError as error:
            watch.check(what)  # that isn't the archive's fault
            problem, reachable = f"it can't be read: {error.message.rstrip('.')}", False
        except OSError as error:
            problem, reachable = f"it can't be read: {error.strerror or error}", False
        return Offer(self.label, self.kind, None, problem, reachable)

    def _read_all(
        self, item: Wanted, remote: Remote, on_progress: Callable[[str, int, int], None]
    ) -> None:
        """Read the archive as a whole and bring one model's blobs on the way."""
        if self._spoilt:
            raise HostError(self._spoilt)
        copying = Copying(self._writer, remote, lambda *_unused: None)
        wanted = {layer.digest: layer for layer in copying.missing}
        layers = (layer for packed in self._models.values() for layer in packed.remote.layers)
        total = sum({layer.digest: layer.size for layer in layers}.values())
        done = 0

        def on_blob(digest: str, open_at: Callable[[int], Iterator[bytes]]) -> None:
            if digest in wanted:
                copying.bring(wanted[digest], open_at)

        def on_read(at: int) -> None:
            nonlocal done
            done = min(at, total)
            on_progress(COPYING, done, total)

        def on_trouble(problem: str) -> None:
            on_progress(asking_again(problem), done, total)

        try:
            models, found = self._reader.scan(on_blob, on_read, on_trouble)
        except FormatError as error:
            raise HostError(f"it can't be used: {error}.") from error
        except OSError as error:
            raise HostError(f"it can't be read: {error.strerror or error}.") from error
        if found != self._checksum:
            self._spoilt = (
                f"its checksum is sha256:{found}, wanted sha256:{self._checksum}; no manifest of "
                "it is written. It is damaged, or another archive."
            )
            raise HostError(self._spoilt, "Copy it again, or correct the declared checksum.")
        packed = models.get(item.name.key)
        if packed is None or packed.remote.digests != remote.digests:
            raise HostError("it was replaced since its index was read.", "Run again.")
        self._verified = True
