# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The registry as a source: it is asked here, the engine pulls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import (
    RegistryError,
    Remote,
    ask,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Http

OnProgress = Callable[[str, int, int], None]
Pull = Callable[[Wanted, Optional[Remote], OnProgress], None]


class RegistrySource:
    """Ollama's registry, or the private one that a model's own source names.

    Args:
        http: asks for manifests.
        pull: lets the engine pull a model; raises HostError.
        watch: when to give up.
    """

    kind = "registry"

    def __init__(self, http: Http, pull: Pull, watch: Watch | None = None) -> None:
        self.label = self.kind
        self._http = http
        self._pull = pull
        self._watch = watch
        self._gone: dict[str, str] = {}  # the problem by the host that gave no answer

    def offer(self, item: Wanted) -> Offer:
        """Ask for the model's manifest; one behind the engine's own login is offered unseen.

        A host that didn't answer isn't asked for further models, since each of them would wait for
        it.
        """
        host = item.source.host
        source = f"{self.label} {host}"
        if host in self._gone:
            return Offer(source, self.kind, None, self._gone[host], reachable=False)
        try:
            remote = ask(self._http, item.source, insecure=item.insecure, watch=self._watch)
        except RegistryError as error:
            if not error.reachable:
                self._gone[host] = error.problem
            return Offer(source, self.kind, None, error.problem, error.reachable)
        return Offer(source, self.kind, remote)

    def fetch(self, item: Wanted, offer: Offer, on_progress: OnProgress) -> None:
        """Let the engine pull it."""
        self._pull(item, offer.remote, on_progress)
