# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's loop on real sockets: connections, TLS, timeouts, stamps, waiting."""

from __future__ import annotations

import socket
import ssl
import statistics
import subprocess
import threading
import time

import pytest
from schedule_host import Schedule, drive, good, kinds, measure

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_engine import Address, Engine
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import (
    address_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import (
    CLOSED,
    CONSTANT,
    Stage,
)

TOKENS = 5


@pytest.fixture(scope="module")
def server():
    with Schedule(ttft_ms=10.0, itl_ms=2.0, tokens=TOKENS) as started:
        yield started


@pytest.fixture(autouse=True)
def forget(server):
    server.reset()


# -- connections ----------------------------------------------------------------------------------


def test_connections_are_kept_and_used_again(server):
    measured = measure(server, concurrency=4, requests=40)
    good(measured)
    assert server.truth().connections == 4 + 1  # one asks this
    assert measured.account.reconnects == 0


def test_connections_are_opened_before_the_clock_runs(server):
    engine = Engine(address_of(server.url, None, True))
    engine.warm_up(3)
    assert server.truth().connections == 3 + 1
    _account, samples = drive(server.url, 3, engine=engine)
    assert kinds(samples) == [""] * 3


def test_a_connection_that_the_server_closed_meanwhile_costs_no_request():
    with Schedule(ttft_ms=1.0, itl_ms=1.0, tokens=2, idle_s=0.1) as server:
        stage = Stage(CONSTANT, 4, 4.0, 4)  # one each 250 ms, so each finds its connection closed
        measured = measure(server, stage=stage)
        assert len(good(measured)) == 4
        assert server.truth().connections >= 4


class Abrupt(threading.Thread):
    """A server that answers once per connection, and closes when the next request arrives."""

    BODY = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n'
    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)

    def __init__(self, reset, answers=1):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.reset = reset
        self.answers = answers
        self.accepted = 0
        self.pause_s = 0.0
        self.start()

    def run(self):
        while True:
            try:
                connection, _peer = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            with connection:
                for _turn in range(self.answers):
                    connection.recv(65536)
                    connection.sendall(self.ANSWER)
                connection.recv(100)  # unread bytes make the system send a reset
                if not self.reset:
                    time.sleep(self.pause_s)
                    connection.recv(65536)
                    connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("reset", [False, True])
def test_a_request_that_meets_a_closing_connection_is_sent_again_and_counted(reset):
    server = Abrupt(reset)
    account, samples = drive(server.url, 4)
    server.listener.close()
    assert kinds(samples) == [""] * 4
    assert account.reconnects == 3
    assert server.accepted == 4


def test_a_server_that_dies_over_a_request_is_an_error_and_its_time_counts():
    server = Abrupt(reset=False)
    server.pause_s = 0.4
    account, samples = drive(server.url, 2)
    server.listener.close()
    assert kinds(samples) == ["", "connection"]
    assert account.reconnects == 0
    assert samples[1].latency_ms >= 400


class Refusing(threading.Thread):
    """A server that answers before it has read the request, and closes."""

    ANSWER = b"HTTP/1.1 413 Too Large\r\nContent-Length: 14\r\n\r\nprompt too big"

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.start()

    def run(self):
        connection, _peer = self.listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(self.ANSWER)  # and closes over what it has not read: a reset


def test_a_refusal_that_comes_while_the_request_is_still_going_out_is_read():
    server = Refusing()
    _account, [sample] = drive(server.url, 1, prompt="x" * 20_000_000)
    server.listener.close()
    assert (sample.error_kind, sample.error) == ("http_4xx", "status 413: prompt too big")


def test_connecting_is_no_part_of_the_time_to_the_first_token(server, monkeypatch):
    url = server.url
    engine = Engine(address_of(url, None, True))
    connect = engine._connect

    def late():
        wire = connect()
        time.sleep(0.3)
        return wire

    monkeypatch.setattr(engine, "_connect", late)
    account, [sample] = drive(url, 1, engine=engine)
    assert sample.ttft_ms < 200
    assert account.connects == 1


def test_a_server_that_closes_every_connection_at_once_is_an_error_and_no_endless_loop():
    server = Abrupt(reset=False, answers=0)
    account, samples = drive(server.url, 3)
    server.listener.close()
    assert kinds(samples) == ["connection"] * 3
    assert account.reconnects == 0


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_refused_connection_is_an_error_of_each_request():
    account, samples = drive(f"http://127.0.0.1:{free_port()}", 3)
    assert kinds(samples) == ["connection"] * 3
    assert all("refused" in sample.error.lower() for sample in samples)
    assert account.turns < 50


def test_a_server_that_is_not_there_is_told_in_words_before_anything_is_sent():
    engine = Engine(address_of(f"http://127.0.0.1:{free_port()}", None, True))
    with pytest.raises(OSError, match=r"refused"):
        engine.warm_up(1)
    engine.close()


@pytest.fixture
def deaf():
    """The URL of a place where connecting takes for ever: its queue is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _turn in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        waiting.append(sock)
    time.sleep(0.05)
    yield listener.getsockname()
    for sock in (*waiting, listener):
        sock.close()


def test_connecting_ends_after_its_time(deaf):
    engine = Engine(Address(socket.AF_INET, deaf, connect_timeout_s=0.3))
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match="while connecting"):
        engine.warm_up(2)
    engine.close()
    assert 0.3 <= time.monotonic() - begin < 5


def test_a_request_ends_after_its_time_while_it_connects(deaf):
    url = f"http://127.0.0.1:{deaf[1]}"
    _account, samples = drive(url, 2, address=Address(socket.AF_INET, deaf), timeout_s=0.3)
    assert kinds(samples) == ["timeout"] * 2
    assert all(sample.latency_ms > 299.0 for sample in samples)


def test_a_request_ends_after_its_time_and_the_next_ones_are_answered(server):
    account, samples = drive(server.url, 2, timeout_s=0.3, ttft_ms=60_000.0)
    assert kinds(samples) == ["timeout"] * 2
    assert {sample.error for sample in samples} == {"no complete answer in 0.3 s"}
    assert account.turns < 100
    _account, samples = drive(server.url, 2)
    assert kinds(samples) == ["", ""]


def test_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 loopback: {error}")
    with Schedule(bind="::1", tokens=2) as server:
        assert len(good(measure(server, requests=2))) == 2


def test_a_name_with_several_addresses_is_measured_where_it_answers(server, monkeypatch):
    places = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", free_port())),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: places)
    _account, samples = drive("http://localhost:1", 2)
    assert kinds(samples) == ["", ""]


# -- large requests and answers -------------------------------------------------------------------


def test_a_prompt_larger_than_the_socket_takes_at_once_arrives_whole(server):
    # 8 MB do not fit into loopback's buffers: the rest is sent as the server reads.
    measured = measure(server, requests=2, prompt="word " * 1_600_000)
    good(measured)
    measured = measure(server, concurrency=4, requests=8, prompt="word " * 4_000)
    good(measured)


def test_a_large_answer_is_taken_in_whole(server):
    large = {"tokens": 200, "padding": 50_000, "itl_ms": 0.0}
    measured = measure(server, concurrency=2, requests=2, **large)
    assert {sample.chunks for sample in good(measured)} == {200}


# -- TLS ------------------------------------------------------------------------------------------


def certificate(folder, name):
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    command += " -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1,DNS:localhost"
    argv = [*command.split(), "-keyout", str(key), "-out", str(cert)]
    subprocess.run(argv, check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert = certificate(folder, "server")
    with Schedule(cert=cert, ttft_ms=10.0, itl_ms=20.0, tokens=TOKENS) as started:
        yield started, cert[0], certificate(folder, "other")[0]


def test_tls_with_its_certificate_is_measured(secured):
    server, ca, _other = secured
    address = address_of(server.url, str(ca), True)
    account, samples = drive(server.url, 6, address=address, stage=Stage(CLOSED, 2, 0.0, 6), warm=2)
    assert kinds(samples) == [""] * 6
    assert {sample.chunks for sample in samples} == {TOKENS}
    assert statistics.median(sample.tpot_ms for sample in samples) == pytest.approx(20, abs=5)
    assert account.kernel_stamps


def test_tls_connections_that_open_in_the_run_work_too(secured):
    server, ca, _other = secured
    _account, samples = drive(server.url, 3, address=address_of(server.url, str(ca), True))
    assert kinds(samples) == [""] * 3


def test_another_authority_is_refused_in_words(secured):
    server, _ca, other = secured
    address = address_of(server.url, str(other), True)
    _account, samples = drive(server.url, 2, address=address)
    assert kinds(samples) == ["connection"] * 2
    assert all("certificate verify failed" in sample.error for sample in samples)
    engine = Engine(address)
    with pytest.raises(OSError, match="certificate verify failed"):
        engine.warm_up(1)
    engine.close()


def test_a_certificate_for_another_name_is_refused_in_words(secured):
    server, ca, _other = secured
    known = address_of(server.url, str(ca), True)
    address = Address(known.family, known.sockaddr, "elsewhere.example", known.tls)
    _account, samples = drive(server.url, 1, address=address)
    assert kinds(samples) == ["connection"]
    assert "elsewhere.example" in samples[0].error


def test_certificates_are_not_checked_when_that_is_wanted(secured):
    server, _ca, _other = secured
    _account, samples = drive(server.url, 2, address=address_of(server.url, None, False))
    assert kinds(samples) == ["", ""]


def test_tls_to_a_server_without_it_is_an_error(server):
    plain = address_of(server.url, None, True)
    context = ssl.create_default_context()
    address = Address(plain.family, plain.sockaddr, "localhost", context)
    _account, samples = drive(server.url, 1, address=address, timeout_s=1.0)
    assert kinds(samples)[0] in ("connection", "timeout")
