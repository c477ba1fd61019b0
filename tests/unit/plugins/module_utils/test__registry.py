# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asking a registry, with all its ways to fail."""

from __future__ import annotations

import hashlib
import json
import threading
import time

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _registry as registry
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Answer

SOURCE = parse_name("registry:5000/library/qwen3:1.7b")
URL = "http://registry:5000/v2/library/qwen3/manifests/1.7b"


def layer(letter, size):
    return {"mediaType": "m", "digest": f"sha256:{letter * 64}", "size": size}


MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "x",
    "config": layer("c", 5),
    "layers": [layer("a", 100), {**layer("b", 7), "from": "/<tmp>"}],
}
PLAIN = json.dumps(MANIFEST, separators=(",", ":")).encode()


def ask(answer):
    def http(method, url, body, headers, timeout):
        assert (method, url) == ("GET", URL)
        assert headers["Accept"].endswith("manifest.v2+json")
        if isinstance(answer, Exception):
            raise answer
        return answer

    return registry.ask(http, SOURCE, insecure=True)


def test_what_a_pull_would_bring():
    remote = ask(Answer(200, PLAIN))
    assert (remote.url, remote.size, len(remote.layers)) == (URL, 112, 3)
    assert remote.content == PLAIN
    assert remote.meets(hashlib.sha256(PLAIN).hexdigest()[:12])
    assert not remote.meets("0" * 12)


def test_older_servers_write_the_manifest_anew():
    pretty = json.dumps({**MANIFEST, "annotations": {"a": 1}}, indent=2).encode()
    remote = ask(Answer(200, pretty))
    go = PLAIN.replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
    assert remote.digests == (hashlib.sha256(pretty).hexdigest(), hashlib.sha256(go).hexdigest())
    assert remote.digest_for(remote.digests[1][:12]) == remote.digests[1]
    assert remote.digest_for("") == remote.digest_for("0" * 12) == remote.digests[0]


def test_a_login_that_only_the_engine_has():
    assert ask(Answer(401, b"{}")) is None


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            OSError("Name or service not known"),
            "/v2/.*: it can't be reached: .*known",
        ),
        (TimeoutError("timed out"), "can't be reached.*timed out"),
        (Answer(404, b"{}"), "http://registry:5000.*: it doesn't have it"),
        (Answer(500, b"broken"), "answers 500 broken"),
        (Answer(200, b"<html>"), "is no manifest: it is no JSON"),
        (Answer(200, b'{"layers":[]}'), "is no manifest: 'schemaVersion'"),
    ],
)
def test_failures(answer, text):
    with pytest.raises(HostError, match=text) as caught:
        ask(answer)
    assert caught.value.reachable == isinstance(answer, Answer)
    assert caught.value.message == f"{URL}: {caught.value.problem}."


@pytest.mark.parametrize("said", ["", "SIGTERM"])
def test_it_is_given_up_while_a_registry_says_nothing(said):
    asked, end = threading.Event(), threading.Event()
    given = []

    def http(_method, _url, _body, _headers, timeout):
        given.append(timeout)
        asked.set()
        end.wait(10)
        return Answer(200, PLAIN)

    watch = Watch(
        deadline=None if said else time.monotonic() + 5,
        stopped=lambda: said if asked.is_set() else "",
        clock=lambda: time.monotonic() + (60 if asked.is_set() else 0),
        tick_s=0.01,
    )
    with pytest.raises(HostError, match=said or "at the deadline") as caught:
        registry.ask(http, SOURCE, insecure=True, watch=watch)
    end.set()
    assert not isinstance(caught.value, registry.RegistryError)
    assert str(caught.value).startswith("asking registry:5000 for registry:5000/library/qwen3:1.7b")
    assert 0 < given[0] <= (30 if said else 5)


def test_a_copy_byte_for_byte_has_one_digest():
    pretty = json.dumps(MANIFEST, indent=2).encode()
    remote = registry.exact_remote(URL, pretty)
    assert (remote.digests, remote.content) == ((hashlib.sha256(pretty).hexdigest(),), pretty)
    with pytest.raises(registry.RegistryError, match="its manifest is none: it is empty"):
        registry.exact_remote(URL, b"")


def test_scheme():
    name = parse_name("x")
    url = registry.manifest_url(name, insecure=False)
    assert url == "https://registry.ollama.ai/v2/library/x/manifests/latest"
