# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a directory, with a simulated systemd on the PATH."""

from __future__ import annotations

import os

import pytest
from g_mon_host import Host


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host whose units run; it has no data yet."""
    terminal = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")
    for name in (*terminal, "PYTHONUNBUFFERED"):  # operators' output is buffered
        monkeypatch.delenv(name, raising=False)
    found = Host(tmp_path)
    found.put_on_path(monkeypatch)
    return found


@pytest.fixture
def root(monkeypatch):
    """What asks for it, is root; no rights come with that."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def operator(monkeypatch):
    """An account without rights."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
