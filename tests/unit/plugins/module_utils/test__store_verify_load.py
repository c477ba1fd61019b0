# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a verification takes of the machine: the priority and the memory of those who read."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import threading
import tracemalloc

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _store_verify
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import Ledger
from ansible_collections.hx_infra.llm.plugins.module_utils._store_verify import CHUNK, verify

IOPRIO_GET = {"x86_64": 252, "aarch64": 31, "riscv64": 31, "ppc64le": 274, "s390x": 283}
THIS_THREAD, CLASS_SHIFT, IDLE_CLASS = 1, 13, 3
SIZES = [CHUNK * chunks + 1 for chunks in range(3, 9)]


@pytest.fixture
def store(tmp_path):
    """Six blobs of several chunks each, which take no disk space."""
    (tmp_path / "blobs").mkdir()
    for size in SIZES:
        digest = hashlib.sha256(bytes(size)).hexdigest()
        with (tmp_path / "blobs" / f"sha256-{digest}").open("wb") as blob:
            blob.truncate(size)
            os.utime(blob.fileno(), (1_700_000_000, 1_700_000_000))
    return read_store(str(tmp_path))


class Reads:
    """Stands between the workers and their files; keeps what each read was, and by whom."""

    def __init__(self, look=lambda: None):
        self.sizes = set()
        self.counts = []
        self.buffers = {}  # every one that was ever read into, by its identity
        self.seen = set()
        self._look = look
        self._read = os.readv

    def __call__(self, descriptor, buffers):
        for buffer in buffers:
            self.sizes.add(len(buffer))
            self.buffers[id(buffer.obj)] = buffer.obj
        self.seen.add((threading.get_ident(), self._look()))
        count = self._read(descriptor, buffers)
        self.counts.append(count)
        return count


def priority():
    """Return the I/O class of this thread and its CPU priority, as the kernel knows them."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.syscall(IOPRIO_GET[platform.machine()], THIS_THREAD, 0)
    assert found >= 0, os.strerror(ctypes.get_errno())
    return found >> CLASS_SHIFT, os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.skipif(platform.machine() not in IOPRIO_GET, reason="the call's number is not known")
@pytest.mark.parametrize("idle", [True, False])
def test_those_who_read_have_the_idle_class_while_they_read(store, monkeypatch, idle):
    before = priority()
    reads = Reads(priority)
    monkeypatch.setattr(_store_verify.os, "readv", reads)
    found = verify(store, store.blobs, Ledger(None), workers=2, idle=idle)
    assert found.idle is idle
    assert found.bytes_read == sum(reads.counts) == sum(SIZES)
    assert {state for _thread, state in reads.seen} == {(IDLE_CLASS, 19) if idle else before}
    assert threading.get_ident() not in {thread for thread, _state in reads.seen}
    assert priority() == before


@pytest.mark.parametrize("workers", [1, 3])
def test_memory_is_one_chunk_for_each_who_reads(store, monkeypatch, workers):
    reads = Reads()
    monkeypatch.setattr(_store_verify.os, "readv", reads)
    tracemalloc.start()
    try:
        found = verify(store, store.blobs, Ledger(None), workers=workers)
        _now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.bytes_read == sum(reads.counts) == sum(SIZES)
    assert found.corrupt == found.unreadable == {}
    assert max(reads.sizes) <= CHUNK
    assert len(reads.buffers) <= workers
    assert most < (workers + 1) * CHUNK
