# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server, store, registry and program that the environment names."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from contract_http import Api


def variable(key: str) -> str:
    """Return a variable or skip the test that needs it."""
    value = os.environ.get(key, "")
    if not value:
        pytest.skip(f"{key} is not set")
    return value


@pytest.fixture(scope="session")
def api() -> Api:
    """The server under test."""
    return Api(variable("CONTRACT_OLLAMA_URL"))


@pytest.fixture(scope="session")
def version(api: Api) -> tuple[int, ...]:
    """The server's version as numbers."""
    return api.version()


@pytest.fixture(scope="session")
def model() -> str:
    """A model that is there and can generate."""
    return variable("CONTRACT_MODEL")


@pytest.fixture(scope="session")
def store() -> Path:
    """The server's models directory."""
    return Path(variable("CONTRACT_OLLAMA_STORE"))


@pytest.fixture(scope="session")
def program() -> str:
    """An ollama executable that the test may start."""
    return variable("CONTRACT_OLLAMA_PROGRAM")


@pytest.fixture(scope="session")
def registry() -> str:
    """Host and port of a plain-HTTP registry."""
    return variable("CONTRACT_REGISTRY")


@pytest.fixture(scope="session")
def remote(registry: str) -> str:
    """The full name of a model on the registry."""
    name = os.environ.get("CONTRACT_REGISTRY_MODEL") or variable("CONTRACT_MODEL")
    return f"{registry}/library/{name}"


@pytest.fixture
def own_name(api: Api):
    """A name that only this test uses; the model is removed again."""
    name = f"contract-{time.time_ns()}:test"
    yield name
    api.delete("/api/delete", {"model": name})
