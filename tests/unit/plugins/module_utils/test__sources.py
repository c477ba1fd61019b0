# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources of models: peers served by the real server, and the registry."""

from __future__ import annotations

import threading

import pytest
from source_samples import ONE, SHARED, SUM, TWO, bring, holds, make, other_store, wanted
from store_samples import blob_path, digest_of

from ansible_collections.hx_infra.llm.plugins.module_utils import _source_http as source_http
from ansible_collections.hx_infra.llm.plugins.module_utils import _sources as sources
from ansible_collections.hx_infra.llm.plugins.module_utils import _store_server as store_server
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import Remote
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Answer

TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def theirs(tmp_path):
    return other_store(tmp_path)


@pytest.fixture
def ours(tmp_path):
    folder = tmp_path / "ours"
    folder.mkdir()
    return folder


@pytest.fixture
def peer(theirs, tmp_path):
    """Serve the other store; return what the option says about it."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    server = store_server.Server(
        {
            "root": str(theirs),
            "manifests": [parse_name(name).manifest for name in ("one:1b", "two:1b")],
            "address": "127.0.0.1",
            "port": 0,
            "token_file": str(token),
        }
    )
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    yield {"type": "peer", "name": "llm-02", "url": url, "token": TOKEN}
    server.shutdown()
    server.server_close()


def test_a_model_from_a_peer(peer, ours, theirs):
    (source,) = make(ours, peer)
    offer = source.offer(wanted("one:1b"))
    manifest = (theirs / parse_name("one:1b").manifest).read_bytes()
    assert (offer.source, offer.kind, offer.problem) == ("peer llm-02", "peer", "")
    assert (offer.remote.content, offer.remote.digests) == (manifest, (digest_of(manifest),))
    told = bring(source, "one:1b")
    holds(ours, theirs, "one:1b")
    total = len(ONE) + len(SHARED) + len(b"config")
    assert told[-1] == ("writing manifest", total, total)
    assert [done for _phase, done, _total in told] == sorted(done for _p, done, _t in told)
    assert bring(source, "two:1b")[-1] == ("writing manifest", len(TWO), len(TWO))
    holds(ours, theirs, "one:1b", "two:1b")


def test_a_flipped_byte_at_the_peer(peer, ours, theirs):
    blob_path(theirs, ONE).write_bytes(b"!" + ONE[1:])
    (source,) = make(ours, peer)
    with pytest.raises(HostError, match=r"peer llm-02: the blob sha256-.* has the digest") as told:
        bring(source, "one:1b")
    assert digest_of(ONE) in told.value.message
    assert read_store(str(ours)).models == {}
    assert not blob_path(ours, ONE).exists()
    blob_path(theirs, ONE).write_bytes(ONE)
    bring(source, "one:1b")
    holds(ours, theirs, "one:1b")


def test_a_blob_that_the_peer_lost(peer, ours, theirs):
    blob_path(theirs, SHARED).unlink()
    (source,) = make(ours, peer)
    with pytest.raises(HostError, match=f"{digest_of(SHARED)}: it doesn't have it"):
        bring(source, "one:1b")


@pytest.mark.parametrize(
    ("change", "name", "problem", "reachable"),
    [
        ({"token": "wrong"}, "one:1b", "it doesn't accept the token (401)", True),
        ({}, "three:1b", "it doesn't have it (404)", True),
        ({"url": "http://127.0.0.1:1"}, "one:1b", "it can't be reached: ", False),
    ],
)
def test_a_peer_that_can_not_help(peer, ours, change, name, problem, reachable):
    (source,) = make(ours, {**peer, **change})
    offer = source.offer(wanted(name))
    assert offer.problem.startswith(problem)
    assert (offer.remote, offer.reachable, offer.usable) == (None, reachable, False)
    with pytest.raises(HostError, match=f"peer llm-02 can't give {name}"):
        source.fetch(wanted(name), offer, print)
    assert list(ours.iterdir()) == []


def test_a_peer_that_is_gone_is_asked_once(ours, monkeypatch):
    asked = []

    def refuse(_self, url, _limit):
        asked.append(url)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(source_http.Client, "body", refuse)
    (source,) = make(ours, PEER)
    offers = [source.offer(wanted(name)) for name in ("one:1b", "two:1b")]
    assert [offer.reachable for offer in offers] == [False, False]
    assert asked == ["http://a:1/v1/manifests/registry.ollama.ai/library/one/1b"]


def test_trouble_on_the_way_is_told(peer, ours, theirs, monkeypatch):
    (source,) = make(ours, peer)
    real, failures, told = source_http.Client.get, [OSError("no route to host")], []

    def get(self, url, headers=None):
        if "/blobs/" in url and failures:
            raise failures.pop()
        return real(self, url, headers)

    monkeypatch.setattr(source_http.Client, "get", get)
    item = wanted("one:1b")
    source.fetch(item, source.offer(item), lambda *args: told.append(args))
    assert told[0] == ("asking again (no route to host)", 0, told[-1][2])
    holds(ours, theirs, "one:1b")


def test_a_peer_whose_manifest_is_none(peer, ours, theirs):
    (theirs / parse_name("one:1b").manifest).write_text("")
    offer = make(ours, peer)[0].offer(wanted("one:1b"))
    assert (offer.problem, offer.remote) == ("its manifest is none: it is empty", None)


def test_a_pin_that_a_peer_does_not_meet(peer, ours):
    (source,) = make(ours, peer)
    item = wanted("one:1b", "0" * 12)
    with pytest.raises(HostError, match=r"digest [0-9a-f]{12}, wanted 000000000000"):
        source.fetch(item, source.offer(item), print)
    assert list(ours.iterdir()) == []


def test_the_registry_is_the_default(ours, theirs):
    pulled = []
    manifest = (theirs / parse_name("one:1b").manifest).read_bytes()
    answer = Answer(200, b'{"schemaVersion":2,"mediaType":"x",' + manifest[1:])
    (source,) = make(ours, answer=answer, pull=lambda *args: pulled.append(args))
    item = wanted("one:1b")
    offer = source.offer(item)
    assert (offer.source, offer.kind) == ("registry registry.ollama.ai", "registry")
    assert offer.remote.content.endswith(manifest[1:])
    source.fetch(item, offer, print)
    assert pulled == [(item, offer.remote, print)]


@pytest.mark.parametrize(
    ("answer", "problem", "reachable", "usable"),
    [
        (Answer(401), "", True, True),
        (Answer(404), "it doesn't have it (404)", True, False),
        (Answer(500, b"broken"), "it answers 500 broken", True, False),
        (Answer(200, b"<html>"), "its answer is no manifest: it is no JSON", True, False),
        (Answer(200, b"[" * 100000), "its answer is no manifest", True, False),
        (OSError("no route to host"), "it can't be reached: no route to host", False, False),
    ],
)
def test_a_registry_that_fails_says_so(ours, answer, problem, reachable, usable):
    offer = make(ours, {"type": "registry"}, answer=answer)[0].offer(wanted("one:1b"))
    assert offer.problem.startswith(problem)
    assert bool(offer.problem) == bool(problem)
    assert (offer.remote, offer.reachable, offer.usable) == (None, reachable, usable)


def test_a_registry_that_is_gone_is_asked_once(ours):
    asked = []

    def http(_method, url, *_args):
        asked.append(url)
        if "//other/" in url:
            return Answer(401)
        raise OSError("no route to host")

    (source,) = sources.make_sources([], writer=None, registry=None, http=http)
    names = ("one:1b", "two:1b", "other/a/x")
    assert [source.offer(wanted(name)).reachable for name in names] == [False, False, True]
    assert source.offer(wanted("two:1b")).problem == "it can't be reached: no route to host"
    assert len(asked) == 2


PEER = {"type": "peer", "name": "a", "url": "http://a:1", "token": "t"}
ARCHIVE = {"type": "archive", "path": "/a.tar", "checksum": f"sha256:{SUM}"}


def test_sources_are_found_by_what_their_offers_say(ours):
    found = make(ours, PEER, {"type": "registry"}, ARCHIVE, {**PEER, "name": "a 2"})
    labels = ["peer a", "registry registry.ollama.ai", "archive /a.tar", "peer a 2"]
    assert [sources.source_for(found, label) for label in labels] == found
    with pytest.raises(HostError, match="no source 'peer b'"):
        sources.source_for(found, "peer b")
    with pytest.raises(HostError, match="no source 'peer a 3'"):
        sources.source_for(found, "peer a 3")


@pytest.mark.parametrize(
    ("specs", "text"),
    [
        ([{"type": "ftp"}], "of the type 'ftp', wanted peer, registry or archive"),
        ([{**PEER, "url": "a:1"}], "the peer 'a' has the url 'a:1', wanted http://"),
        ([{**PEER, "token": ""}], "the peer 'a' has no token"),
        ([PEER, PEER], "'peer a' is declared twice"),
        ([{"type": "registry"}] * 2, "'registry' is declared twice"),
        ([{**ARCHIVE, "checksum": "md5:1"}], "the checksum 'md5:1', wanted sha256"),
        ([{**ARCHIVE, "checksum": None}], "the checksum None, wanted sha256"),
        ([{**ARCHIVE, "url": "http://a/b"}], "wanted one of them"),
        ([{**ARCHIVE, "path": ""}], "wanted one of them"),
        ([{**ARCHIVE, "path": "", "url": "ftp://a"}], "the url with http"),
    ],
)
def test_sources_that_make_no_sense(ours, specs, text):
    with pytest.raises(HostError, match=text):
        make(ours, *specs)


def test_a_remote_says_what_it_was_served(theirs):
    assert Remote("u", (), ()).content == b""
