# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for vLLM in a process of its own: one model, streams of tokens, metrics, GPU work.

What it says in its metrics, and what it shows on the simulated card, are told apart.
"""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

GIB = 1 << 30
CONFIG = 'vllm:cache_config_info{cpu_kvcache_space_bytes="%s",gpu_memory_utilization="0.5",'
CONFIG += 'num_gpu_blocks="573"} 1.0\n'
RUNNING = 'vllm:num_requests_running{engine="0",model_name="m"} 1.0\n'
# What it says: the cache of the build for GPUs, of that for processors, nothing of a cache.
METRICS = {"gpu": CONFIG % "None" + RUNNING, "cpu": CONFIG % (4 * GIB) + RUNNING, "none": RUNNING}


class Vllm(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = metrics = ""

    def do_GET(self):
        if self.path == "/metrics":
            self._answer(METRICS[self.metrics].encode())
        elif self.path == "/v1/models":
            self._answer(json.dumps({"data": [{"id": self.model}]}).encode())
        else:
            self.send_error(404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        sys.stderr.write(f"{self.path} stream={body.get('stream')}\n")
        if self.path == "/v1/embeddings":
            self._answer(json.dumps({"data": [{"embedding": [0.5, 0.1]}]}).encode())
            return
        chat = self.path == "/v1/chat/completions"
        if not body[("messages" if chat else "prompt")]:
            self.send_error(400)
            return
        text = {"message": {"content": " one"}} if chat else {"text": " one"}
        if not body["stream"]:
            ended = {"choices": [{**text, "finish_reason": "length"}]}
            self._answer(json.dumps({**ended, "usage": {"completion_tokens": 1}}).encode())
            return
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for left in range(body["max_tokens"] - 1, -1, -1):
                one = {**text, "finish_reason": None if left else "length"}
                self.wfile.write(f"data: {json.dumps({'choices': [one]})}\n\n".encode())
                time.sleep(0.01)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            pass  # it has seen enough
        self.close_connection = True

    def _answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words):
        pass


class Running:
    """A stand-in that runs."""

    def __init__(self, port, log):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._log = log

    @property
    def streams(self):
        """Return how many streams were asked for."""
        return self._log.read_text().count("stream=True")


@contextmanager
def start_vllm(folder, *, metrics="gpu", held=0, model="m"):
    """Serve as vLLM would; ``held`` bytes of GPU 1, at work, are shown in ``SIM_GPU_ACTIVITY_DIR``.

    Without them the card shows nothing of it.
    """
    log = Path(folder) / f"vllm-{time.monotonic_ns()}.log"
    argv = [sys.executable, "-B", __file__, model, metrics, str(held)]
    with log.open("w") as errors:
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield Running(int(child.stdout.readline()), log)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def main():
    Vllm.model, Vllm.metrics, held = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if held:
        path = Path(os.environ["SIM_GPU_ACTIVITY_DIR"]) / str(os.getpid())
        path.write_text(
            f"pid={os.getpid()}\nname=VLLM::EngineCore\ngpu.1.memory={held}\ngpu.1.util=80\n"
            f"busy_until={time.time() + 300}\n"
        )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Vllm)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
