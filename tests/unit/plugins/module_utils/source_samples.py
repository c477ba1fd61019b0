# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two stores on disk, and sources between them, for the tests of the sources."""

from __future__ import annotations

from store_samples import digest_of, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _sources as sources
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._source_http import Retries
from ansible_collections.hx_infra.llm.plugins.module_utils._store_import import StoreWriter

SHARED, ONE, TWO = b"shared" * 5000, bytes(range(256)) * 400, b"two" * 9000
SUM = "0" * 64
QUICK = Retries(2, 10.0, 10.0, 0.0)


def wanted(text, pin=""):
    return Wanted(parse_name(text), parse_name(text), pin)


def other_store(tmp_path):
    """Write the store of the other host."""
    folder = tmp_path / "theirs"
    write_model(folder, "one:1b", ONE, SHARED)
    write_model(folder, "two:1b", TWO, SHARED)
    return folder


def make(ours, *specs, pull=None, answer=None, retries=QUICK, **more):
    def http_function(_method, _url, _body, _headers, _timeout):
        if isinstance(answer, Exception):
            raise answer
        return answer

    writer = StoreWriter(str(ours))
    return sources.make_sources(
        specs, writer=writer, registry=pull, http=http_function, retries=retries, **more
    )


def holds(ours, theirs, *names):
    """Make sure that models are here as they are there."""
    here, there = read_store(str(ours)), read_store(str(theirs))
    assert sorted(here.models) == sorted(parse_name(name).key for name in names)
    for key, model in here.models.items():
        assert model.digest == there.models[key].digest
        assert here.defects(model) == []
    for digest in here.blobs:
        assert digest_of((ours / "blobs" / f"sha256-{digest}").read_bytes()) == digest


def bring(source, *names):
    told = []
    for name in names:
        item = wanted(name)
        source.fetch(item, source.offer(item), lambda *args: told.append(args))
    return told
