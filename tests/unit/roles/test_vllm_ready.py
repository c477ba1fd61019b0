# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The readiness probe of a vLLM unit, with real sockets and processes on loopback."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROBE = ROOT / "roles/vllm/files/opt/citadel/lib/vllm_ready.py"


@pytest.fixture
def probe(monkeypatch):
    spec = importlib.util.spec_from_file_location("vllm_ready", PROBE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.time, "sleep", lambda _seconds: None)
    return module


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        given = self.headers.get("Authorization", "")
        ok = not self.server.key or given == f"Bearer {self.server.key}"
        self.send_response(200 if ok else 401)
        self.end_headers()
        if ok:
            self.wfile.write(json.dumps({"data": [{"id": i} for i in self.server.ids]}).encode())

    def log_message(self, *_args):
        pass


@pytest.fixture
def server():
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.ids, found.key = ["tiny", "llama3.2:3b"], ""
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def settings(server, **changes):
    port = server.server_address[1]
    given = {"url": f"http://127.0.0.1:{port}", "port": port, "models": ["tiny"], "key_file": ""}
    return {**given, "timeout_s": 0, **changes}


def test_ready_when_the_model_is_listed_by_a_process_of_the_unit(probe, server):
    assert probe.wait(settings(server, models=["tiny", "llama3.2:3b"]), os.getpid()) == ""


def test_a_missing_model_is_not_ready(probe, server):
    said = probe.wait(settings(server, models=["other"]), os.getpid())
    assert said.startswith("not ready within 0 s")
    assert "not ['other']" in said


def test_nobody_listening_is_not_ready(probe, server):
    said = probe.wait(settings(server, port=1), os.getpid())
    assert "nothing listens on port 1" in said


def test_a_process_of_another_control_group_is_not_ready(probe, server, monkeypatch):
    groups = {os.getpid(): "/system.slice/other.service", 1: "/system.slice/unit.service"}
    monkeypatch.setattr(probe, "control_group", groups.get)
    assert "held by another process" in probe.problem(settings(server), 1)
    # A container's process is in no group of the unit.
    assert probe.problem(settings(server, own_process=False), 1) == ""


def test_the_key_comes_from_its_file(probe, server, tmp_path):
    server.key = "sk-1"
    assert "status 401" in probe.problem(settings(server), os.getpid())
    file = tmp_path / "key"
    file.write_text("VLLM_API_KEY=sk-1\n")
    assert probe.problem(settings(server, key_file=str(file)), os.getpid()) == ""
    file.write_text("something\n")
    assert "no line VLLM_API_KEY=" in probe.problem(
        settings(server, key_file=str(file)), os.getpid()
    )


def test_it_ends_at_once_when_the_process_has_ended(probe, server):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert not probe.alive(pid) or os.waitpid(pid, os.WNOHANG)[0] in (0, pid)
    said = probe.wait(settings(server, port=1, timeout_s=3600), pid)
    assert said.startswith("the service's process has ended")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/system.slice/a.service\n", "/system.slice/a.service"),
        (
            "4:memory:/x\n1:name=systemd:/system.slice/b.service\n0::/init\n",
            "/system.slice/b.service",
        ),
    ],
)
def test_both_kinds_of_control_groups_are_read(probe, tmp_path, text, expected):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(text)
    assert probe.control_group(7, str(tmp_path)) == expected
    assert probe.control_group(8, str(tmp_path)) == ""


def test_main_reads_its_settings(probe, server, tmp_path, monkeypatch, capsys):
    file = tmp_path / "tiny.ready.json"
    file.write_text(json.dumps(settings(server)))
    monkeypatch.setattr(probe.sys, "argv", ["probe", str(file)])
    monkeypatch.setenv("MAINPID", str(os.getpid()))
    assert probe.main() == 0
    file.write_text(json.dumps(settings(server, models=["other"])))
    assert probe.main() == 1
    assert "not ['other']" in capsys.readouterr().err
    file.write_text(json.dumps(settings(server, models=[], port=1)))
    assert probe.main() == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"models": ["tiny"]}'])
def test_damaged_settings_are_named_with_what_to_do(probe, tmp_path, monkeypatch, capsys, content):
    path = tmp_path / "tiny.ready.json"
    path.write_text(content)
    monkeypatch.setattr("sys.argv", ["vllm_ready.py", str(path)])
    monkeypatch.setenv("MAINPID", "1")
    assert probe.main() == 1
    said = capsys.readouterr().err
    assert str(path) in said
    assert "run vllm.yml again" in said
