# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server of a store: whom it lets in, what it gives, and what it doesn't."""

from __future__ import annotations

import http.client
import inspect
import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading

import pytest
from store_samples import blob_path, digest_of, write_blob, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _store_server as store_server
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name

TOKEN = "correct-horse-battery-staple"
WEIGHTS = bytes(range(256)) * 1000
MODEL = parse_name("Tiny:1b").manifest


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "store"
    write_model(folder, "Tiny:1b", WEIGHTS)
    write_model(folder, "private:1b", b"private", config=b"private config")
    return folder


@pytest.fixture
def ended(monkeypatch):
    """Return what is released once for each connection that the server is done with."""
    found, real = threading.Semaphore(0), store_server.Server.shutdown_request

    def shutdown(self, request):
        real(self, request)
        found.release()

    monkeypatch.setattr(store_server.Server, "shutdown_request", shutdown)
    return found


@pytest.fixture
def start(root, tmp_path, monkeypatch):
    """Start a server in this process; return its port."""
    monkeypatch.setattr(store_server, "GRACE_S", 0.0)
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    servers = []

    def begin(**options):
        settings = {
            "root": str(root),
            "manifests": [MODEL],
            "address": "127.0.0.1",
            "port": 0,
            "token_file": str(token),
            **options,
        }
        server = store_server.Server(settings)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server.server_port

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(port, path, method="GET", token=TOKEN, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    sent = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, headers={**sent, **headers})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, {key.lower(): text for key, text in answer.getheaders()}


def blob_url(content):
    return f"/v1/blobs/sha256-{digest_of(content)}"


def test_a_named_model_is_given(root, start):
    port = start()
    status, content, headers = ask(port, f"/v1/{MODEL}")
    assert (status, content) == (200, (root / MODEL).read_bytes())
    assert ask(port, f"/v1/{MODEL.lower()}")[0] == 200
    status, content, headers = ask(port, blob_url(WEIGHTS))
    assert (status, content) == (200, WEIGHTS)
    assert headers["accept-ranges"] == "bytes"
    assert ask(port, blob_url(b"config"))[1] == b"config"


@pytest.mark.parametrize("token", ["", "wrong", f"{TOKEN}x", TOKEN[:-1], "\xff\xfe"])
def test_without_the_token_nothing_is_told(start, capfd, token):
    port = start()
    for path in (f"/v1/{MODEL}", blob_url(WEIGHTS), "/v1/manifests/none", "/"):
        status, content, _headers = ask(port, path, token=token)
        assert (status, content) == (401, b"")
    assert ask(port, f"/v1/{MODEL}", token="", Authorization=f"Basic {TOKEN}")[0] == 401
    log = capfd.readouterr().err
    assert "401" in log
    assert TOKEN not in log


def test_other_things_are_not_there(root, start):
    write_blob(root, b"orphan")
    private = parse_name("private:1b").manifest
    port = start()
    for path in (
        f"/v1/{private}",
        blob_url(b"private"),
        blob_url(b"orphan"),
        "/v1/blobs/../token",
        "/v1/manifests/../../token",
        f"/v1/blobs/../{MODEL}",
        f"/v2/{MODEL}",
        "/v1/blobs/",
        "/",
    ):
        assert ask(port, path)[0] == 404, path


def test_nothing_is_given_through_a_link(root, start, tmp_path):
    port = start()
    assert ask(port, blob_url(WEIGHTS))[0] == 200
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    blob_path(root, WEIGHTS).unlink()
    blob_path(root, WEIGHTS).symlink_to(secret)
    assert ask(port, blob_url(WEIGHTS))[0] == 404
    os.unlink(blob_path(root, WEIGHTS))
    os.mkfifo(blob_path(root, WEIGHTS))
    assert ask(port, blob_url(WEIGHTS))[0] == 404
    (root / "blobs").rename(tmp_path / "moved")
    (root / "blobs").symlink_to(tmp_path / "moved")
    assert ask(port, blob_url(b"config"))[0] == 404


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [("0-9", 0, 9), ("1000-", 1000, 255999), ("-5", 255995, 255999), ("255999-999999", 255999, 0)],
)
def test_parts(start, wanted, first, last):
    last = last or 255999
    status, content, headers = ask(start(), blob_url(WEIGHTS), Range=f"bytes={wanted}")
    assert (status, content) == (206, WEIGHTS[first : last + 1])
    assert headers["content-range"] == f"bytes {first}-{last}/256000"


def test_parts_that_there_are_not(start):
    port = start()
    status, _content, headers = ask(port, blob_url(WEIGHTS), Range="bytes=256000-")
    assert (status, headers["content-range"]) == (416, "bytes */256000")
    for text in ("bytes=0-1,5-6", "lines=1-2", "bytes=-"):
        assert ask(port, blob_url(WEIGHTS), Range=text)[:2] == (200, WEIGHTS)


def test_head_says_the_length_only(start):
    status, content, headers = ask(start(), blob_url(WEIGHTS), method="HEAD")
    assert (status, content, headers["content-length"]) == (200, b"", "256000")


def test_one_connection_for_many_requests(start):
    connection = http.client.HTTPConnection("127.0.0.1", start(), timeout=10)
    connection.connect()
    used = connection.sock
    for path in (f"/v1/{MODEL}", blob_url(b"config"), f"/v1/{MODEL}"):
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        assert connection.getresponse().read()
        assert connection.sock is used
    connection.request("GET", "/v1/blobs/none", headers={"Authorization": f"Bearer {TOKEN}"})
    assert connection.getresponse().read() == b""
    assert connection.sock is None  # no refusal is followed by anything


def test_each_request_of_a_connection_has_the_same_room(start, monkeypatch):
    monkeypatch.setattr(store_server, "HEAD_LIMIT", 300)
    connection = http.client.HTTPConnection("127.0.0.1", start(), timeout=10)
    for _turn in range(5):
        connection.request("GET", f"/v1/{MODEL}", headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
    connection.close()


def test_a_model_that_was_pulled_anew_meanwhile(root, start):
    port = start()
    assert ask(port, blob_url(b"new"))[0] == 404
    write_model(root, "Tiny:1b", b"new")
    assert ask(port, f"/v1/{MODEL}")[0] == 200
    assert ask(port, blob_url(b"new"))[1] == b"new"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"layers":5}', '{"layers":[1]}'])
def test_a_manifest_that_is_none_is_given_as_it_is(root, start, text):
    port = start()
    (root / MODEL).write_text(text)
    assert ask(port, f"/v1/{MODEL}")[:2] == (200, text.encode())
    assert ask(port, blob_url(WEIGHTS))[1] == WEIGHTS


def connect(port, sent=b""):
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(sent)
    return connection


def request(path, *, token=TOKEN, method="GET"):
    return f"{method} {path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def everything(connection):
    """Return what comes until the server hangs up."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def endless(root):
    """Have a blob that no network buffer holds as a whole; return its path."""
    os.truncate(blob_path(root, WEIGHTS), 1 << 30)
    return blob_path(root, WEIGHTS)


def begin_transfer(port):
    """Ask for the weights and take no more than their head."""
    connection = connect(port, request(blob_url(WEIGHTS)))
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def test_more_transfers_than_wanted_are_sent_away(start, endless, ended):
    port = start(connections=1)
    with begin_transfer(port) as first:
        for _turn in range(2):
            status, content, headers = ask(port, f"/v1/{MODEL}")
            assert (status, content) == (503, b"")
            assert (headers["retry-after"], headers["hx-transfers"]) == ("2", "1 of 1")
            assert headers["connection"] == "close"
            assert ended.acquire(timeout=10)
        assert ask(port, f"/v1/{MODEL}", token="")[0] == 401  # whom it is no business of
        assert ended.acquire(timeout=10)
        assert len(first.recv(1 << 20)) > 0  # it is served on
    assert ended.acquire(timeout=10)
    assert ask(port, f"/v1/{MODEL}")[0] == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(f"/v1/{MODEL}", token=f"{TOKEN}x"), 401),
        (request("/v1/manifests/none"), 404),
        (request(blob_url(b"config"))[:-2] + b"Range: bytes=6-\r\n\r\n", 416),
        (request(f"/v1/{MODEL}", method="POST"), 501),
        (request(f"/v1/{MODEL}", method="POST") + bytes(100000), 501),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
        (b"no request at all\r\n\r\n", 400),
        (b"BREW /\r\n\r\n", 400),
        (b"x" * store_server.HEAD_LIMIT, 431),
        (request("/")[:-2] + b"X: y\r\n" * 200 + b"\r\n", 431),
        (request("/")[:-2] + b"X: " + b"y" * store_server.HEAD_LIMIT, 431),
    ],
)
def test_who_is_refused_is_hung_up_on(start, ended, sent, status):
    port = start(connections=1)
    with connect(port, sent) as refused:
        answer = everything(refused)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert answer.count(b"Connection: close\r\n") == 1
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.endswith(b"\r\n\r\n"), "something is said about it"
        assert ask(port, f"/v1/{MODEL}")[0] == 200
    assert ended.acquire(timeout=10)


def test_who_is_refused_and_stays_is_left(start, ended, monkeypatch):
    monkeypatch.setattr(store_server, "LINGER_S", 0.01)
    with connect(start(), request("/", token=f"{TOKEN}x")):
        assert ended.acquire(timeout=10)


def test_who_is_refused_is_given_a_moment_to_read_why(start, monkeypatch):
    monkeypatch.setattr(store_server, "LINGER_S", 30.0)
    port = start()
    with connect(port, request("/", method="POST")) as talkative:
        assert everything(talkative).startswith(b"HTTP/1.1 501 ")
        assert ask(port, f"/v1/{MODEL}")[0] == 200
        for _turn in range(3):  # a reset would follow the first, and undo what wasn't read
            talkative.sendall(bytes(1000))


def test_whoever_does_not_ask_takes_no_transfer(start):
    port = start(connections=1)
    silent = [connect(port, sent) for sent in (b"", b"GET", b"GET / HTTP/1.1\r\nA: b\r\n") * 3]
    assert ask(port, f"/v1/{MODEL}")[0] == 200
    for connection in silent:
        connection.close()


def test_whoever_does_not_get_done_with_asking_is_hung_up_on(start):
    with connect(start(head_s=0.3), request("/")[:-2]) as slow:
        answer = everything(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close\r\n" in answer


def test_many_who_do_not_ask_keep_nobody_out(start, monkeypatch):
    monkeypatch.setattr(store_server, "WAITING", 1)
    port = start(connections=1, head_s=0.3)
    silent = [connect(port) for _turn in range(3)]  # the places are taken, the rest waits
    assert ask(port, f"/v1/{MODEL}")[0] == 200
    for connection in silent:
        assert connection.recv(1) == b""
        connection.close()


class Dribble:
    """A connection that gives one byte at a time, and each takes some seconds."""

    def __init__(self, content, seconds):
        self.content = content
        self.seconds = seconds
        self.now = 0.0

    def settimeout(self, seconds):
        self.patience = seconds

    def recv_into(self, buffer, _most):
        self.now += min(self.seconds, self.patience)
        if self.seconds > self.patience:
            raise socket.timeout("timed out")
        buffer[0] = self.content
        return 1


def test_a_request_has_to_come_as_a_whole_in_time():
    slow = Dribble(ord("x"), 3.0)
    head = io.BufferedReader(store_server.Head(slow, 10.0, lambda: slow.now))
    with pytest.raises(store_server.HeadError) as caught:
        head.readline()
    assert (caught.value.status, slow.now) == (408, 10.0)
    silent = Dribble(ord("x"), 11.0)
    head = io.BufferedReader(store_server.Head(silent, 10.0, lambda: silent.now))
    with pytest.raises(store_server.HeadError) as caught:
        head.readline()
    assert (caught.value.status, silent.now) == (0, 10.0)


def test_the_next_request_has_as_much_time_and_room():
    quick = Dribble(ord("\n"), 1.0)
    asked = store_server.Head(quick, 2.0, lambda: quick.now)
    head = io.BufferedReader(asked, 1)
    for _turn in range(5):
        asked.begin()
        assert head.readline() == b"\n"


def test_who_vanishes_in_the_middle_of_a_blob_makes_room(start, endless, ended, capfd):
    port = start(connections=1)
    gone = begin_transfer(port)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()  # with a reset, as when its process is killed
    assert ended.acquire(timeout=10)
    assert ask(port, f"/v1/{MODEL}")[0] == 200
    assert "Error: " in capfd.readouterr().err


def test_who_takes_nothing_of_a_blob_makes_room(start, endless, ended):
    port = start(connections=1, idle_s=0.5)
    with begin_transfer(port):  # as when its cable is pulled
        assert ended.acquire(timeout=10)
        assert ask(port, f"/v1/{MODEL}")[0] == 200


def test_who_takes_a_blob_has_more_time_than_who_asks(start, monkeypatch):
    seen, real = [], socket.socket.sendfile

    def sendfile(self, *args):
        seen.append(self.gettimeout())
        return real(self, *args)

    monkeypatch.setattr(socket.socket, "sendfile", sendfile)
    assert ask(start(idle_s=50, head_s=5), blob_url(WEIGHTS))[0] == 200
    assert seen == [50.0]


def test_a_blob_that_is_cut_meanwhile(start, endless, ended, capfd):
    port = start(connections=1)
    with begin_transfer(port) as connection:
        os.truncate(endless, 10)
        assert len(everything(connection)) < 1 << 30
        assert ended.acquire(timeout=10)
    assert ask(port, blob_url(WEIGHTS))[2]["content-length"] == "10"
    assert "the file was cut meanwhile: " in capfd.readouterr().err


def test_strangers_are_hung_up_on(start):
    port = start(allow=["192.0.2.0/24"])
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask(port, f"/v1/{MODEL}")
    assert ask(start(allow=["192.0.2.0/24", "127.0.0.0/8"]), f"/v1/{MODEL}")[0] == 200


def test_whoever_falls_silent_is_hung_up_on(start):
    with socket.create_connection(("127.0.0.1", start(idle_s=0.05)), timeout=10) as silent:
        assert silent.recv(1) == b""


def test_the_log_escapes_what_it_is_sent(start, capfd):
    port = start()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as rude:
        rude.sendall(b"GET /\x1b[31mred HTTP/1.1\r\nConnection: close\r\n\r\n")
        while rude.recv(4096):
            pass
    log = capfd.readouterr().err
    assert "\x1b" not in log
    assert "red" in log


@pytest.mark.parametrize(("name", "text"), [("token", ""), ("manifests", ["manifests/none"])])
def test_what_can_not_be_served(root, tmp_path, name, text):
    token = tmp_path / "token"
    token.write_text("" if name == "token" else TOKEN)
    settings = {"root": str(root), "manifests": [MODEL], "address": "127.0.0.1", "port": 0}
    settings["token_file"] = str(token)
    if name == "manifests":
        settings[name] = text
    with pytest.raises((ValueError, FileNotFoundError)):
        store_server.Server(settings)


def test_the_text_is_a_program_of_its_own(root, tmp_path):
    token, program, ready = tmp_path / "token", tmp_path / "server.py", tmp_path / "ready.json"
    token.write_text(TOKEN)
    program.write_text(inspect.getsource(store_server))
    settings = tmp_path / "settings.json"
    settings.write_text(
        json.dumps(
            {
                "root": str(root),
                "manifests": [MODEL],
                "address": "127.0.0.1",
                "port": 0,
                "token_file": str(token),
                "ready_file": str(ready),
                "lifetime_s": 0.01,
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-I", "-B", str(program), str(settings)],
        timeout=30,
        check=False,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(ready.read_text())["port"] > 0
