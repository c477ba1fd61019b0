# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes ``ansible_collections.hx_infra.llm`` importable, wherever the checkout stands."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ansible.utils.collection_loader import _collection_finder as finder

ROOT = Path(__file__).resolve().parent.parent

# Hypothesis would keep its notes where the tests were started.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / "build" / "hypothesis"))

# What a shell has put into the background ignores Ctrl-C, and so would the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if not finder.AnsibleCollectionConfig.collection_finder:
    finder._AnsibleCollectionFinder(paths=[str(ROOT / "collections")])._install()
