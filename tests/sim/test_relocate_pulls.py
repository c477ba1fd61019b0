# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moves of a real store that is being filled, and who is kept from one that is being moved."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from relocate_host import Host, contents

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import StoreLock, held

PARTIAL = f"blobs/sha256-{'ab' * 32}-partial"
COPY = f".hx/incoming/sha256-{'cd' * 32}.part"
LEFT = {COPY: b"half of it", f".hx/aside/sha256-{'ef' * 32}": b"bad", ".hx/lock": b"{}\n"}


@pytest.fixture(params=["copy", "rename"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """A host whose bulk disk is another file system, or the same, with what runs have left."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="hx-relocate-") as bulk:
        found = Host(tmp_path / "host", Path(bulk) if request.param == "copy" else tmp_path / "b")
        for name, content in LEFT.items():
            path = found.old / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        found.original = contents(found.old)
        yield found


def no_pause(_seconds: float) -> None:
    pass


def test_unfinished_copies_move_with_the_store(host: Host) -> None:
    host.run()
    host.check_arrived()
    assert {name: (host.target / name).read_bytes() for name in LEFT} == LEFT


@pytest.mark.parametrize("name", [PARTIAL, COPY])
def test_store_that_a_download_fills_is_refused(host: Host, name: str) -> None:
    told = f"llm-01: the store {host.old} was not moved: a download is writing {host.old}/{name}"
    with (host.old / name).open("ab"):
        for check in (True, False):
            with pytest.raises(HostError, match=re.escape(told)):
                host.run(check=check)
    assert host.calls() == []
    assert contents(host.old) == host.original
    assert not host.target.exists()
    host.run()
    host.check_arrived()


def test_store_that_another_run_fills_is_refused(host: Host) -> None:
    with StoreLock(str(host.old), "model_catalog"):
        for check in (True, False):
            with pytest.raises(HostError, match=r"was not moved: model_catalog \(pid \d+ on "):
                host.run(check=check)
    assert host.calls() == []
    assert host.old.is_dir()
    assert not host.old.is_symlink()


def test_download_that_ends_in_time_is_waited_for(host: Host) -> None:
    stream = (host.old / PARTIAL).open("ab")
    host.pause = lambda _seconds: stream.close()
    predicted = host.run(check=True, pull_wait_s=600)
    assert not stream.closed
    assert " (waits at most 600 s because a download is writing " in predicted["actions"][0]
    result = host.run(pull_wait_s=600)
    assert stream.closed
    for key in ("actions", "plan", "waits_for"):
        assert result[key] == predicted[key]
    host.check_arrived()
    assert "waits" not in str(host.run(pull_wait_s=600)["actions"])


def test_download_that_does_not_end_in_time_is_named(host: Host) -> None:
    host.pause = no_pause
    with (host.old / PARTIAL).open("ab"), pytest.raises(HostError, match="a download is writing"):
        host.run(pull_wait_s=0.01)
    assert host.calls() == []
    assert contents(host.old) == host.original


def test_download_that_begins_during_the_move_is_not_broken_off(host: Host) -> None:
    begun = []

    def on_step(name: str) -> None:
        if name == "models":
            begun.append((host.old / PARTIAL).open("ab"))

    with pytest.raises(HostError, match=rf"{host.old} was not moved: a download is writing"):
        host.run(on_step=on_step, pull_wait_s=600)
    assert host.calls() == []
    host.check_survived()
    begun[0].close()
    assert host.run()["bytes_copied"] == 0
    host.check_arrived()


def test_others_are_kept_out_until_the_store_has_arrived(host: Host) -> None:
    """At each step, under the name that the engine knows and whatever directory it leads to."""
    seen = []

    def on_step(name: str) -> None:
        lock = StoreLock(str(host.old), "model_catalog", pause=no_pause)
        with pytest.raises(HostError, match=rf"{host.old}: a move \(model_store_relocate\)"):
            lock.__enter__()
        seen.append(name)

    host.run(on_step=on_step)
    assert seen[0] == "begin"
    assert seen[-1] == "finish"
    host.check_arrived()
    for tree in host.retained():
        assert contents(tree) == host.original
    assert held(str(host.target)) == ""
    with StoreLock(str(host.target), "model_catalog"):
        assert held(str(host.old)).startswith("model_catalog")


def test_store_in_its_place_is_left_to_the_run_that_works_on_it(host: Host) -> None:
    host.run()
    host.canonical.unlink()
    with StoreLock(str(host.target), "model_catalog"):
        for check in (True, False):
            with pytest.raises(HostError, match=r"was not touched: model_catalog \(pid"):
                host.run(check=check)
    assert not host.canonical.is_symlink()
    with (host.target / PARTIAL).open("ab"):  # a link breaks no download off
        assert host.run()["changed"]
    with StoreLock(str(host.target), "model_catalog"):  # and nothing to do is no work
        assert not host.run()["changed"]
