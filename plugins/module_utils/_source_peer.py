# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Another host as a source: its store is served for a while, and copied from host to host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import PEER, Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import Layer
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import (
    RegistryError,
    exact_remote,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._source_copy import (
    Copying,
    Tell,
    asking_again,
    remote_of,
    tell_nobody,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._source_http import (
    BusyError,
    Client,
    Patience,
    RefusedError,
    Retries,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_import import StoreWriter

MANIFEST_LIMIT = 4 * 1024 * 1024


class PeerSource:
    """A host that serves models with the program of ``_store_server``.

    Args:
        name: what people call the host.
        url: ``http://host:port``.
        token: lets in.
        writer: writes into this host's store.
        ca_path: certificates to trust, for a server behind HTTPS.
        retries: how patiently it is asked.
        watch: when to give up.
        tell: told the model that it is asked for, and what that waits for.
    """

    kind = PEER

    def __init__(
        self,
        name: str,
        url: str,
        token: str,
        writer: StoreWriter,
        *,
        ca_path: str | None = None,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        watch: Watch | None = None,
        tell: Tell = tell_nobody,
    ) -> None:
        self.label = f"{self.kind} {name}"
        self._url = url.rstrip("/")
        self._writer = writer
        watch = watch or Watch()
        self._client = Client(token, ca_path, retries, watch)
        self._retries = retries
        self._patience = Patience(retries, min(retries.offer_s, watch.stall_s))
        self._tell = tell
        self._gone = ""

    def offer(self, item: Wanted) -> Offer:
        """Ask for the manifest that the peer has under the declared name.

        One that didn't answer isn't asked for further models, since each of them would wait for it.
        One that is full is asked again for a while, and when that is over once for each of them.

        Raises:
            HostError: it is time to give up.
        """
        if self._gone:
            return Offer(self.label, self.kind, None, self._gone, reachable=False)
        url = f"{self._url}/v1/{quote(item.name.manifest, safe='/:')}"
        try:
            remote = exact_remote(url, self._manifest(url, str(item.name)))
        except RefusedError as error:
            return Offer(self.label, self.kind, None, str(error))
        except RegistryError as error:
            return Offer(self.label, self.kind, None, error.problem)
        except BusyError as error:
            problem = f"{error}, {self._patience.spent}"
            return Offer(self.label, self.kind, None, problem, reachable=False)
        except OSError as error:
            self._gone = f"it can't be reached: {error or repr(error)}"
            return Offer(self.label, self.kind, None, self._gone, reachable=False)
        return Offer(self.label, self.kind, remote)

    def fetch(
        self, item: Wanted, offer: Offer, on_progress: Callable[[str, int, int], None]
    ) -> None:
        """Copy the blobs that aren't here, then the manifest."""
        remote = remote_of(item, offer)
        copying = Copying(self._writer, remote, on_progress)
        for layer in copying.missing:

            def open_at(offset: int, layer: Layer = layer) -> Iterator[bytes]:
                url = f"{self._url}/v1/blobs/sha256-{layer.digest}"
                return self._client.bytes_from(url, offset, layer.size, copying.trouble)

            try:
                copying.bring(layer, open_at)
            except HostError as error:
                raise HostError(f"{self.label}: {error.message}", error.remedy) from error
        copying.finish(item.name)

    def _manifest(self, url: str, name: str) -> bytes:
        while True:
            try:
                content = self._client.body(url, MANIFEST_LIMIT)
            except BusyError as error:
                pause_s = self._patience.pause_s(error, came=False)
                if pause_s is None:
                    raise
                self._tell(name, f"{self.label}: {asking_again(str(error))}")
                self._retries.sleep(pause_s)
            else:
                self._patience.reset()
                return content
