# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting the server: checks, pruning, GPU discovery, then answers."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from sim_ollama import api_infer, api_models, create, envconfig, gpu, keys, log, openai, pull
from sim_ollama import settings as settings_file
from sim_ollama.app import App
from sim_ollama.download import Downloads
from sim_ollama.gpu import Discovery
from sim_ollama.httpd import Router, Server
from sim_ollama.runner import own_command
from sim_ollama.scheduler import GIB, Scheduler, system_memory
from sim_ollama.store import Store, StoreError
from sim_ollama.version import at_least, library_dir, own_version


def serve() -> int:
    """Run the server until it is told to stop."""
    os.umask(os.umask(0o022) | 0o022)
    playing = own_version()
    settings = settings_file.from_environment()
    refusal = settings.fault("refuse_start")
    if refusal:
        return fail(refusal if isinstance(refusal, str) else "simulated refusal to start")
    try:
        keys.ensure(Path(os.environ.get("HOME") or "/") / ".ollama")
    except OSError as exc:
        return fail(f"could not create key: {exc}")
    env = envconfig.read()
    try:
        server = Server((env.host, env.port))
    except OSError as exc:
        reason = os.strerror(exc.errno or 5).lower() if exc.errno else str(exc)
        return fail(f"listen tcp {env.host}:{env.port}: bind: {reason}")
    log.info("routes.go:1297", "server config", env=envconfig.as_text(env))
    store = Store(env.models)
    try:
        prepare_store(store, env, playing)
    except StoreError as exc:
        return fail(str(exc))
    except OSError as exc:
        return fail(f"open {exc.filename}: {os.strerror(exc.errno or 5).lower()}")
    scheduler = Scheduler(env, settings, playing)
    server.app = App(playing, env, settings, store, scheduler, Downloads(settings))
    server.router = routes()
    host, port = server.server_address[:2]
    log.info("routes.go:1350", f"Listening on {host!s}:{port} (version {playing})")
    scheduler.discovery = discover(settings, playing)
    return run_until_signalled(server, scheduler)


def prepare_store(store: Store, env: envconfig.Environment, playing: str) -> None:
    """Make the directories, rename old blobs and prune, in the real order."""
    store.prepare()
    store.rename_colon_blobs()
    if not env.no_prune:
        store.prune(grace=at_least(playing, "0.21.0"))


def discover(settings: settings_file.Settings, playing: str) -> Discovery:
    """Find GPUs once and log one line for each, or one for the CPU."""
    log.info("gpu.go:217", "looking for compatible GPUs")
    timeout = float(settings.data().get("discovery_timeout_seconds", 30.0))
    if settings.fault("cpu_only") is True:
        found = Discovery([], "", "simulated: no GPU")
    elif library_dir() is None and own_command()[0] != sys.executable:
        found = Discovery([], "", "no libraries beside the program")
    else:
        found = gpu.discover([*own_command(), "runner", "--discover"], timeout)
    new = at_least(playing, "0.30.0")
    if not found.gpus:
        if new:
            log.warn(
                "runner.go:90", "failure during llama-server GPU discovery", error=found.problem
            )
        else:
            log.info("gpu.go:377", "no compatible GPUs were discovered", reason=found.problem)
        total = f"{system_memory() / GIB:.1f} GiB"
        identifier = "cpu" if new else 0
        log.info("types.go:130", "inference compute", id=identifier, library="cpu", total=total)
    for device in found.gpus:
        log.info(
            "types.go:130",
            "inference compute",
            id=device.uuid,
            library="CUDA" if new else "cuda",
            variant="v12",
            compute=device.compute,
            driver=found.driver,
            name=device.name,
            total=f"{device.total / GIB:.1f} GiB",
            available=f"{device.free / GIB:.1f} GiB",
        )
    return found


def routes() -> Router:
    """Return all routes."""
    router = Router()
    for module in (api_models, api_infer, pull, create, openai):
        module.add_routes(router)
    return router


def run_until_signalled(server: Server, scheduler: Scheduler) -> int:
    """Answer requests until SIGTERM or SIGINT."""
    stopping = threading.Event()

    def stop(_number: int, _frame: Any) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    while not stopping.wait(0.5):
        pass
    server.socket.shutdown(socket.SHUT_RDWR)
    scheduler.stop()
    sys.stderr.flush()
    os._exit(0)


def fail(text: str) -> int:
    """Print an error as the program does and return its exit status."""
    log.raw(f"Error: {text}")
    return 1
