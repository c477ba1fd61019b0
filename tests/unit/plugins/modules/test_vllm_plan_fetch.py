# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import email.message
import http.client
import io
import socket
import urllib.error

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_files import FetchError
from ansible_collections.hx_infra.llm.plugins.modules import vllm_plan

URL = "https://hub.example/org/x/resolve/0/config.json"


def refused(code, reason):
    return urllib.error.HTTPError(URL, code, reason, email.message.Message(), io.BytesIO())


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (refused(404, "Not Found"), "answered 404 Not Found", 404),
        (refused(401, "Unauthorized"), "answered 401 Unauthorized, asked without a token", 401),
        (urllib.error.URLError(OSError("no route")), "no answer (no route)", 0),
        (socket.timeout("timed out"), "no answer (timed out)", 0),
        (http.client.IncompleteRead(b"x"), "no answer (IncompleteRead(1 bytes read))", 0),
        (vllm_plan.urls.SSLValidationError("bad certificate"), "no answer (bad certificate)", 0),
        (ValueError("unknown url type"), "no answer (unknown url type)", 0),
        (OSError(), "no answer (OSError)", 0),
    ],
)
def test_a_request_that_fails_says_why(monkeypatch, error, said, status):
    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr(vllm_plan.urls, "open_url", fail)
    with pytest.raises(FetchError) as raised:
        vllm_plan.fetch("GET", URL)
    assert (str(raised.value), raised.value.status) == (said, status)


def test_errors_of_its_own_are_not_taken_for_the_hub_s(monkeypatch):
    def fail(*_arguments, **_options):
        raise KeyError("a mistake")

    monkeypatch.setattr(vllm_plan.urls, "open_url", fail)
    with pytest.raises(KeyError):
        vllm_plan.fetch("GET", URL)
