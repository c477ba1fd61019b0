# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load that went on since before the first real run: it ends here, and is counted."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[3]
KEPT = ROOT / "build" / "molecule"
ENGINE = subprocess.run(
    [ROOT / "tests" / "lab" / "engine.sh"], check=True, capture_output=True, text=True
).stdout.strip()
BUDGET = 30
PAUSE = 2


@pytest.fixture(scope="session")
def gw_01():
    return testinfra.get_host(f"{ENGINE}://hx-llm-lab-gw-01")


@pytest.fixture(scope="session", autouse=True)
def load():
    """Stop the load before a test makes an engine sick; returns the requests."""
    (KEPT / "load.stop").touch()
    out, size = KEPT / "load.jsonl", -1
    end = time.monotonic() + BUDGET
    while out.stat().st_size != size and time.monotonic() < end:
        size = out.stat().st_size
        time.sleep(PAUSE)
    return [json.loads(line) for line in out.read_text().splitlines()]
