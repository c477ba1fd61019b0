# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host for the operator scripts: a stand-in for systemctl and a small HTTP server."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import shutil
import subprocess
import threading
import time
from pathlib import Path

import jinja2
import pytest
import yaml

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "roles/operator_scripts"

# Keeps the unit's state in a file; FAKE_* say how the unit behaves.
SYSTEMCTL = r"""#!/usr/bin/env bash
echo "systemctl $*" >>"$FAKE_DIR/calls"
state="$(cat "$FAKE_DIR/state")"
case "$1" in
  is-active)
    echo "$state"
    [[ "$state" == active ]] || exit 3 ;;
  start)
    [[ "${FAKE_START:-active}" != missing ]] || { echo "Unit not found." >&2; exit 5; }
    echo "${FAKE_START:-active}" >"$FAKE_DIR/state" ;;
  stop)
    [[ "${FAKE_STOP:-inactive}" != error ]] || { echo "Access denied" >&2; exit 1; }
    echo "${FAKE_STOP:-inactive}" >"$FAKE_DIR/state" ;;
  kill) echo "${FAKE_KILL:-failed}" >"$FAKE_DIR/state" ;;
  show) echo 4242 ;;
  status) echo "the unit's status" ;;
esac
"""
JOURNALCTL = "#!/bin/sh\necho 'the last lines of the journal'\n"

DIGEST = "a" * 64
MODELS = [
    {"name": "llama3.2:3b", "size": 2_019_393_189, "digest": DIGEST},
    {"name": "qwen3:1.7b", "size": 1_359_293_444, "digest": DIGEST},
]
PATHS = {
    "ansible_managed": "Managed",
    "operator_scripts_node_dir": "/opt/hx-infrastructure/llm-01",
    "operator_scripts_env_file": "/opt/hx-infrastructure/llm-01/config/ollama/ollama.env",
}
ENV = (
    'MODEL_LLAMA3_2_3B="llama3.2:3b"\nMODEL_QWEN3_1_7B="qwen3:1.7b@sha256:aaaaaaaaaaaa"\n'
    'OLLAMA_MODELS_AVAILABLE="llama3.2:3b,qwen3:1.7b"\n'
)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.delay = 0.0
        self.models = MODELS
        self.answers = {
            "/": (200, "Ollama is running"),
            "/api/version": (200, json.dumps({"version": "0.11.4"})),
            "/api/tags": (200, json.dumps({"models": MODELS})),
        }


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(self.server.delay)
        status, body = self.server.answers.get(self.path, (404, "not found"))
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


def install(target):
    """Put the scripts where the role would, with the role's own defaults."""
    shutil.copytree(ROLE / "files/opt/scripts", target)
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    environment = jinja2.Environment(autoescape=False, keep_trailing_newline=True)  # noqa: S701
    environment.filters.update({"comment": lambda text: f"# {text}", "quote": shlex.quote})
    text = (ROLE / "templates/opt/scripts/lib/ollama-defaults.sh.j2").read_text()
    rendered = environment.from_string(text).render({**defaults, **PATHS})
    (target / "lib/ollama-defaults.sh").write_text(rendered)


class Host:
    """A host with the scripts, a unit and a service."""

    def __init__(self, top, url):
        self.top = top
        self.scripts = top / "scripts"
        self.env_text = ENV
        install(self.scripts)
        programs = top / "bin"
        programs.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.state("inactive")
        (top / "calls").touch()
        (top / "logs").mkdir()
        (top / "ollama.env").write_text(ENV)
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(top),
            "FAKE_DIR": str(top),
            "OLLAMA_URL": url,
            "OLLAMA_ENV_FILE": str(top / "ollama.env"),
            "OLLAMA_LOG_DIR": str(top / "logs"),
            "OLLAMA_START_TIMEOUT": "2",
            "OLLAMA_STOP_GRACE": "1",
            "OLLAMA_CALL_TIMEOUT": "1",
            "http_proxy": "http://127.0.0.1:9",  # must not be used for the service's own address
        }

    def state(self, state):
        (self.top / "state").write_text(f"{state}\n")

    def calls(self):
        return (self.top / "calls").read_text()

    def run(self, script, *arguments, **environment):
        return subprocess.run(
            [str(self.scripts / script), *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def host(tmp_path, server):
    return Host(tmp_path, f"http://127.0.0.1:{server.server_address[1]}")
