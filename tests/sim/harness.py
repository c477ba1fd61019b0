# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the simulated Ollama and its registry on loopback, for tests of any part.

from harness import start_ollama, start_registry

with start_ollama(tmp_path, models="tiny", version="0.11.4") as ollama:
    ollama.get("/api/tags")
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lab"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "contract"))

from contract_http import Reply, call, free_port
from sim_ollama import build_release, make_models

LAB = Path(__file__).resolve().parent.parent / "lab"

FAST = {
    "defaults": {
        "load_seconds": 0.05,
        "ttft_seconds": 0.02,
        "prompt_tokens_per_second": 100000.0,
        "tokens_per_second": 200.0,
        "jitter": 0.0,
        "answer_tokens": 8,
        "cpu_factor": 1.0,
    },
    "pull": {"retry_base_seconds": 0.01},
}
START_SECONDS = 20.0


class Process:
    """A program that runs in the background with its output in a file."""

    def __init__(self, argv: list[str], env: dict[str, str], log: Path) -> None:
        self.log_path = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                argv,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def log(self) -> str:
        """Return everything that the program has printed."""
        return self.log_path.read_text(errors="replace")

    def wait_for(self, url: str) -> None:
        """Wait until the address answers; RuntimeError with the log when it does not."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.popen.poll() is not None:
                break
            try:
                call("GET", url, timeout=START_SECONDS)
                return
            except OSError:
                time.sleep(0.02)
        self.end()
        raise RuntimeError(f"{url} did not answer:\n{self.log()}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """End the program and return its exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
            try:
                self.popen.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        return int(self.popen.returncode)


class Ollama:
    """A simulated Ollama: program, store, settings and, while started, a process."""

    def __init__(self, folder: Path, version: str, config: dict[str, Any] | None) -> None:
        self.folder = folder
        self.version = version
        self.store = folder / "store"
        self.config_path = folder / "config.json"
        self.activity = folder / "activity"
        self.env: dict[str, str] = {}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: Process | None = None
        self.program = build_release.install(version, folder / "prefix")
        self.activity.mkdir(parents=True, exist_ok=True)
        self.set_config(FAST if config is None else config)

    def __enter__(self) -> Ollama:
        return self

    def __exit__(self, *_args: object) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """Return the environment of the server and of the command line."""
        return {
            "HOME": str(self.folder / "home"),
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
            "OLLAMA_MODELS": str(self.store),
            "SIM_OLLAMA_CONFIG": str(self.config_path),
            "SIM_OLLAMA_ACTIVITY_DIR": str(self.activity),
            "SIM_OLLAMA_NVML": "/nonexistent/libnvidia-ml.so.1",
            **self.env,
        }

    def set_config(self, config: dict[str, Any]) -> None:
        """Replace the settings file; a running server reads it at its next request."""
        temporary = self.config_path.with_suffix(".new")
        temporary.write_text(json.dumps(config))
        temporary.replace(self.config_path)

    def set_faults(self, **faults: Any) -> None:
        """Switch faults on, and every other one off; no argument: all off."""
        config = json.loads(self.config_path.read_text())
        self.set_config({**config, "faults": faults})

    def start(self) -> Ollama:
        """Start the server and wait until it answers."""
        self.launch()
        assert self.process is not None
        self.process.wait_for(f"{self.url}/api/version")
        return self

    def launch(self) -> Process:
        """Start the server without waiting."""
        argv = [str(self.program), "serve"]
        self.process = Process(argv, self.environment(), self.folder / "ollama.log")
        return self.process

    def stop(self) -> None:
        """Stop the server."""
        if self.process is not None:
            self.process.end()

    def restart(self) -> Ollama:
        """Stop and start the server."""
        self.stop()
        return self.start()

    def log(self) -> str:
        """Return what the server has printed since the first start."""
        return (self.folder / "ollama.log").read_text(errors="replace")

    def get(self, path: str) -> Reply:
        """GET a path."""
        return call("GET", self.url + path)

    def post(self, path: str, body: Any = None) -> Reply:
        """POST JSON to a path."""
        return call("POST", self.url + path, body)

    def cli(self, *args: str, stdin: str = "") -> subprocess.CompletedProcess:
        """Run the command line against this server."""
        env = {**os.environ, **self.environment()}
        return subprocess.run(
            [str(self.program), *args],
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def blobs(self) -> set[str]:
        """Return the names of the files in blobs/."""
        return {path.name for path in (self.store / "blobs").iterdir()}


class Registry:
    """A simulated registry with its settings file."""

    def __init__(self, folder: Path, store: Path, releases: Path | None) -> None:
        self.store = store
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.config_path = folder / "registry.json"
        script = LAB / "sim_ollama" / "sim_registry.py"
        argv = [sys.executable, "-B", str(script), "--bind", "127.0.0.1"]
        argv += ["--port", str(self.port), "--store", str(store)]
        argv += ["--config", str(self.config_path)]
        self.releases_url = ""
        if releases is not None:
            port = free_port()
            self.releases_url = f"http://127.0.0.1:{port}"
            argv += ["--releases", str(releases), "--releases-port", str(port)]
        self.process = Process(argv, {}, folder / "registry.log")
        self.process.wait_for(f"{self.url}/v2/")

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_args: object) -> None:
        self.stop()

    def name(self, model: str) -> str:
        """Return a model's full name on this registry."""
        return f"{self.host}/library/{model}"

    def set_faults(self, models: dict[str, Any] | None = None, **faults: Any) -> None:
        """Switch faults on, for all requests or for one model's, and every other one off."""
        temporary = self.config_path.with_suffix(".new")
        temporary.write_text(json.dumps({"faults": faults, "models": models or {}}))
        temporary.replace(self.config_path)

    def counts(self) -> dict[str, int]:
        """Return how often each thing was asked for, as `GET /v2/...`."""
        return call("GET", f"{self.url}/sim/requests").json()["requests"]

    def forget(self) -> None:
        """Begin to count anew."""
        call("DELETE", f"{self.url}/sim/requests")

    def wait_stalled(self, wanted: int = 1) -> None:
        """Wait until exactly so many answers stall."""
        end = time.monotonic() + START_SECONDS
        while call("GET", f"{self.url}/sim/requests").json()["stalled"] != wanted:
            if time.monotonic() > end:
                raise RuntimeError(f"never {wanted} stalled answers:\n{self.process.log()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the registry."""
        self.process.end()


def make_store(store: Path, models: str = "tiny", partials: int = 0) -> list[dict[str, Any]]:
    """Write a store and return name, id, digest and size of each model."""
    return make_models.make(store, make_models.specs(models) if models else [], partials)


def start_ollama(
    tmp: Path,
    models: str = "tiny",
    version: str = "0.11.4",
    config: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
    partials: int = 0,
    start: bool = True,
) -> Ollama:
    """Start a simulated Ollama below tmp; models is a set, a comma list of names, or empty."""
    folder = tmp / f"ollama-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    ollama = Ollama(folder, version, config)
    ollama.env = dict(env or {})
    make_store(ollama.store, models, partials)
    return ollama.start() if start else ollama


def start_registry(tmp: Path, models: str = "tiny", releases: Path | None = None) -> Registry:
    """Start a simulated registry that serves the given models."""
    folder = tmp / "registry"
    folder.mkdir(parents=True, exist_ok=True)
    make_store(folder / "store", models)
    return Registry(folder, folder / "store", releases)
