# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine pulls for the catalog: what is asked of it, what is told, how each failure ends."""

from __future__ import annotations

import json
import threading

import pytest
from catalog_rig import Told
from catalog_samples import declare

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_engine import EnginePull
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_progress import CatalogProgress
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_api import OllamaApi
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import Store
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import StoppedError, Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Answer

URL = "http://127.0.0.1:11434"
NAME, SOURCE = "qwen3:1.7b", "registry.example:5000/library/qwen3:1.7b"
PULL = ("POST", "/api/pull", {"model": SOURCE, "insecure": True, "stream": True})
COPY = ("POST", "/api/copy", {"source": SOURCE, "destination": NAME})
DELETE = ("DELETE", "/api/delete", {"model": SOURCE})
PATIENCE_S = 20.0
BEGIN = {"status": "pulling manifest"}
SUCCESS = {"status": "success"}


def arrived(done, total=9_000_000):
    return {"status": "pulling aa", "digest": "sha256:aa", "total": total, "completed": done}


GOOD = [BEGIN, arrived(4_000_000), arrived(9_000_000), {"status": "writing manifest"}, SUCCESS]


class Stream:
    """The body of an answer: events, and then silence up to the moment the client hangs up."""

    def __init__(self, *events, ends=True):
        self.events = events
        self.ends = ends
        self.left = threading.Event()
        self.closed = False

    def __iter__(self):
        for event in self.events:
            yield json.dumps(event).encode() + b"\n"
        if not self.ends:
            self.left.wait(PATIENCE_S)

    def fileno(self):  # asked for when the client hangs up
        self.left.set()
        raise OSError("it has no descriptor")

    def close(self):
        self.closed = True


class Engine:
    """An engine's HTTP answers: a pull's stream, and a status for everything else."""

    def __init__(self, stream, status=200):
        self.stream = stream
        self.status = status
        self.asked = []

    def __call__(self, method, url, body, headers, timeout):
        path = url[len(URL) :]
        self.asked.append((method, path, json.loads(body)))
        if path == "/api/pull":
            return Answer(200, self.stream)
        return Answer(self.status, b"" if self.status == 200 else b'{"error": "no space left"}')


class Clock:
    """Goes on by a second at each look."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


class Rig:
    """What pulls a model, and everything that it was asked and has told.

    Args:
        stream: what the engine answers to the pull.
        models: what is declared; the first one is pulled.
        status: what the engine answers to everything else.
        watch: when to give up.
    """

    def __init__(self, stream, *models, status=200, **watch):
        declared = declare(*(models or [{"name": NAME, "source": SOURCE, "insecure": True}]))
        self.item = declared.wanted[0]
        self.engine = Engine(stream, status)
        self.told = Told()
        self.progress = CatalogProgress(self.told)
        api = OllamaApi(URL, self.engine, watch=Watch(**{"clock": Clock(), **watch}))
        self.store = Store("/store")
        self.pull = EnginePull(api, declared, self.progress, lambda: self.store)

    def run(self):
        name = str(self.item.name)
        self.pull(self.item, None, lambda *point: self.progress.update(name, *point))

    @property
    def asked(self):
        return self.engine.asked


def test_a_model_is_pulled_by_its_source_and_gets_its_declared_name():
    rig = Rig(Stream(*GOOD))
    rig.run()
    assert rig.asked == [PULL, COPY, DELETE]
    assert rig.told.states == [
        (NAME, "pulling", None, None, ""),
        (NAME, "pulling", 4_000_000, 9_000_000, ""),
        (NAME, "pulling", 9_000_000, 9_000_000, ""),
        (NAME, "writing manifest", 9_000_000, 9_000_000, ""),
        (NAME, "success", 9_000_000, 9_000_000, ""),
    ]


def test_a_source_that_is_declared_itself_stays():
    copied = {"name": NAME, "source": SOURCE, "insecure": True}
    rig = Rig(Stream(*GOOD), copied, {"name": SOURCE, "insecure": True})
    rig.run()
    assert rig.asked == [PULL, COPY]


def test_a_model_of_its_sources_name_needs_no_other():
    rig = Rig(Stream(*GOOD), {"name": SOURCE, "insecure": True})
    rig.run()
    assert rig.asked == [PULL]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([BEGIN, arrived(1), {"error": "max retries exceeded"}], "failed: max retries exceeded"),
        ([BEGIN, {"error": "digest mismatch"}, SUCCESS], "failed: digest mismatch"),
        ([BEGIN, arrived(1)], "failed: the stream ended after 'pulling aa', wanted 'success'"),
        ([], "failed: the stream ended after 'nothing', wanted 'success'"),
    ],
)
def test_a_pull_that_fails_inside_its_stream_gives_no_name(events, message):
    """The engine has answered 200 by then."""
    rig = Rig(Stream(*events))
    with pytest.raises(HostError, match=f"pulling {SOURCE} {message}"):
        rig.run()
    assert rig.asked == [PULL]
    assert rig.engine.stream.closed


def test_a_stall_is_noted_every_ten_seconds_and_ends_the_pull():
    stream = Stream(BEGIN, *[arrived(5_000_000)] * 100, ends=False)
    rig = Rig(stream, stall_s=30)
    with pytest.raises(HostError, match=r"stalled at 5\.0MB of 9\.0MB: no byte came for 31 s"):
        rig.run()
    assert rig.told.states[1:] == [
        (NAME, "pulling", 5_000_000, 9_000_000, ""),
        (NAME, "pulling", 5_000_000, 9_000_000, "stalled for 10 s"),
        (NAME, "pulling", 5_000_000, 9_000_000, "stalled for 20 s"),
        (NAME, "pulling", 5_000_000, 9_000_000, "stalled for 30 s"),
    ]
    assert rig.asked == [PULL]
    assert stream.left.is_set()
    assert stream.closed


def test_a_note_about_a_stall_goes_when_bytes_come_again():
    rig = Rig(Stream(*[arrived(5)] * 12, arrived(6), SUCCESS))
    rig.run()
    assert [state[2:] for state in rig.told.states] == [
        (5, 9_000_000, ""),
        (5, 9_000_000, "stalled for 10 s"),
        (6, 9_000_000, ""),
        (6, 9_000_000, ""),
    ]


def test_a_wish_to_stop_hangs_up_on_a_silent_engine():
    stream = Stream(BEGIN, arrived(5_000_000), ends=False)
    rig = Rig(
        stream,
        tick_s=0.005,
        stall_s=1e9,
        stopped=lambda: "SIGTERM" if rig.told.states[-1:] == [FIVE] else "",
    )
    with pytest.raises(StoppedError, match=f"pulling {SOURCE} was stopped by SIGTERM"):
        rig.run()
    assert rig.asked == [PULL]
    assert stream.left.is_set()
    assert stream.closed


FIVE = (NAME, "pulling", 5_000_000, 9_000_000, "")


def test_a_name_that_cannot_be_given_leaves_what_was_pulled():
    """The next run finds it under its source's name, and downloads nothing."""
    rig = Rig(Stream(*GOOD), status=500)
    with pytest.raises(HostError, match=r"copying .* failed: HTTP 500 no space left"):
        rig.run()
    assert rig.asked == [PULL, COPY]
