# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault of the simulated Ollama can be switched on and off while it runs."""

from __future__ import annotations

import http.client

import pytest
from harness import FAST, start_ollama

ASK = {"model": "tiny:1b", "prompt": "Return exactly the text: HX-OK", "stream": False}
STREAM = {"model": "tiny:1b", "prompt": "hello", "options": {"num_predict": 10}}


def test_slow(ollama):
    before = ollama.post("/api/generate", {**STREAM, "stream": False}).json()["eval_duration"]
    ollama.set_faults(slow_factor=5)
    after = ollama.post("/api/generate", {**STREAM, "stream": False}).json()["eval_duration"]
    assert after / before == pytest.approx(5.0, rel=0.2)


def test_http_status_for_some_requests(ollama):
    ollama.set_faults(http_status={"status": 503, "count": 2, "paths": ["/api/generate"]})
    statuses = [ollama.post("/api/generate", ASK).status for _turn in range(3)]
    assert statuses == [503, 503, 200]
    assert ollama.get("/api/version").status == 200
    ollama.set_faults(http_status={"status": 500, "count": 1, "message": "again"})
    assert ollama.get("/api/tags").json() == {"error": "again"}
    assert ollama.get("/api/tags").status == 200


def test_http_status_for_all_requests_until_it_is_off(ollama):
    ollama.set_faults(http_status={"status": 502})
    assert {ollama.get("/api/version").status for _turn in range(4)} == {502}
    ollama.set_faults()
    assert ollama.get("/api/version").status == 200


@pytest.mark.parametrize("value", [True, ["tiny:1b"]])
def test_out_of_memory(ollama, value):
    ollama.set_faults(out_of_memory=value)
    reply = ollama.post("/api/generate", {**ASK, "stream": True})
    assert reply.status == 500
    old = "model requires more system memory"
    new = "llama-server reported out-of-memory during startup"
    assert (old if ollama.version == "0.11.4" else new) in reply.json()["error"]
    assert ollama.get("/api/ps").json()["models"] == []
    ollama.set_faults()
    assert ollama.post("/api/generate", ASK).status == 200


def test_out_of_memory_for_another_model(old):
    old.set_faults(out_of_memory=["other:1b"])
    assert old.post("/api/generate", ASK).status == 200


def test_a_limit_of_system_memory(tmp_path):
    models = {"tiny:1b": {"vram_bytes": 4 << 30}}
    config = {**FAST, "system_memory_bytes": 1 << 30, "models": models}
    with start_ollama(tmp_path, config=config) as ollama:
        error = ollama.post("/api/generate", ASK).json()["error"]
    expected = "model requires more system memory (4.0 GiB) than is available (1.0 GiB)"
    assert error == expected


def test_a_stream_that_is_cut(ollama):
    ollama.set_faults(truncated_stream={"after_tokens": 3, "mode": "cut"})
    with pytest.raises(http.client.IncompleteRead) as caught:
        ollama.post("/api/generate", STREAM)
    assert caught.value.partial.count(b"\n") == 3
    assert b'"done":true' not in caught.value.partial


def test_a_stream_that_ends_with_an_error(ollama):
    """After the first piece an error is a last line of a 200 answer, at 0.11.4 with a status."""
    ollama.set_faults(truncated_stream={"after_tokens": 3, "mode": "error"})
    reply = ollama.post("/api/generate", STREAM)
    assert reply.status == 200
    last = reply.lines()[-1]
    assert "unexpected EOF" in last["error"]
    assert last.get("status") == (500 if ollama.version == "0.11.4" else None)
    assert len(reply.lines()) == 4


def test_a_first_message_that_is_an_error(ollama):
    """Before 0.12.6 a first error is still a 200 stream; from then on it is a real status."""
    ollama.set_faults(truncated_stream={"after_tokens": 0, "mode": "error"})
    reply = ollama.post("/api/chat", {**STREAM, "messages": [{"role": "user", "content": "x"}]})
    assert reply.status == (200 if ollama.version == "0.11.4" else 500)
    assert "unexpected EOF" in reply.lines()[0]["error"]


def test_a_stream_without_done(ollama):
    ollama.set_faults(truncated_stream={"after_tokens": 3, "mode": "end"})
    reply = ollama.post("/api/generate", STREAM)
    assert [line["done"] for line in reply.lines()] == [False] * 3


def test_a_whole_answer_that_breaks_off(ollama):
    ollama.set_faults(truncated_stream={"mode": "error"})
    assert ollama.post("/api/generate", {**STREAM, "stream": False}).status == 500


def test_a_broken_openai_stream(ollama):
    ollama.set_faults(truncated_stream={"after_tokens": 1, "mode": "end"})
    body = {"model": "tiny:1b", "messages": [{"role": "user", "content": "x"}], "stream": True}
    assert "[DONE]" not in ollama.post("/v1/chat/completions", body).events()


def test_a_wrong_answer(ollama):
    ollama.set_faults(wrong_answer="HX-NO")
    assert ollama.post("/api/generate", ASK).json()["response"] == "HX-NO"
    ollama.set_faults()
    assert ollama.post("/api/generate", ASK).json()["response"] == "HX-OK"


def test_refused_start(tmp_path):
    with start_ollama(tmp_path, start=False) as ollama:
        ollama.set_faults(refuse_start="no licence for today")
        assert ollama.launch().popen.wait(timeout=20) == 1
        assert "Error: no licence for today" in ollama.log()


def test_a_broken_settings_file_keeps_the_last_settings(old):
    old.set_faults(wrong_answer="HX-NO")
    assert old.post("/api/generate", ASK).json()["response"] == "HX-NO"
    old.config_path.write_text("{")
    assert old.post("/api/generate", ASK).json()["response"] == "HX-NO"
    assert "settings file is not usable" in old.log()


def test_a_blob_upload_to_a_full_disk(ollama):
    ollama.set_faults(disk_full_after_bytes=1)
    reply = ollama.post("/api/blobs/sha256:" + "0" * 64, b"data")
    assert reply.status == 500
    assert "no space left on device" in reply.json()["error"]
