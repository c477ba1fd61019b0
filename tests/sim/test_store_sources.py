# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Models copied from host to host by real processes: killed, damaged, refused, and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _source_connection as connections
from ansible_collections.hx_infra.llm.plugins.module_utils import _store_serve_unit as units
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import StoppedError, Watch
from ansible_collections.hx_infra.llm.plugins.modules import model_store_serve as module

ROOT = Path(__file__).resolve().parent.parent.parent
ONE = "tiny:1b"
SIZE = 32 * 1024 * 1024
WEIGHTS = bytes(range(256)) * (SIZE // 256)
TOKEN = "correct-horse-battery-staple"

# Copies one model; with a limit it says "there" at so many bytes and waits for a signal.
CLIENT = """
import json, signal, sys, time
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._source_http import Retries
from ansible_collections.hx_infra.llm.plugins.module_utils._sources import make_sources
from ansible_collections.hx_infra.llm.plugins.module_utils._store_import import StoreWriter
spec, store, name, limit = json.loads(sys.argv[1])
sleep = lambda seconds: time.sleep(min(seconds, 0.1))
retries = Retries(20, first_wait_s=0.01, sleep=sleep)
source, = make_sources(
    [spec], writer=StoreWriter(store), registry=None, http=None, retries=retries,
    tell=lambda _name, note: print(note, flush=True),
)
item = Wanted(parse_name(name), parse_name(name))
signal.signal(signal.SIGUSR1, lambda *_unused: None)
def tell(_phase, done, _total):
    global limit
    if limit and done >= limit:
        limit = 0
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        print("there", flush=True)
        signal.sigwait([signal.SIGUSR1])
try:
    source.fetch(item, source.offer(item), tell)
except HostError as error:
    sys.exit(str(error))
"""


class Systemd:
    """``systemd-run`` and ``systemctl`` that run the unit's program as a plain process."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen | None = None

    def __call__(self, argv):
        argv = list(argv)
        if argv[0] == "systemd-run":
            with self.log.open("ab") as log:
                program = argv[argv.index("--") + 1 :]
                self.process = subprocess.Popen(program, stdout=log, stderr=log)
        elif argv[1:2] == ["stop"]:
            self.end()
        elif argv[1:2] == ["is-active"]:
            running = self.process is not None and self.process.poll() is None
            return 0, "active\n" if running else "inactive\n", ""
        return 0, "", ""

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def write_blob(store, content):
    digest = hashlib.sha256(content).hexdigest()
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    (store / "blobs" / f"sha256-{digest}").write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


@pytest.fixture
def theirs(tmp_path):
    """Return a store with one model that no network buffer holds as a whole."""
    folder = tmp_path / "theirs"
    layers = [write_blob(folder, WEIGHTS), write_blob(folder, b"config")]
    path = folder / parse_name(ONE).manifest
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schemaVersion": 2, "config": layers[1], "layers": layers[:1]}))
    return folder


@pytest.fixture
def ours(tmp_path):
    folder = tmp_path / "ours"
    folder.mkdir()
    return folder


@pytest.fixture
def peer(theirs, tmp_path):
    """Serve the model as the module does; return systemd's stand-in and what it takes to ask."""
    systemd = Systemd(tmp_path / "server.log")
    place = units.Place("models", str(tmp_path / "run"))

    def start(port=0, connections=32):
        params = {key: spec.get("default") for key, spec in module.ARGUMENT_SPEC.items()}
        params.update(store=str(theirs), models=[ONE], token=TOKEN, host="127.0.0.1", port=port)
        params["address"] = "127.0.0.1"
        params["connections"] = connections
        return module.run(params, False, systemd, place)

    yield systemd, start
    systemd.end()


def begin(url, ours, *, token=TOKEN, limit=0):
    spec = {"type": "peer", "name": "llm-02", "url": url, "token": token}
    arguments = json.dumps([spec, str(ours), ONE, limit])
    return subprocess.Popen(
        [sys.executable, "-B", "-c", CLIENT, arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        text=True,
    )


def fetch(url, ours, **options):
    process = begin(url, ours, **options)
    _output, errors = process.communicate(timeout=60)
    return process.returncode, errors


def weights(store):
    """Return the path of the largest blob."""
    return max((store / "blobs").iterdir(), key=lambda path: path.stat().st_size)


def whole(ours, theirs):
    store = read_store(str(ours))
    model = store.find(parse_name(ONE))
    assert model is not None
    assert model.digest == read_store(str(theirs)).find(parse_name(ONE)).digest
    assert store.defects(model) == []
    for path in (ours / "blobs").iterdir():
        assert path.name == f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert os.listdir(ours / ".hx" / "incoming") == []


def given(systemd, theirs):
    """Return the status of each answer about the weights, from the server's log."""
    lines = systemd.log.read_text().splitlines()
    return [line.split()[-2] for line in lines if f"blobs/{weights(theirs).name}" in line]


def test_a_copy_that_is_killed_in_the_middle_goes_on(peer, ours, theirs):
    systemd, start = peer
    url = start()["url"]
    client = begin(url, ours, limit=SIZE // 2)
    assert client.stdout.readline() == "there\n"
    client.kill()
    client.communicate(timeout=30)
    assert client.returncode == -signal.SIGKILL
    assert read_store(str(ours)).models == {}
    (part,) = (ours / ".hx" / "incoming").iterdir()
    assert SIZE // 2 <= part.stat().st_size < SIZE
    assert fetch(url, ours) == (0, "")
    whole(ours, theirs)
    assert given(systemd, theirs) == ["200", "206"]
    assert TOKEN not in systemd.log.read_text()
    assert not start()["changed"]


def test_a_server_that_comes_back_is_asked_on(peer, ours, theirs):
    systemd, start = peer
    first = start()
    client = begin(first["url"], ours, limit=SIZE // 2)
    assert client.stdout.readline() == "there\n"
    systemd.end()
    assert start(first["port"])["changed"]
    client.send_signal(signal.SIGUSR1)
    _output, errors = client.communicate(timeout=60)
    assert (client.returncode, errors) == (0, "")
    whole(ours, theirs)
    assert given(systemd, theirs) == ["200", "206"]


def test_damage_and_strangers_are_named(peer, ours, theirs):
    _systemd, start = peer
    url = start()["url"]
    code, errors = fetch(url, ours, token="wrong")  # noqa: S106
    assert code == 1
    assert "peer llm-02 can't give tiny:1b: it doesn't accept the token (401)" in errors
    path = weights(theirs)
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    code, errors = fetch(url, ours)
    assert code == 1
    assert f"peer llm-02: the blob {path.name} that came has the digest" in errors
    assert read_store(str(ours)).models == {}
    path.write_bytes(content)
    assert fetch(url, ours) == (0, "")
    whole(ours, theirs)


def test_who_is_killed_in_the_middle_makes_room_for_who_waits(peer, ours, theirs, tmp_path):
    systemd, start = peer
    url = start(connections=1)["url"]
    first = begin(url, ours, limit=SIZE // 2)
    assert first.stdout.readline() == "there\n"
    others = tmp_path / "others"
    others.mkdir()
    second = begin(url, others)
    full = "asking again (it is full, 1 of 1 transfers are taken (503))"
    assert second.stdout.readline() == f"peer llm-02: {full}\n"
    first.kill()
    first.communicate(timeout=30)
    _output, errors = second.communicate(timeout=60)
    assert (second.returncode, errors) == (0, "")
    whole(others, theirs)
    assert fetch(url, ours) == (0, "")
    whole(ours, theirs)
    assert given(systemd, theirs) == ["200", "200", "206"]


def test_a_stop_is_noticed_over_tls_too(tmp_path):
    cert, key, over, stop = tmp_path / "cert.pem", tmp_path / "key.pem", threading.Event(), []
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    command += " -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    argv = [*command.split(), "-keyout", str(key), "-out", str(cert)]
    subprocess.run(argv, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"

    def answer():
        with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.recv(65536)
            connection.sendall(head + b"123")
            over.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=answer)
        server.start()
        watch = Watch(tick_s=0.01, stopped=lambda: stop[0] if stop else "")
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        try:
            reply = connections.get(url, {}, str(cert), connections.Pace(watch, 10.0, 20.0))
            assert reply.read(3) == b"123"
            stop.append("SIGTERM")
            with pytest.raises(StoppedError, match="was stopped by SIGTERM"):
                reply.read(6)
            reply.close()
        finally:
            over.set()
            server.join(30)
