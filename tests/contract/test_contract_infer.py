# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts about generate, chat, embed, ps, loading and unloading."""

from __future__ import annotations

import time

import pytest

METRICS = {
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
}
SHORT = {"num_predict": 5, "temperature": 0}


@pytest.fixture(params=["/api/generate", "/api/chat"])
def path(request):
    """Each of the two endpoints that answer."""
    return request.param


def body(path, model, text="Say hello.", **more):
    """Return a request for one of the two endpoints."""
    if path == "/api/chat":
        more["messages"] = [{"role": "user", "content": text}] if text else []
    else:
        more["prompt"] = text
    return {"model": model, "think": False, "options": SHORT, **more}


def piece(path, line):
    """Return the text of one line."""
    return line["message"]["content"] if path == "/api/chat" else line["response"]


def test_stream_is_the_default(api, model, path):
    """Without `stream` the answer is NDJSON; only the last object is done and has measures."""
    reply = api.post(path, body(path, model))
    assert reply.headers["Content-Type"].startswith("application/x-ndjson")
    lines = reply.lines()
    assert [line["done"] for line in lines[:-1]] == [False] * (len(lines) - 1)
    assert lines[-1]["done"] is True
    assert lines[-1]["done_reason"] in ("stop", "length")
    assert set(lines[-1]) >= METRICS
    assert not any("eval_count" in line for line in lines[:-1])


def test_stream_and_whole_give_the_same_text(api, model, path):
    """With temperature 0 the parts of the stream add up to the whole answer."""
    options = {**SHORT, "seed": 7}
    streamed = api.post(path, {**body(path, model), "options": options}).lines()
    whole = api.post(path, {**body(path, model), "options": options, "stream": False})
    assert whole.headers["Content-Type"].startswith("application/json")
    assert "".join(piece(path, line) for line in streamed) == piece(path, whole.json())


def test_num_predict_ends_with_length(api, model, path):
    """An answer that reaches num_predict ends with done_reason `length`."""
    answer = api.post(path, body(path, model, "Count to one hundred.", stream=False)).json()
    assert answer["done_reason"] == "length"
    assert answer["eval_count"] == 5


def test_durations_are_integers_that_add_up(api, model, path):
    """Durations are integers in nanoseconds; the parts are not longer than the total."""
    answer = api.post(path, body(path, model, stream=False)).json()
    assert all(isinstance(answer[key], int) for key in METRICS if key in answer)
    parts = sum(answer.get(f"{key}_duration", 0) for key in ("load", "prompt_eval", "eval"))
    assert parts <= answer["total_duration"] * 1.02


def test_unknown_model_is_404(api, path):
    """An unknown model answers 404 `model 'x' not found`, in stream mode too."""
    reply = api.post(path, body(path, "contract-none:x"))
    assert (reply.status, reply.error) == (404, "model 'contract-none:x' not found")


def test_invalid_name(api, version):
    """An invalid name answers 404 at 0.11.4 and 400 `invalid model name` on current versions."""
    reply = api.post("/api/generate", {"model": "no such", "prompt": "x"})
    if version < (0, 12, 0):
        assert (reply.status, reply.error) == (404, "model 'no such' not found")
    elif version >= (0, 30, 0):
        assert (reply.status, reply.error) == (400, "invalid model name")
    else:
        pytest.skip("not known for this version")


def test_empty_prompt_loads(api, model, path):
    """An empty prompt loads the model: one JSON object, not a stream, done_reason `load`."""
    reply = api.post(path, body(path, model, ""))
    assert reply.headers["Content-Type"].startswith("application/json")
    assert (reply.json()["done"], reply.json()["done_reason"]) == (True, "load")
    assert api.running(model) is not None


def test_unload(api, model, path):
    """An empty prompt with keep_alive 0 unloads: 200 `unload`, also when it is not loaded."""
    api.post(path, body(path, model, ""))
    for _time in range(2):
        reply = api.post(path, body(path, model, "", keep_alive=0))
        assert (reply.status, reply.json()["done_reason"]) == (200, "unload")
    end = time.monotonic() + 15
    while api.running(model) is not None and time.monotonic() < end:
        time.sleep(0.05)
    assert api.running(model) is None


def test_ps_entry(api, model, version):
    """/api/ps has name, size, size_vram, digest, expires_at; from 0.10 context_length."""
    api.post("/api/generate", {"model": model})
    entry = api.running(model)
    assert set(entry) >= {"name", "model", "size", "digest", "details", "expires_at"}
    assert entry.get("size_vram", 0) >= 0
    assert entry["digest"] == api.listed(model)["digest"]
    if version >= (0, 10, 0):
        assert entry["context_length"] > 0


def test_models_do_not_unload_by_delete(api, model, own_name):
    """Deleting a model does not unload it: it stays in ps until it expires."""
    api.post("/api/generate", {"model": model, "keep_alive": 0})
    time.sleep(0.5)
    api.post("/api/copy", {"source": model, "destination": own_name})
    api.post("/api/generate", {"model": own_name, "keep_alive": 30})
    api.delete("/api/delete", {"model": own_name})
    assert api.running(own_name) is not None
    api.post("/api/generate", {"model": model, "keep_alive": 0})


def test_thinking_needs_the_capability(api, model):
    """think=true for a model that cannot think answers 400 `.. does not support thinking`."""
    if "thinking" in api.post("/api/show", {"model": model}).json()["capabilities"]:
        pytest.skip("the model under test can think")
    reply = api.post("/api/generate", {"model": model, "prompt": "x", "think": True})
    assert reply.status == 400
    assert "does not support thinking" in reply.error


def test_raw_takes_no_system(api, model):
    """raw with system or template answers 400."""
    reply = api.post("/api/generate", {"model": model, "prompt": "x", "raw": True, "system": "y"})
    assert reply.status == 400
    assert reply.error == "raw mode does not support template, system, or context"


def test_load_duration_shrinks_when_loaded(api, model):
    """load_duration covers loading: it is far smaller when the model is loaded already."""
    api.post("/api/generate", {"model": model, "keep_alive": 0})
    time.sleep(0.5)
    request = {"model": model, "prompt": "x", "options": SHORT, "stream": False, "think": False}
    first = api.post("/api/generate", request).json()["load_duration"]
    second = api.post("/api/generate", request).json()["load_duration"]
    assert second < first


def test_embed(api, model):
    """POST /api/embed answers one vector per input and counts the prompt's tokens."""
    answer = api.post("/api/embed", {"model": model, "input": ["one", "two"]}).json()
    assert len(answer["embeddings"]) == 2
    assert len(answer["embeddings"][0]) == len(answer["embeddings"][1]) > 0
    assert answer["prompt_eval_count"] > 0


def test_embed_unknown_model(api):
    """Embed of an unknown model answers 404 `model "x" not found, try pulling it first`."""
    reply = api.post("/api/embed", {"model": "contract-none:x", "input": "y"})
    assert reply.status == 404
    assert reply.error == 'model "contract-none:x" not found, try pulling it first'


def test_old_embeddings(api, model):
    """The older POST /api/embeddings answers one vector."""
    answer = api.post("/api/embeddings", {"model": model, "prompt": "one"}).json()
    assert len(answer["embedding"]) > 0


def test_v1_models(api, model):
    """GET /v1/models lists id, object, created and owned_by (the namespace)."""
    answer = api.get("/v1/models").json()
    assert answer["object"] == "list"
    entry = next(item for item in answer["data"] if item["id"] == model)
    assert (entry["object"], entry["owned_by"]) == ("model", "library")
    assert api.get(f"/v1/models/{model}").json()["id"] == model


def test_v1_chat(api, model):
    """POST /v1/chat/completions answers choices with a message, and usage."""
    request = {"model": model, "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 5}
    answer = api.post("/v1/chat/completions", request).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["choices"][0]["finish_reason"] == "length"


def test_v1_chat_stream(api, model):
    """With stream the answer is server-sent events that end with `[DONE]`."""
    request = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi."}],
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    reply = api.post("/v1/chat/completions", request)
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    events = reply.events()
    assert events[-1] == "[DONE]"
    assert events[0]["object"] == "chat.completion.chunk"
    assert events[-2]["usage"]["completion_tokens"] == 5


def test_v1_completions(api, model):
    """POST /v1/completions answers choices with a text."""
    request = {"model": model, "prompt": "Hi.", "max_tokens": 5}
    answer = api.post("/v1/completions", request).json()
    assert answer["object"] == "text_completion"
    assert isinstance(answer["choices"][0]["text"], str)


def test_v1_error_shape(api):
    """Errors of /v1 are objects with message, type, param and code; 404 is not_found_error."""
    request = {"model": "contract-none:x", "messages": [{"role": "user", "content": "Hi."}]}
    reply = api.post("/v1/chat/completions", request)
    assert reply.status == 404
    assert set(reply.json()["error"]) >= {"message", "type", "param", "code"}
    assert reply.json()["error"]["type"] == "not_found_error"
