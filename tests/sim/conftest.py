# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures that start the simulator and its registry on loopback."""

from __future__ import annotations

import pytest
from harness import start_ollama, start_registry

VERSIONS = ("0.11.4", "0.32.15")


@pytest.fixture(scope="session", params=VERSIONS)
def shared_ollama(request, tmp_path_factory):
    """A simulated Ollama of each played version, started once for all tests."""
    folder = tmp_path_factory.mktemp("shared")
    with start_ollama(folder, version=request.param) as started:
        yield started


@pytest.fixture
def ollama(shared_ollama):
    """A simulated Ollama of each played version with two tiny models, without faults."""
    yield shared_ollama
    shared_ollama.set_faults()
    for entry in shared_ollama.get("/api/ps").json()["models"]:
        shared_ollama.post("/api/generate", {"model": entry["name"], "keep_alive": 0})


@pytest.fixture
def old(tmp_path):
    """A simulated Ollama 0.11.4 with two tiny models."""
    with start_ollama(tmp_path) as started:
        yield started


@pytest.fixture
def registry(tmp_path):
    """A simulated registry with two tiny models."""
    with start_registry(tmp_path) as started:
        yield started
