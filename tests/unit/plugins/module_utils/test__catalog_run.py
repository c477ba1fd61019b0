# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A whole run of the catalog, with an engine and a registry in memory."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import threading

import pytest
from catalog_runs import ONE, TWO, Host, write
from store_samples import LONG_AGO, blob_path, digest_of, write_blob, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_run as runs
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import StoreLock


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture
def whole(host):
    """Have a host with its two models."""
    for model, content in (("one", ONE), ("two", TWO)):
        write(host.root, model, content)
    return host


SAME = ("plan", "actions", "totals", "catalog", "env", "diff", "downloaded_bytes", "changed")


def same(real, predicted):
    return [key for key in SAME if real[key] != predicted[key]] == []


def test_check_mode_tells_what_a_run_does_and_leaves_no_trace(host):
    write_model(host.root, "bad", b"x")
    before = host.files()
    predicted = host.run("one", "two", forbidden=["bad"], check=True)
    assert host.files() == before
    assert predicted["outcomes"] == []
    result = host.run("one", "two", forbidden=["bad"])
    assert "msg" not in result
    assert same(result, predicted)
    assert [outcome["action"] for outcome in result["outcomes"]] == ["pull", "pull", "remove"]
    assert result["outcomes"][0]["source"] == "registry registry.ollama.ai"


def test_a_run_without_changes_asks_the_engine_once_and_reads_nothing_twice(whole):
    first = whole.run("one", "two")
    assert (first["changed"], first["verified"]["read"]) == (False, 3)
    calls = whole.api.calls
    before = whole.files()
    again = whole.run("one", "two")
    assert again["verified"]["read"] == 0
    assert again["verified"]["remembered"] == 3
    assert whole.api.calls == calls + 1
    assert whole.asked == []
    assert {**whole.files(), **lock_of(whole)} == {**before, **lock_of(whole)}


def lock_of(host):
    return {str(host.root / ".hx" / "lock"): ""}


def test_rot_is_found_by_reading_everything(whole):
    whole.run("one", "two")
    whole.flip(ONE)
    assert not whole.run("one", "two")["changed"]
    assert not whole.run("one", "two", verify="none")["changed"]
    result = whole.run("one", "two", verify="full")
    assert [step["action"] for step in result["plan"]] == ["repull", "adopt"]
    assert result["verified"]["corrupt"][0]["path"].endswith(digest_of(ONE))
    assert blob_path(whole.root, ONE).read_bytes() == ONE
    assert not whole.run("one", "two", verify="full")["changed"]


def test_what_changed_is_read_again(whole):
    whole.run("one", "two")
    blob_path(whole.root, ONE).write_bytes(ONE.upper())
    result = whole.run("one", "two")
    assert (result["verified"]["read"], result["outcomes"][0]["ok"]) == (2, True)


def test_undeclared_models_are_not_read(whole):
    assert whole.run("one")["verified"]["read"] == 2


def test_without_verification_a_download_is_read_all_the_same(host):
    write_blob(host.root, ONE).write_bytes(b"Weights one")
    result = host.run("one", verify="none")
    assert "msg" not in result
    assert blob_path(host.root, ONE).read_bytes() == ONE


def test_a_model_that_no_source_can_give_does_not_stop_the_others(whole):
    manifest = whole.root / parse_name("two").manifest
    manifest.unlink()
    for check in (True, False):
        result = whole.run("two", "nobody:7b", check=check)
        assert "nobody:7b: it is not there, and no source can give it" in result["msg"]
        assert [entry["name"] for entry in result["unavailable"]] == ["nobody:7b"]
        assert result["changed"]
    assert manifest.exists()
    result = whole.run("two", "nobody:7b")
    assert [outcome["action"] for outcome in result["outcomes"]] == ["unavailable"]
    assert not result["changed"]


def test_the_disk_is_looked_at_before_the_first_byte(host):
    host.free = 10
    result = host.run("one")
    assert "Nothing was pulled" in result["msg"]
    assert host.api.asked == []


def test_a_run_that_is_refused_tells_of_the_models_that_are_there(whole):
    before = whole.run("one", "two")["env"]
    write(whole.registry, "three", b"weights three")
    whole.free = 10
    result = whole.run("one", "three", forbidden=["two"])
    assert "Nothing was pulled" in result["msg"]
    counted = ("changed", "downloaded_bytes", "reclaimed_files")
    assert [result[name] for name in counted] == [False, 0, 0]
    assert result["env"] == before
    assert result["catalog"]["after"] == result["catalog"]["before"]
    assert [step["action"] for step in result["plan"]] == ["adopt", "pull", "remove"]


def test_the_models_before_are_told_however_broken_they_are(whole):
    before = whole.run("one", "two")["env"]
    write(whole.registry, "three", b"weights three")
    whole.flip(ONE)
    (whole.registry / parse_name("one").manifest).unlink()  # no source can give it
    result = whole.run("one", "two", "three", verify="full", check=True)
    assert "no source can give it" in result["msg"]
    assert result["env_before"] == before
    names = [entry["name"] for entry in result["env"]]
    assert names == ["one:latest", "two:latest", "three:latest"]
    result = whole.run("two", "three", forbidden=["one"])
    assert {entry["name"] for entry in result["env_before"]} == {"one:latest", "two:latest"}
    assert {entry["name"] for entry in result["env"]} == {"two:latest", "three:latest"}


def test_a_model_that_anothers_download_makes_whole_is_not_told_as_unavailable(whole):
    write_model(whole.root, "mine", ONE)
    blob_path(whole.root, ONE).unlink()
    predicted = whole.run("mine", "one", "two", check=True)
    result = whole.run("mine", "one", "two")
    for run in (predicted, result):
        assert "msg" not in run
        assert run["unavailable"] == []
        assert [entry["complete"] for entry in run["catalog"]["after"]] == [True] * 3
    assert same(result, predicted)
    assert not whole.run("mine", "one", "two")["changed"]


def test_it_is_when_the_download_fails(whole, monkeypatch):
    write_model(whole.root, "mine", ONE)
    blob_path(whole.root, ONE).unlink()

    def fail(*_args, **_options):
        raise HostError("no byte came.")

    monkeypatch.setattr(whole.api, "pull", fail)
    result = whole.run("mine", "one", "two")
    assert "one:latest: no byte came." in result["msg"]
    assert "mine:latest: blob sha256-" in result["msg"]
    assert result["msg"].count("one:latest") == 1


def test_what_could_not_be_removed_is_judged_as_there(whole, monkeypatch):
    write_blob(whole.root, b"orphan")
    os.utime(blob_path(whole.root, b"orphan"), (LONG_AGO, LONG_AGO))

    def refused(_self, plan):
        return [runs.Outcome(step.action, step.target, False, "no") for step in plan.changes]

    predicted = whole.run("one", "two", prune_orphans=True, check=True)
    monkeypatch.setattr(runs.Executor, "apply", refused)
    result = whole.run("one", "two", prune_orphans=True)
    for run, status in ((predicted, "PASS"), (result, "WARN")):
        found = {verdict["check"]: verdict["status"] for verdict in run["verdicts"]}
        assert found["store_orphans"] == status


def test_a_run_that_breaks_off_tells_of_no_models(whole, monkeypatch):
    def broken(_self, _plan):
        raise HostError("no more")

    monkeypatch.setattr(runs.Executor, "apply", broken)
    result = whole.run("one", forbidden=["two"])
    assert (result["msg"], result["changed"], "env" in result) == ("no more", True, False)


def test_an_engine_that_serves_something_else(whole):
    shutil.rmtree(whole.root / "manifests")
    write_model(whole.root, "bad", b"x")
    whole.api.tags = lambda: {"registry.ollama.ai/library/other:latest": ""}
    result = whole.run("one")
    assert "doesn't serve the store" in result["msg"]
    assert "bad:latest" in result["msg"]
    assert "other:latest" in result["msg"]
    assert whole.api.asked == []
    shutil.rmtree(whole.root / "manifests")
    write(whole.root, "one", ONE)
    assert whole.run("one", check=True)["changed"] is False
    assert "doesn't serve the store" in whole.run("one")["msg"]  # though nothing is to be done


def test_an_undeclared_model_whose_configuration_rots_is_not_taken_for_that(whole):
    """An engine doesn't list it."""
    write_model(whole.root, "odd", b"x", config=b"odd config")
    path = blob_path(whole.root, b"odd config")
    path.write_bytes(b"ODD CONFIG")
    shutil.rmtree((whole.root / parse_name("one").manifest).parent)
    result = whole.run("one")
    assert "msg" not in result
    assert result["undeclared"] == ["odd:latest", "two:latest"]


def test_an_engine_that_is_down(whole):
    whole.api.down = True
    assert "msg" not in whole.run("one", "two")
    blob_path(whole.root, ONE).unlink()
    assert whole.run("one", "two", check=True)["changed"]
    assert whole.run("one", "two")["msg"] == "the engine is down."


def test_a_second_run_is_refused(whole):
    with StoreLock(str(whole.root), "the first"):
        for check in (True, False):
            assert "another run works on the model store" in whole.run("one", check=check)["msg"]


def test_a_ledger_that_is_damaged_is_said_and_written_anew(whole):
    whole.run("one")
    [ledger] = (whole.tmp / "state").rglob("*.json")
    ledger.write_text("{")
    result = whole.run("one")
    assert result["verified"]["read"] == 2
    assert "blobs are verified anew" in whole.warned[0]
    assert json.loads(ledger.read_text())
    whole.run("one")
    assert len(whole.warned) == 1


def test_a_source_that_lacks_something_is_refused(whole):
    result = whole.run("one", sources=[{"type": "archive", "path": "/x.tar"}])
    assert "wanted sha256:" in result["msg"]


def test_a_stop_leaves_a_lock_that_the_next_run_can_take(whole):
    whole.stop = "SIGTERM"
    assert "was stopped by SIGTERM" in whole.run("one")["msg"]
    whole.stop = ""
    assert "msg" not in whole.run("one")


def test_progress_names_what_is_read(whole):
    whole.run("one", "two")
    size = len(ONE + TWO + b"config")
    assert ("declared models", "verifying", size, size, "") in whole.told.states


def test_what_is_needed_after_all_is_said(host):
    """An engine that says that it pulled, and didn't."""
    host.api.pull = lambda *_args, **_options: None
    result = host.run("one")
    assert "came from registry registry.ollama.ai, but it is not there" in result["msg"]


def test_what_ages_during_a_run_is_for_the_next_one(whole):
    """A file that was too young to go when the plan was made isn't what the run failed to do."""
    blob_path(whole.root, TWO).unlink()
    orphan = write_blob(whole.root, b"nobody's")
    times = iter([LONG_AGO + 60.0, LONG_AGO + 7200.0])
    whole.now = lambda: next(times)
    result = whole.run("one", "two", prune_orphans=True)
    assert "msg" not in result
    assert orphan.exists()


def test_free_space_of_a_path_that_will_be(tmp_path):
    assert runs.free_bytes(str(tmp_path / "a" / "b")) > 0


class Full(http.server.BaseHTTPRequestHandler):
    """A peer without a free slot."""

    def do_GET(self):
        self.send_response(503)
        self.send_header("Retry-After", "30")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def full_peer():
    server = http.server.HTTPServer(("127.0.0.1", 0), Full)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    yield {"type": "peer", "name": "llm-02", "url": url, "token": "t"}
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_full_peer_is_waited_for_until_the_run_is_to_stop(host, full_peer):
    told = []

    def tell(item, phase, *_bytes, note="", **_unit):
        told.append((item, phase, note))
        host.stop = "SIGTERM"

    host.told.update = tell
    result = host.run("one", sources=[full_peer])
    assert "stopped by SIGTERM" in result["msg"]
    [(item, phase, note)] = told
    assert (item, phase) == ("one:latest", "asking")
    assert "llm-02" in note
