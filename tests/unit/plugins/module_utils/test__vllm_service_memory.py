# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_memory as memory


class Service:
    """A service's folder with one file and a link."""

    def __init__(self, root):
        self.folder = str(root / "service")
        self.file = root / "config" / "tiny.yaml"
        self.extra = root / "config" / "later.conf"
        self.file.parent.mkdir()
        self.paths = [str(self.file), str(self.extra)]

    def become(self, content, release):
        self.file.write_text(content)
        self.file.chmod(0o640)
        memory.place_release(self.folder, release)

    def remember(self):
        return memory.remember(self.folder, self.paths)

    def now(self):
        return self.file.read_text(), memory.release_of(self.folder)


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path)


def test_a_state_is_remembered_once(service):
    service.become("one", "/v/1")
    assert service.remember()
    assert not service.remember()
    assert memory.read(service.folder, memory.PREVIOUS) is None


def test_the_good_state_comes_back_with_its_access(service):
    service.become("one", "/v/1")
    service.remember()
    service.become("two", "/v/2")
    service.file.chmod(0o600)
    service.extra.write_text("new")
    memory.put_back(service.folder, memory.GOOD, service.paths)
    assert service.now() == ("one", "/v/1")
    assert service.file.stat().st_mode & 0o777 == 0o640
    assert not service.extra.exists()
    assert memory.same(
        memory.read(service.folder, memory.GOOD), memory.current(service.folder, service.paths)
    )


def test_a_rollback_and_its_own_rollback(service):
    service.become("one", "/v/1")
    service.remember()
    service.become("two", "/v/2")
    service.remember()
    for expected in ("one", "two", "one"):
        memory.put_back(service.folder, memory.PREVIOUS, service.paths)
        memory.swap(service.folder)
        assert service.now()[0] == expected
        assert not service.remember()


def test_a_file_that_is_missing_differs_from_one_that_is_empty(service):
    service.become("one", "/v/1")
    service.remember()
    service.extra.write_text("")
    now = memory.current(service.folder, service.paths)
    assert not memory.same(memory.read(service.folder, memory.GOOD), now)


@pytest.mark.parametrize("moment", [1, 2])
def test_a_kill_while_remembering_loses_no_good_state(service, monkeypatch, moment):
    service.become("one", "/v/1")
    service.remember()
    service.become("two", "/v/2")
    real, count = os.rename, 0

    def rename(source, target):
        nonlocal count
        if os.path.basename(source) in ("good", "new") and os.path.isdir(source):
            count += 1
            if count == moment:
                raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(memory.os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        service.remember()
    monkeypatch.setattr(memory.os, "rename", real)
    memory.put_back(service.folder, memory.GOOD, service.paths)
    assert service.now()[0] in ("one", "two")
    service.become("three", "/v/3")
    assert service.remember()
    memory.put_back(service.folder, memory.PREVIOUS, service.paths)
    assert service.now()[0] in ("one", "two")


def test_content_of_a_remembered_file(service):
    service.become("one", "/v/1")
    service.remember()
    service.become("two", "/v/2")
    assert memory.content(service.folder, memory.GOOD, str(service.file)) == b"one"
    assert memory.content(service.folder, memory.GOOD, "/other") == b""
    assert memory.content(service.folder, memory.PREVIOUS, str(service.file)) == b""


def killed_at(moment):
    """Return a rename that works so many times."""
    real = os.rename
    left = [moment]

    def rename(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(source, target)

    return rename


def test_a_kill_in_the_middle_of_an_exchange_leaves_both_states(service, monkeypatch):
    real = os.rename
    for moment in range(3):
        service.become("one", "/v/1")
        service.remember()
        service.become("two", "/v/2")
        service.remember()
        monkeypatch.setattr(memory.os, "rename", killed_at(moment))
        with pytest.raises(KeyboardInterrupt):
            memory.swap(service.folder)
        monkeypatch.setattr(memory.os, "rename", real)
        found = memory.recall(service.folder)
        exchanged = ("/v/1", "/v/2") if moment else ("/v/2", "/v/1")
        assert (found.good.release, found.previous.release) == exchanged
        assert memory.content(service.folder, memory.GOOD, str(service.file)) == (
            b"one" if moment else b"two"
        )
        memory.put_back(service.folder, memory.GOOD, service.paths)  # which finishes it
        assert not os.path.exists(f"{service.folder}/swap")
        assert service.now()[1] == exchanged[0]


def test_no_release_means_no_link(service):
    memory.place_release(service.folder, "/v/1")
    memory.place_release(service.folder, "")
    assert not os.path.lexists(memory.link_of(service.folder))
    with pytest.raises(FileNotFoundError):
        memory.put_back(service.folder, memory.GOOD, service.paths)
