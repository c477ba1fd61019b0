# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible's own client against a server of its own: answers and errors come whole."""

from __future__ import annotations

import gc
import http.server
import threading

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._transport import ansible_http

SAID = b'{"error": "model requires more memory"}\nmore\n'


class Server(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", str(len(SAID)))
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(SAID)

    def do_POST(self):
        self.do_GET()

    def do_DELETE(self):
        self.do_GET()

    def log_message(self, *_arguments):
        pass


@pytest.fixture(scope="module")
def url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("status", [200, 404, 500, 503])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_the_server_says_comes_with_its_status(url, method, status):
    answer = ansible_http(use_proxy=False)(
        method, f"{url}/{status}", b"{}" if method == "POST" else None, {}, 10
    )
    gc.collect()
    assert (answer.status, answer.headers["retry-after"]) == (status, "7")
    assert answer.read() == SAID
    answer.close()


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_comes_line_by_line(url, status):
    answer = ansible_http(use_proxy=False)("GET", f"{url}/{status}", None, {}, 10)
    gc.collect()
    assert list(answer.lines()) == SAID.splitlines(keepends=True)
    answer.close()


def test_a_server_that_is_not_there_is_an_error(url):
    gone = url.rpartition(":")[0] + ":1"
    with pytest.raises(OSError, match="refused"):
        ansible_http(use_proxy=False)("GET", f"{gone}/200", None, {}, 10)
