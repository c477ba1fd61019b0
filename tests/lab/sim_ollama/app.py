# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every request handler works with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sim_ollama.envconfig import Environment
from sim_ollama.scheduler import Scheduler
from sim_ollama.settings import Settings
from sim_ollama.store import Store

if TYPE_CHECKING:
    from sim_ollama.download import Downloads


class App(NamedTuple):
    """The server's parts."""

    version: str
    env: Environment
    settings: Settings
    store: Store
    scheduler: Scheduler
    downloads: Downloads
