# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of the page cache, and the priority of a thread."""

from __future__ import annotations

import os
import threading

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _page_cache
from ansible_collections.hx_infra.llm.plugins.module_utils._page_cache import (
    be_idle,
    cached_windows,
    drop_window,
)

PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture
def descriptor(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * (3 * PAGE + 1))
    opened = os.open(path, os.O_RDWR)
    yield opened
    os.close(opened)


def test_a_file_just_written_is_cached(descriptor, monkeypatch):
    monkeypatch.setattr(_page_cache, "WINDOW", 2 * PAGE)
    assert cached_windows(descriptor, 3 * PAGE + 1) == [True, True]
    assert cached_windows(descriptor, PAGE) == [True]
    assert cached_windows(descriptor, 0) == []


def test_windows_beyond_the_end_of_a_file_are_not_cached(descriptor, monkeypatch):
    monkeypatch.setattr(_page_cache, "WINDOW", 2 * PAGE)
    assert cached_windows(descriptor, 8 * PAGE) == [True, True, False, False]


def test_what_cannot_be_known_counts_as_cached(monkeypatch):
    monkeypatch.setattr(_page_cache, "WINDOW", 2 * PAGE)
    reading, writing = os.pipe()
    try:
        assert cached_windows(reading, 3 * PAGE) == [True, True]
    finally:
        os.close(reading)
        os.close(writing)


def test_dropping(descriptor, monkeypatch):
    asked = []
    monkeypatch.setattr(_page_cache.os, "posix_fadvise", lambda *args: asked.append(args[1:]))
    drop_window(descriptor, 2)
    assert asked == [(2 * _page_cache.WINDOW, _page_cache.WINDOW, os.POSIX_FADV_DONTNEED)]


def test_idle_holds_for_the_thread_alone():
    found = []
    thread = threading.Thread(
        target=lambda: found.append((be_idle(), os.getpriority(os.PRIO_PROCESS, 0)))
    )
    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread.start()
    thread.join()
    assert found[0][1] == 19
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_an_unknown_machine(monkeypatch):
    monkeypatch.setattr(_page_cache.platform, "machine", lambda: "vax")
    assert be_idle() is False
