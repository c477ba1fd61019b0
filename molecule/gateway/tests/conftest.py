# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Constant load on the gateway, and what counts the requests that an operation cost."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[3]
LOAD = ROOT / "tests" / "load" / "stream_load.py"
ENGINE = subprocess.run(
    [ROOT / "tests" / "lab" / "engine.sh"], check=True, capture_output=True, text=True
).stdout.strip()
STREAMS = 5
MODEL = "llama3.2:3b"
LOG = "/var/log/hx-gateway/access.jsonl"


@dataclasses.dataclass
class Window:
    """The requests of one operation: those that were open, or began, while it went on."""

    begin: float
    end: float = 0.0
    records: list = dataclasses.field(default_factory=list)

    @property
    def failed(self):
        return [record for record in self.records if not record["ok"]]


class Load:
    """The load and what it has written so far."""

    def __init__(self, path, process):
        self.path, self.process = path, process

    def records(self):
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def settle(self, moment, budget=60):
        """Wait until every request that was open at the moment has ended."""
        end = time.monotonic() + budget
        while time.monotonic() < end:
            assert self.process.poll() is None, "the load has ended"
            ended = {r["stream"] for r in self.records() if r["start"] + r["total"] > moment}
            if len(ended) == STREAMS:
                return
            time.sleep(0.1)
        raise AssertionError(f"the load stands still: {self.records()[-3:]}")

    @contextlib.contextmanager
    def window(self, *, lossless=False):
        """Collect the requests that an operation may have hurt; fail when it must hurt none."""
        self.settle(0)
        window = Window(time.time())
        yield window
        window.end = time.time()
        self.settle(window.end)
        window.records = [
            record
            for record in self.records()
            if record["start"] + record["total"] >= window.begin and record["start"] <= window.end
        ]
        if lossless:
            assert window.records
            assert not window.failed, window.failed

    def lossless(self):
        """Fail when one request of the operation failed."""
        return self.window(lossless=True)


def lab_host(name):
    return testinfra.get_host(f"{ENGINE}://hx-llm-lab-{name}")


@pytest.fixture(scope="session")
def gw_01():
    return lab_host("gw-01")


@pytest.fixture(scope="session")
def llm_03():
    return lab_host("llm-03")


@pytest.fixture(scope="session")
def address(gw_01):
    return gw_01.run("hostname -i").stdout.split()[0]


@pytest.fixture(scope="session")
def load(address, tmp_path_factory):
    """Streams of the openai package through the gateway, for as long as the suite runs."""
    folder = tmp_path_factory.mktemp("load")
    out, stop = folder / "load.jsonl", folder / "stop"
    arguments = ["run", "--url", f"http://{address}:8000/v1", "--model", MODEL]
    arguments += ["--streams", str(STREAMS), "--max-tokens", "25", "--seconds", "400"]
    process = subprocess.Popen(
        [sys.executable, str(LOAD), *arguments, "--out", str(out), "--stop", str(stop)],
        env={**os.environ, "OPENAI_API_KEY": "key-of-load"},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield Load(out, process)
        stop.touch()
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def ask(address):
    """Send one request; returns status, headers and the JSON of the answer."""

    def send(path, body=None, key="key-of-load", method=None, connection=None):
        client = connection or http.client.HTTPConnection(address, 8000, timeout=60)
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        client.request(method or ("GET" if data is None else "POST"), path, data, headers)
        answer = client.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())

    return send


@pytest.fixture(scope="session")
def gateway():
    """Run a module of ours on the gateway; returns its result."""

    def run(name, **options):
        done = subprocess.run(
            [
                *("ansible", "gw-01", "--inventory", str(ROOT / "inventories" / "lab")),
                *("--module-name", f"hx_infra.llm.{name}"),
                *(["--args", json.dumps(options)] if options else []),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
                "ANSIBLE_FORCE_COLOR": "false",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        head, brace, rest = done.stdout.partition("=> {")
        assert brace, done.stdout + done.stderr
        result, _end = json.JSONDecoder().raw_decode(brace[-1] + rest)
        assert done.returncode == 0, (head, result)
        return result

    return run


@pytest.fixture(scope="session")
def access_log(gw_01):
    """Read the access log's lines."""

    def read():
        return [json.loads(line) for line in gw_01.file(LOG).content_string.splitlines()]

    return read
