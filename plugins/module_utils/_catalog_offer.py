# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What the sources of models say they can give, before anything is downloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.hx_infra.llm.plugins.module_utils._registry import Remote

PEER, REGISTRY, ARCHIVE = "peer", "registry", "archive"


@dataclass(frozen=True)
class Offer:
    """What one source says about one model.

    Attributes:
        source: the source, for people: ``peer llm-02``, ``registry registry.ollama.ai``,
            ``archive /srv/models.tar``.
        kind: peer, registry or archive.
        remote: what it would give. None with a problem: it can't be had there. None without one:
            the registry wants the engine's own login, so that only a pull can tell.
        problem: why it can't be had there, as a part of a sentence.
        reachable: False when the source gave no answer at all.
        blocked: why nothing may be brought from there although it can give the model, as a part of
            a sentence.
    """

    source: str
    kind: str
    remote: Remote | None = None
    problem: str = ""
    reachable: bool = True
    blocked: str = ""

    @property
    def usable(self) -> bool:
        """Whether a download from there can be tried."""
        return not self.problem and (self.remote is not None or self.kind == REGISTRY)


Offers = Mapping[str, Sequence[Offer]]  # by the key of the declared name, in the order to try
