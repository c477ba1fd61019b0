# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives as sources: files and web servers, whole and damaged."""

from __future__ import annotations

import functools
import http.server
import os
import threading

import pytest
from source_samples import ONE, SUM, TWO, bring, holds, make, other_store, wanted
from store_samples import blob_path, digest_of, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _model_archive as archives
from ansible_collections.hx_infra.llm.plugins.module_utils import _source_http as source_http
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import StoppedError, Watch


@pytest.fixture
def theirs(tmp_path):
    return other_store(tmp_path)


@pytest.fixture
def ours(tmp_path):
    folder = tmp_path / "ours"
    folder.mkdir()
    return folder


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A web server without ranges, as many are; counts what it is asked for."""

    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_args):
        pass


@pytest.fixture
def web(tmp_path):
    handler = type("Counting", (Ranges,), {"asked": []})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path))
    )
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def archive(theirs, tmp_path):
    """Pack both models; return what the option says about it."""
    path = tmp_path / "models.tar"
    store = read_store(str(theirs))
    draft = archives.draft(store, ["one:1b", "two:1b"])
    checksum = archives.write(store, str(path), draft, lambda _done: None)
    return {"type": "archive", "path": str(path), "checksum": f"sha256:{checksum}"}


def test_models_from_an_archive(archive, ours, theirs):
    (source,) = make(ours, archive)
    offer = source.offer(wanted("one:1b"))
    assert offer.source == f"archive {archive['path']}"
    assert offer.remote.content == (theirs / parse_name("one:1b").manifest).read_bytes()
    told = bring(source, "one:1b")
    holds(ours, theirs, "one:1b")
    assert not blob_path(ours, TWO).exists()
    assert {phase for phase, _done, _total in told} == {"copying", "writing manifest"}
    bring(source, "two:1b")
    holds(ours, theirs, "one:1b", "two:1b")
    assert source.offer(wanted("three:1b")).problem == "it doesn't have it"


def test_an_archive_goes_on_within_a_blob(archive, ours, theirs):
    part = ours / ".hx" / "incoming" / f"sha256-{digest_of(ONE)}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(ONE[:70000])
    bring(make(ours, archive)[0], "one:1b")
    holds(ours, theirs, "one:1b")


def test_a_part_that_does_not_fit_is_read_once_more(archive, ours, theirs):
    part = ours / ".hx" / "incoming" / f"sha256-{digest_of(ONE)}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * 70000)
    bring(make(ours, archive)[0], "one:1b")
    holds(ours, theirs, "one:1b")


def test_an_archive_of_a_web_server(archive, web, ours, theirs):
    url, asked = web
    spec = {"type": "archive", "url": f"{url}/models.tar", "checksum": archive["checksum"]}
    (source,) = make(ours, spec)
    bring(source, "one:1b", "two:1b")
    holds(ours, theirs, "one:1b", "two:1b")
    assert len(asked) == 3  # the index, all of it, and the second model's own blob
    missing = make(ours, {**spec, "url": f"{url}/none.tar"})[0].offer(wanted("one:1b"))
    assert "it doesn't have it (404)" in missing.problem


def test_a_stop_is_noticed_while_a_web_server_is_asked_again(archive, web, ours, monkeypatch):
    url, _asked = web
    spec = {"type": "archive", "url": f"{url}/models.tar", "checksum": archive["checksum"]}
    (source,) = make(ours, spec)
    items = [wanted(name) for name in ("one:1b", "two:1b")]
    offers = [source.offer(item) for item in items]
    real, broken, told = source_http.Client.get, [True], []

    def get(self, url, headers=None):
        if broken:
            raise OSError("no route to host")
        return real(self, url, headers)

    def tell(phase, *_figures):
        told.append(phase)
        if phase.startswith("asking again"):
            raise HostError("stopped by SIGTERM.")

    monkeypatch.setattr(source_http.Client, "get", get)
    with pytest.raises(HostError, match="stopped by SIGTERM"):
        source.fetch(items[0], offers[0], tell)
    broken.clear()
    source.fetch(items[0], offers[0], tell)
    broken.append(True)
    with pytest.raises(HostError, match="stopped by SIGTERM"):
        source.fetch(items[1], offers[1], tell)
    assert told.count("asking again (no route to host)") == 2


def test_a_wrong_checksum_places_no_manifest(archive, ours, theirs):
    (source,) = make(ours, {**archive, "checksum": f"sha256:{SUM}"})
    for name in ("one:1b", "two:1b"):
        with pytest.raises(HostError, match=f"wanted sha256:{SUM}; no manifest of it is written"):
            bring(source, name)
    assert read_store(str(ours)).models == {}
    bring(make(ours, archive)[0], "one:1b")  # what came is good, whatever it came in
    holds(ours, theirs, "one:1b")


def test_a_damaged_archive(archive, ours, theirs):
    with open(archive["path"], "r+b") as stream:
        content = stream.read()
        stream.seek(content.index(ONE) + 5)
        stream.write(b"!")
    with pytest.raises(HostError, match=f"the blob sha256-{digest_of(ONE)} that came has"):
        bring(make(ours, archive)[0], "one:1b")
    os.truncate(archive["path"], len(content) // 2)
    with pytest.raises(HostError, match=r"archive .*models\.tar: "):
        bring(make(ours, archive)[0], "two:1b")
    assert read_store(str(ours)).models == {}


@pytest.mark.parametrize("content", [None, b"", b"no archive at all", b"\0" * 20480])
def test_what_is_no_archive(archive, ours, content):
    if content is None:
        os.unlink(archive["path"])
    else:
        with open(archive["path"], "wb") as stream:
            stream.write(content)
    offer = make(ours, archive)[0].offer(wanted("one:1b"))
    word = "it can't be read: No such file" if content is None else "it is no archive of models"
    assert offer.problem.startswith(word)
    assert (offer.remote, offer.reachable) == (None, content is not None)


def test_an_archive_that_is_replaced_meanwhile(archive, ours, theirs):
    (source,) = make(ours, archive)
    offer = source.offer(wanted("one:1b"))
    write_model(theirs, "one:1b", b"newer")
    store = read_store(str(theirs))
    draft = archives.draft(store, ["one:1b", "two:1b"])
    archives.write(store, archive["path"], draft, lambda _done: None)
    with pytest.raises(HostError, match="was changed while it was in use"):
        source.fetch(wanted("one:1b"), offer, lambda *_args: None)
    assert read_store(str(ours)).models == {}


class Dribbling:
    """A web server that gives an archive one byte at a time, by a clock of its own."""

    def __init__(self, archive, monkeypatch, seconds):
        self.now = 0.0
        self.seconds = seconds
        self.asked = 0
        self.stopped = ""
        self.on_byte = lambda: None
        with open(archive["path"], "rb") as stream:
            self.content = stream.read()
        monkeypatch.setattr(source_http.Client, "bytes_from", lambda _self, *args: self.give(*args))

    def give(self, _url, offset, _size, _on_trouble):
        self.asked += 1
        for at in range(offset, len(self.content)):
            self.now += self.seconds
            self.on_byte()
            yield self.content[at : at + 1]

    def source(self, archive, ours, **watch):
        spec = {"type": "archive", "url": "http://a/x.tar", "checksum": archive["checksum"]}
        watched = Watch(clock=lambda: self.now, stopped=lambda: self.stopped, **watch)
        self.told = []
        return make(ours, spec, watch=watched, tell=lambda *args: self.told.append(args))[0]


def test_an_index_that_dribbles_is_left_in_time(archive, ours, monkeypatch):
    web = Dribbling(archive, monkeypatch, 7.0)
    source = web.source(archive, ours, stall_s=300.0)
    offers = [source.offer(wanted(name)) for name in ("one:1b", "two:1b")]
    problem = "it can't be read: its index isn't whole after 300 s, 43 bytes came"
    assert [(offer.problem, offer.reachable) for offer in offers] == [(problem, False)] * 2
    assert (web.now, web.asked) == (301.0, 1)
    label = "archive http://a/x.tar"
    assert web.told[-1] == ("one:1b", f"reading the index of {label}, 42B so far")


def test_a_deadline_or_a_stop_ends_the_reading_of_an_index(archive, ours, monkeypatch):
    web = Dribbling(archive, monkeypatch, 0.001)
    source = web.source(archive, ours, deadline=0.0095)
    text = "reading the index of archive http://a/x.tar was stopped at the deadline"
    with pytest.raises(HostError, match=text):
        source.offer(wanted("one:1b"))
    assert len(web.told) == 9
    web.now = 0.0
    source = web.source(archive, ours)
    web.on_byte = lambda: setattr(web, "stopped", "SIGTERM" if web.now > 0.0045 else "")
    with pytest.raises(StoppedError, match="was stopped by SIGTERM"):
        source.offer(wanted("one:1b"))
    assert len(web.told) == 4
    web.on_byte = lambda: setattr(web, "stopped", "")
    web.stopped = ""
    assert source.offer(wanted("one:1b")).usable  # it is nothing that is remembered


def test_a_stop_ends_the_wait_for_an_index(archive, ours, monkeypatch):
    stop = []

    def get(_self, _url, _headers=None):
        raise OSError("no route to host")

    def tell(name, note):
        assert (name, note) == ("one:1b", "archive a: asking again (no route to host)")
        stop.append("SIGTERM")

    monkeypatch.setattr(source_http.Client, "get", get)
    spec = {"type": "archive", "name": "a", "url": "http://a/x", "checksum": archive["checksum"]}
    watch = Watch(stopped=lambda: stop[0] if stop else "")
    slept = []
    retries = source_http.Retries(sleep=slept.append)
    (source,) = make(ours, spec, retries=retries, watch=watch, tell=tell)
    with pytest.raises(StoppedError, match="was stopped by SIGTERM"):
        source.offer(wanted("one:1b"))
    assert slept == []
