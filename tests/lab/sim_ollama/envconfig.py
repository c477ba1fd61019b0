# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's environment variables, read and logged as the real server does."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from sim_ollama import log

FOREVER = float("inf")
UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|\u00b5s|ms|s|m|h)")
DEFAULT_KEEP_ALIVE = 300.0
DEFAULT_CONTEXT = 4096
FALSE_WORDS = {"0", "f", "false"}


class Environment(NamedTuple):
    """The effective values."""

    host: str
    port: int
    scheme: str
    models: Path
    keep_alive: float
    num_parallel: int
    max_queue: int
    max_loaded: int
    context_length: int
    no_prune: bool
    sched_spread: bool
    debug: bool
    no_cloud: bool


def variable(key: str) -> str:
    """Return a variable without the quotes and spaces around it."""
    return os.environ.get(key, "").strip().strip("\"'").strip()


def parse_duration(text: str) -> float | None:
    """Read a Go duration in seconds; None when it is none (a bare number but 0 included)."""
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return 0.0
    parts = DURATION.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        return None
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    return -seconds if text.startswith("-") else seconds


def _keep_alive() -> float:
    text = variable("OLLAMA_KEEP_ALIVE")
    seconds = parse_duration(text)
    if seconds is None and re.fullmatch(r"[-+]?[0-9]+", text):
        seconds = float(text)
    if seconds is None:
        return DEFAULT_KEEP_ALIVE
    return FOREVER if seconds < 0 else seconds


def _boolean(key: str) -> bool:
    text = variable(key).lower()
    # Anything else counts as true, "off" included.
    return bool(text) and text not in FALSE_WORDS


def _unsigned(key: str, default: int) -> int:
    text = variable(key)
    if text and not re.fullmatch(r"[0-9]+", text):
        log.warn("config.go:300", "invalid environment variable, using default", key=key)
    return int(text) if re.fullmatch(r"[0-9]+", text) else default


def host() -> tuple[str, str, int]:
    """Return scheme, host and port of OLLAMA_HOST."""
    text = variable("OLLAMA_HOST")
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    default_port = {"http": 80, "https": 443}.get(scheme, 11434) if found else 11434
    rest = rest.split("/", 1)[0]
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*):([^:]*)", rest)
    address, port_text = match.groups() if match else (rest or "127.0.0.1", "")
    address = address.strip("[]")  # empty means every address
    port = default_port
    if port_text:
        if port_text.isdigit() and int(port_text) <= 65535:
            port = int(port_text)
        else:
            log.warn("config.go:50", "invalid port, using default", port=port_text)
    return scheme, address, port


def default_models() -> Path:
    """Return the models directory when OLLAMA_MODELS is unset."""
    return Path(os.environ.get("HOME", "/")) / ".ollama" / "models"


def read() -> Environment:
    """Read all variables."""
    scheme, address, port = host()
    models = variable("OLLAMA_MODELS")
    return Environment(
        host=address,
        port=port,
        scheme=scheme,
        models=Path(models) if models else default_models(),
        keep_alive=_keep_alive(),
        num_parallel=max(1, _unsigned("OLLAMA_NUM_PARALLEL", 1)),
        max_queue=_unsigned("OLLAMA_MAX_QUEUE", 512),
        max_loaded=_unsigned("OLLAMA_MAX_LOADED_MODELS", 0),
        context_length=_unsigned("OLLAMA_CONTEXT_LENGTH", 0) or DEFAULT_CONTEXT,
        no_prune=_boolean("OLLAMA_NOPRUNE"),
        sched_spread=_boolean("OLLAMA_SCHED_SPREAD"),
        debug=_boolean("OLLAMA_DEBUG"),
        no_cloud=_boolean("OLLAMA_NO_CLOUD"),
    )


def as_text(env: Environment) -> str:
    """Return the effective values as the start log prints them."""
    shown_host = f"[{env.host}]" if ":" in env.host else env.host
    values = {
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "HTTPS_PROXY": os.environ.get("HTTPS_PROXY", ""),
        "OLLAMA_CONTEXT_LENGTH": env.context_length,
        "OLLAMA_DEBUG": "DEBUG" if env.debug else "INFO",
        "OLLAMA_HOST": f"{env.scheme}://{shown_host}:{env.port}",
        "OLLAMA_KEEP_ALIVE": _duration_text(env.keep_alive),
        "OLLAMA_MAX_LOADED_MODELS": env.max_loaded,
        "OLLAMA_MAX_QUEUE": env.max_queue,
        "OLLAMA_MODELS": env.models,
        "OLLAMA_NOPRUNE": str(env.no_prune).lower(),
        "OLLAMA_NUM_PARALLEL": env.num_parallel,
        "OLLAMA_SCHED_SPREAD": str(env.sched_spread).lower(),
    }
    return "map[" + " ".join(f"{key}:{value}" for key, value in values.items()) + "]"


def _duration_text(seconds: float) -> str:
    if seconds == FOREVER:
        return "2562047h47m16.854775807s"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{rest:g}s"
    return f"{minutes}m{rest:g}s" if minutes else f"{rest:g}s"
