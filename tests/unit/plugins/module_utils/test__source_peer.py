# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A peer that makes one transfer at a time: full, cut off, with blobs that change meanwhile."""

from __future__ import annotations

import os
import threading

import pytest
from source_samples import ONE, bring, holds, make, other_store, wanted
from store_samples import blob_path, digest_of, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _store_server as store_server
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import StoppedError, Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._source_http import Retries

TOKEN = "correct-horse-battery-staple"
LARGE = bytes(32 * 1024 * 1024)  # no network buffer holds that
FULL = "it is full, 1 of 1 transfers are taken (503)"


@pytest.fixture
def theirs(tmp_path):
    return other_store(tmp_path)


@pytest.fixture
def ours(tmp_path):
    folder = tmp_path / "ours"
    folder.mkdir()
    return folder


@pytest.fixture
def server(theirs, tmp_path, monkeypatch):
    """Serve the other store, with one transfer at a time; one that ends is waited for."""
    monkeypatch.setattr(store_server, "GRACE_S", 10.0)
    token = tmp_path / "token"
    token.write_text(TOKEN)
    server = store_server.Server(
        {
            "root": str(theirs),
            "manifests": [parse_name(name).manifest for name in ("one:1b", "two:1b")],
            "address": "127.0.0.1",
            "port": 0,
            "token_file": str(token),
            "connections": 1,
        }
    )
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def peer(server):
    """Return what the option says about it."""
    url = f"http://127.0.0.1:{server.server_port}/"
    return {"type": "peer", "name": "llm-02", "url": url, "token": TOKEN}


@pytest.fixture
def fill(server, monkeypatch):
    """Return what takes all of its transfers, so that whoever asks is told at once."""

    def take():
        assert server.transfers.acquire(timeout=10)
        monkeypatch.setattr(store_server, "GRACE_S", 0.0)

    return take


def test_one_that_is_full_is_waited_for(peer, server, ours, theirs, fill, monkeypatch):
    slept, told = [], []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            monkeypatch.setattr(store_server, "GRACE_S", 10.0)
            server.transfers.release()

    def tell(*args):
        told.append(args)

    retries = Retries(sleep=sleep)
    (source,) = make(ours, peer, retries=retries, watch=Watch(tick_s=9.0), tell=tell)
    fill()
    offer = source.offer(wanted("one:1b"))
    assert (offer.problem, offer.reachable, slept) == ("", True, [2.0, 2.0, 2.0])
    assert told == [("one:1b", f"peer llm-02: asking again ({FULL})")] * 3
    bring(source, "one:1b")
    holds(ours, theirs, "one:1b")


def test_one_that_stays_full_is_passed_over(peer, server, ours, theirs, fill, monkeypatch):
    slept = []
    retries = Retries(sleep=slept.append, offer_s=5.0)
    (source,) = make(ours, peer, retries=retries, watch=Watch(tick_s=9.0))
    fill()
    for name in ("one:1b", "two:1b"):  # the second isn't waited for once more
        offer = source.offer(wanted(name))
        assert offer.problem == f"{FULL}, asked again for 5 s"
        assert (offer.remote, offer.reachable, offer.usable) == (None, False, False)
        assert slept == [2.0, 2.0, 1.0]
    monkeypatch.setattr(store_server, "GRACE_S", 10.0)
    server.transfers.release()
    bring(source, "one:1b")  # it isn't gone
    holds(ours, theirs, "one:1b")
    assert slept == [2.0, 2.0, 1.0]


def test_an_offer_is_waited_for_no_longer_than_a_stall_may_last(peer, ours, fill):
    slept = []
    retries = Retries(sleep=slept.append)
    (source,) = make(ours, peer, retries=retries, watch=Watch(tick_s=9.0, stall_s=3.0))
    fill()
    assert source.offer(wanted("one:1b")).problem == f"{FULL}, asked again for 3 s"
    assert slept == [2.0, 1.0]


def test_one_that_becomes_full_fails_after_the_stall(peer, ours, fill):
    slept, told = [], []
    retries = Retries(sleep=slept.append)
    (source,) = make(ours, peer, retries=retries, watch=Watch(tick_s=9.0, stall_s=3.0))
    item = wanted("one:1b")
    offer = source.offer(item)
    fill()
    with pytest.raises(HostError, match=r"peer llm-02: .*, asked again for 3 s") as caught:
        source.fetch(item, offer, lambda phase, *_figures: told.append(phase))
    assert f": {FULL}, at 0 of " in caught.value.message
    assert "the next run goes on from there" in caught.value.remedy
    assert slept == [2.0, 1.0]
    assert told == [f"asking again ({FULL})"] * 2


def test_a_stop_ends_the_wait_for_one_that_is_full(peer, ours, fill):
    slept = []
    watch = Watch(stopped=lambda: "SIGTERM" if len(slept) == 3 else "", tick_s=0.25)
    (source,) = make(ours, peer, retries=Retries(sleep=slept.append), watch=watch)
    fill()
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        source.offer(wanted("one:1b"))
    assert slept == [0.25] * 3


def test_a_deadline_holds_for_asking(peer, ours):
    (source,) = make(ours, peer, watch=Watch(deadline=1.0, clock=lambda: 2.0))
    with pytest.raises(HostError, match=r"reading from 127.* was stopped at the deadline"):
        source.offer(wanted("one:1b"))


def test_a_blob_that_is_shorter_than_its_manifest_says(peer, ours, theirs):
    os.truncate(blob_path(theirs, ONE), 5)
    (source,) = make(ours, peer)
    text = f"peer llm-02: .*/sha256-{digest_of(ONE)}: it offers 5 bytes, wanted {len(ONE)}"
    with pytest.raises(HostError, match=text):
        bring(source, "one:1b")
    part = ours / ".hx" / "incoming" / f"sha256-{digest_of(ONE)}.part"
    part.write_bytes(ONE[:9])  # of an earlier run
    with pytest.raises(HostError, match=text):
        bring(source, "one:1b")
    assert read_store(str(ours)).models == {}
    blob_path(theirs, ONE).write_bytes(ONE)
    bring(source, "one:1b")
    holds(ours, theirs, "one:1b")


def copy_large(ours, theirs, peer, on_first):
    """Copy a large model, and do something when the first of its bytes are here."""
    write_model(theirs, "one:1b", LARGE)
    (source,) = make(ours, peer)
    item, seen = wanted("one:1b"), []

    def tell(phase, done, total):
        if total - done < len(LARGE) and not seen:
            seen.append(phase)
            on_first()
        elif phase != "copying":
            seen.append(phase)

    with pytest.raises(HostError) as caught:
        source.fetch(item, source.offer(item), tell)
    assert read_store(str(ours)).models == {}
    assert not blob_path(ours, LARGE).exists()
    return source, caught.value.message, seen


def test_a_blob_that_is_cut_while_it_comes(peer, server, ours, theirs):
    path = blob_path(theirs, LARGE)
    source, message, seen = copy_large(ours, theirs, peer, lambda: os.truncate(path, 1 << 20))
    assert f"it offers {1 << 20} bytes, wanted {len(LARGE)}" in message
    assert seen == ["copying", "asking again (the connection was cut)"]
    assert server.transfers.acquire(timeout=10), "its transfer is still taken"
    server.transfers.release()
    path.write_bytes(LARGE)
    bring(source, "one:1b")
    holds(ours, theirs, "one:1b")


def test_a_blob_that_changes_while_it_comes(peer, ours, theirs):
    def change():
        with blob_path(theirs, LARGE).open("r+b") as stream:
            stream.seek(-1, os.SEEK_END)
            stream.write(b"!")

    _source, message, seen = copy_large(ours, theirs, peer, change)
    assert f"the blob sha256-{digest_of(LARGE)} that came has the digest" in message
    assert seen == ["copying"]


def test_a_copy_that_is_given_up_makes_room(peer, server, ours, theirs):
    def stop():
        raise StoppedError("stopped by SIGTERM.")

    _source, message, _seen = copy_large(ours, theirs, peer, stop)
    assert "stopped by SIGTERM" in message
    assert server.transfers.acquire(timeout=10), "its transfer is still taken"
    server.transfers.release()
