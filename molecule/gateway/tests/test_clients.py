# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What clients get: routing, refusals in OpenAI's shape, keys, limits, TLS."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time

import pytest

MODEL = "llama3.2:3b"
CHAT = "/v1/chat/completions"
# Valid, but deeper than HAProxy looks.
DEEP = b'{"x": ' + b"[" * 30 + b"]" * 30 + b', "model": "llama3.2:3b"}'


def chat(model=MODEL, prompt="hi", **more):
    return {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 2,
        **more,
        "model": model,
    }


def refused(answer, status, code):
    found, headers, body = answer
    assert found == status, body
    assert headers["Content-Type"] == "application/json"
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    return headers, body["error"]


def test_the_models_are_those_of_the_routes(ask, gw_01):
    status, _headers, listed = ask("/v1/models")
    routes = json.loads(gw_01.file("/etc/haproxy/hx/routes.json").content_string)
    assert status == 200
    assert [model["id"] for model in listed["data"]] == [route["model"] for route in routes]
    assert {model["id"] for model in listed["data"]} >= {MODEL, "mistral-small3.2:latest"}


@pytest.mark.parametrize("path", ["/v1/models/llama3.2:3b", "/v1/models/llama3.2%3A3b"])
def test_one_model_can_be_asked_for(ask, path):
    assert ask(path)[2]["id"] == MODEL
    refused(ask("/v1/models/nobody"), 404, "model_not_found")


def test_a_prompt_of_one_megabyte_is_routed_by_a_model_that_comes_after_it(ask, access_log):
    body = chat(prompt="word " * 209_716)
    data = json.dumps(body).encode()
    assert len(data) > 1_048_576
    assert data.endswith(b'"model": "llama3.2:3b"}')
    status, headers, answer = ask(CHAT, data)
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 2
    [line] = [line for line in access_log() if line["id"] == headers["X-Request-Id"]]
    assert (line["model"], line["status"]) == (MODEL, 200)
    assert line["bytes_in"] > len(data)


def test_a_chunked_prompt_of_one_megabyte_is_routed_too(address):
    data = json.dumps(chat(prompt="word " * 209_716)).encode()
    client = http.client.HTTPConnection(address, 8000, timeout=60)
    pieces = (data[start : start + 65536] for start in range(0, len(data), 65536))
    headers = {"Content-Type": "application/json", "Authorization": "Bearer key-of-load"}
    client.request("POST", CHAT, pieces, headers, encode_chunked=True)
    assert client.getresponse().status == 200


def test_a_request_that_is_too_large_is_refused(ask):
    _headers, error = refused(ask(CHAT, chat(prompt="x" * 1_310_720)), 413, "request_too_large")
    assert "1310720" in error["message"]


def test_an_unknown_model_is_refused_by_name(ask):
    _headers, error = refused(ask(CHAT, chat(model='no"body')), 404, "model_not_found")
    assert 'no"body' in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"model": null}', b'{"model": ""}', DEEP],
    ids=["empty", "broken", "list", "no model", "null", "empty model", "deep"],
)
def test_a_body_that_names_no_model_is_refused(ask, body):
    refused(ask(CHAT, body, method="POST"), 400, "model_missing")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/tags", 404, "not_found"),
        ("POST", "/api/pull", 404, "not_found"),
        ("DELETE", "/api/delete", 404, "not_found"),
        ("POST", "/v1/load_lora_adapter", 404, "not_found"),
        ("GET", "/metrics", 404, "not_found"),
        ("GET", "/v1/chat/completions/", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models/llama3.2:3b", 405, "method_not_allowed"),
    ],
)
def test_only_what_is_listed_can_be_asked(ask, method, path, status, code):
    refused(ask(path, method=method), status, code)


@pytest.mark.parametrize("key", [None, "", "key-of-nobody", "key-of-load2"])
def test_a_wrong_key_is_refused(ask, key):
    headers, error = refused(ask(CHAT, chat(), key=key), 401, "invalid_api_key")
    assert headers["WWW-Authenticate"] == "Bearer"
    assert error["type"] == "authentication_error"
    refused(ask("/v1/models", key=key), 401, "invalid_api_key")


def test_a_key_has_its_requests_per_minute(ask):
    statuses = [ask("/v1/models", key="key-of-slow")[0] for _turn in range(3)]
    assert statuses == [200, 200, 200]
    headers, error = refused(ask(CHAT, chat(), key="key-of-slow"), 429, "rate_limit_exceeded")
    assert int(headers["Retry-After"]) > 0
    assert error["type"] == "rate_limit_error"
    assert ask("/v1/models")[0] == 200


def test_a_key_has_its_parallel_streams(ask, address):
    client = http.client.HTTPConnection(address, 8000, timeout=60)
    headers = {"Authorization": "Bearer key-of-narrow", "Content-Type": "application/json"}
    client.request("POST", CHAT, json.dumps(chat(max_tokens=200, stream=True)), headers)
    stream = client.getresponse()
    assert stream.status == 200
    for _turn in range(2):
        answer = ask(CHAT, chat(), key="key-of-narrow")
        headers, _error = refused(answer, 429, "rate_limit_exceeded")
        assert headers["Retry-After"] == "1"
    assert stream.read().endswith(b"data: [DONE]\n\n")
    # A moment after its last byte HAProxy still counts the stream. One who asks in turn is not
    # refused for that (without the wait, one of ten of these was).
    statuses = [ask(CHAT, chat(max_tokens=1), key="key-of-narrow")[0] for _turn in range(50)]
    assert statuses == [200] * 50


def test_of_three_requests_at_once_a_key_of_one_stream_has_one(ask):
    statuses = []

    def send():
        statuses.append(ask(CHAT, chat(max_tokens=100), key="key-of-narrow")[0])

    threads = [threading.Thread(target=send) for _turn in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 429, 429]
    assert ask(CHAT, chat(), key="key-of-narrow")[0] == 200


def test_tls_is_served_with_the_declared_certificate(gw_01):
    shown = gw_01.run(
        "curl -sS --resolve gw-01:8443:127.0.0.1 --cacert /etc/ssl/certs/gw-01.crt"
        " -H 'Authorization: Bearer key-of-load' -o /dev/null -w '%{http_code} %{http_version}' https://gw-01:8443/v1/models"
    )
    assert shown.stdout == "200 1.1", shown.stderr


def test_a_model_without_a_host_is_answered_in_the_same_shape(ask, gateway):
    model = "mistral-small3.2:latest"
    drain = {"model": model, "state": "drained", "budget": 0, "allow_last": True}
    for host in ("llm-01", "llm-03"):
        gateway("gateway_traffic", host=host, **drain)
    try:
        headers, _error = refused(ask(CHAT, chat(model=model)), 503, "no_host_available")
        assert headers["Retry-After"] == "5"
    finally:
        for host in ("llm-01", "llm-03"):
            gateway("gateway_traffic", host=host, model=model, state="ready")


def test_the_engines_key_stands_in_a_file_of_root_alone(gw_01):
    key = gw_01.file("/etc/haproxy/hx/engine-keys.map")
    assert (key.user, key.mode) == ("root", 0o600)
    assert "vllm secret-of-the-engines" in key.content_string
    found = gw_01.run("grep -rl secret-of-the-engines /etc /var/log /run /var/lib/haproxy")
    assert found.stdout.split() == ["/etc/haproxy/hx/engine-keys.map"]


def test_tokens_arrive_one_by_one(address):
    body = json.dumps(chat(max_tokens=25, stream=True)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key-of-load\r\n"
    with socket.create_connection((address, 8000), timeout=60) as client:
        client.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        reads, tail = 0, b""
        while b"[DONE]" not in tail:
            tail = tail[-10:] + client.recv(65536)
            reads += 1
    # Held back for 200 ms each, as without http-no-delay, they come in five or six lumps.
    assert reads > 12


def test_a_client_that_goes_before_the_first_token_frees_the_engine(address, access_log):
    model, before = "mistral-small3.2:latest", len(access_log())
    client = http.client.HTTPConnection(address, 8000, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer key-of-load"}
    client.request("POST", CHAT, json.dumps(chat(model=model, prompt="leave")), headers)
    time.sleep(0.5)
    client.close()
    time.sleep(1.5)
    # The first token would have come after four seconds.
    [line] = [line for line in access_log()[before:] if line["model"] == model]
    assert line["termination"].startswith("CH")
