# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The options of M(hx_infra.llm.inference_benchmark), shared by its module and action plugin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import (
    OLLAMA_GENERATE,
    PATHS,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import (
    CLOSED,
    CONSTANT,
    POISSON,
    Stage,
)

DEFAULT_PROMPT = (
    "{nonce}: Explain in about one hundred words why a server's memory bandwidth limits how fast"
    " it can generate text."
)
SEQUENTIAL_REQUESTS = 3
IN_FLIGHT = 256  # of a schedule, unless declared
MOST_REQUESTS = 20_000  # of a stage
MOST_AT_ONCE = 4096  # connections; a process may have that many open files on usual systems
LEAST_RATE = 0.001  # requests per second
PERCENTILES = ["p50", "p90", "p95", "p99"]

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "url": {"type": "str", "default": "http://127.0.0.1:11434"},
    "host": {"type": "str"},
    "api": {"type": "str", "choices": list(PATHS), "default": OLLAMA_GENERATE},
    "stream": {"type": "bool", "default": True},
    "models": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "slo": {
                "type": "dict",
                "options": {
                    "ttft_ms": {"type": "float"},
                    "tpot_ms": {"type": "float"},
                    "itl_p99_ms": {"type": "float"},
                    "latency_ms": {"type": "float"},
                    "tokens_per_s": {"type": "float", "no_log": False},
                    "target_throughput_rps": {"type": "float"},
                    "goodput_rps": {"type": "float"},
                    "slo_percentile": {"type": "str", "choices": PERCENTILES},
                },
            },
        },
    },
    "prompts": {"type": "list", "elements": "str", "default": [DEFAULT_PROMPT]},
    "prompt_file": {"type": "path"},
    "prompt_tokens": {"type": "int", "default": 0, "no_log": False},
    "unique_prompts": {"type": "bool", "default": True},
    "num_predict": {"type": "int", "default": 128},
    "think": {"type": "bool", "default": False},
    "extra_body": {"type": "dict", "default": {}},
    "iterations": {"type": "int"},
    "warmup": {"type": "int", "default": 1},
    "concurrency": {"type": "int"},
    "rate": {"type": "float"},
    "arrival": {"type": "str", "choices": [POISSON, CONSTANT], "default": POISSON},
    "seed": {"type": "int", "default": 0},
    "duration": {"type": "float", "default": 0.0},
    "sweep": {
        "type": "dict",
        "options": {
            "over": {"type": "str", "choices": ["concurrency", "rate"], "default": "concurrency"},
            "values": {"type": "list", "elements": "float"},
            "start": {"type": "float", "default": 1.0},
            "limit": {"type": "float", "default": 64.0},
            "factor": {"type": "float", "default": 2.0},
            "refine": {"type": "int", "default": 0},
            "stop": {"type": "bool", "default": True},
        },
    },
    "timeout": {"type": "float", "default": 120.0},
    "max_duration": {"type": "float", "default": 1800.0},
    "stall_ms": {"type": "float", "default": 500.0},
    "calibrate": {"type": "bool", "default": True},
    "overhead_limit_ms": {"type": "float"},
    "loop_lag_limit_ms": {"type": "float", "default": 25.0},
    "sample_resources": {"type": "bool", "default": True},
    "sample_interval": {"type": "float", "default": 1.0},
    "gpu_python": {"type": "path"},
    "min_samples": {"type": "int"},
    "error_limit": {"type": "float", "default": 1.0},
    "cv_limit": {"type": "float", "default": 20.0},
    "baseline_file": {"type": "path"},
    "baseline_tolerance": {"type": "float", "default": 20.0},
    "baseline": {
        "type": "dict",
        "options": {
            "directory": {"type": "path", "required": True},
            "compare": {"type": "str"},
            "set": {"type": "str"},
            "replace": {"type": "bool", "default": False},
            "accept_unreliable": {"type": "bool", "default": False},
            "may_differ": {"type": "list", "elements": "str", "default": []},
            "warn_percent": {"type": "float", "default": 5.0},
            "fail_percent": {"type": "float", "default": 20.0},
        },
    },
    "results_file": {"type": "path"},
    "json_dir": {"type": "path"},
    "report_dir": {"type": "path"},
    "invalid": {"type": "str", "choices": ["WARN", "FAIL"], "default": "FAIL"},
    "progress": {"type": "bool", "default": True},
    "fail_on": {"type": "str", "choices": ["never", "WARN", "FAIL"], "default": "never"},
    "in_service": {"type": "bool", "default": False},
    "allow_in_service": {"type": "bool", "default": False},
    "key_file": {"type": "path"},
    "run_from": {"type": "str", "choices": ["target", "controller"], "default": "target"},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "measurements": {"type": "list", "elements": "dict"},
    "measured_run": {"type": "dict"},
    "progress_file": {"type": "path"},
}

_AT_LEAST = {
    "iterations": 1,
    "warmup": 0,
    "concurrency": 1,
    "num_predict": 1,
    "prompt_tokens": 0,
    "rate": LEAST_RATE,
    "duration": 0,
    "timeout": 0.001,
    "max_duration": 0.001,
    "stall_ms": 0.001,
    "sample_interval": 0.1,
    "min_samples": 1,
    "error_limit": 0,
    "baseline_tolerance": 0,
    "cv_limit": 0,
}


def option_errors(params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the options, beyond their types."""
    errors = [
        f"{name} is {params[name]:g}, wanted at least {least:g}"
        for name, least in _AT_LEAST.items()
        if params[name] is not None and not params[name] >= least
    ]
    errors += _load_errors(params)
    if "@" in urlsplit(params["url"]).netloc:
        errors.append("url holds a user or password, wanted a key_file")
    prompts = params["prompts"]
    usable = prompts and all(prompt.strip() for prompt in prompts)
    if not usable and not params["prompt_tokens"] and not params["prompt_file"]:
        errors.append("prompts holds no or an empty prompt, wanted at least one text")
    names = [model["name"] for model in params["models"]]
    if not names:
        errors.append("models is empty, wanted at least one model")
    errors += [
        f"model {name} is given twice" for name in sorted(set(names)) if names.count(name) > 1
    ]
    baseline = params["baseline"]
    if baseline and not baseline["compare"] and not baseline["set"]:
        errors.append("baseline says neither compare nor set, wanted at least one of them")
    return errors


def _load_errors(params: Mapping[str, Any]) -> Iterator[str]:
    wanted, at_once, rate = params["iterations"], params["concurrency"], params["rate"]
    if wanted is not None and wanted > MOST_REQUESTS:
        yield f"iterations is {wanted}, wanted at most {MOST_REQUESTS}"
    if at_once is not None and at_once > MOST_AT_ONCE:
        yield f"concurrency is {at_once}, wanted at most {MOST_AT_ONCE}"
    if params["duration"] > params["max_duration"]:
        yield (
            f"duration is {params['duration']:g} s, wanted at most max_duration"
            f" ({params['max_duration']:g} s)"
        )
    if params["sweep"]:
        yield from _sweep_errors(params["sweep"])
    closed = not rate and not params["sweep"]
    if closed and at_once and wanted and at_once > wanted >= 1:
        yield f"concurrency is {at_once}, wanted at most the number of iterations ({wanted})"
    if rate and params["sweep"]:
        yield "rate and sweep are both given, wanted one of them"
    if (rate or (params["sweep"] or {}).get("over") == "rate") and not (
        wanted or params["duration"]
    ):
        yield "a schedule has no end, wanted iterations or duration"


def _sweep_errors(sweep: Mapping[str, Any]) -> Iterator[str]:
    over = sweep["over"]
    least, most = (LEAST_RATE, math.inf) if over == "rate" else (1, MOST_AT_ONCE)
    given = sweep["values"]
    if given is not None and not given:
        yield "values of sweep is empty, wanted at least one load"
    found = [("values", value) for value in given or []]
    found += [] if given else [(name, sweep[name]) for name in ("start", "limit")]
    for name, value in found:
        if not least <= value <= most or math.isinf(value):
            bound = f"at least {least:g}" if over == "rate" else f"{least:g} to {most:g}"
            yield f"{name} of sweep is {value:g}, wanted {bound} ({over})"
    if not given and not sweep["factor"] > 1:
        yield f"factor of sweep is {sweep['factor']:g}, wanted more than 1"
    if sweep["refine"] < 0:
        yield f"refine of sweep is {sweep['refine']}, wanted at least 0"


def stage_of(params: Mapping[str, Any], over: str = "", value: float = 0.0) -> Stage:
    """Return the declared load, or a step of a sweep over ``concurrency`` or ``rate``."""
    rate = value if over == "rate" else params["rate"]
    duration = params["duration"]
    if rate:
        enough = math.ceil(rate * duration * 2) + 10 if duration else MOST_REQUESTS
        return Stage(
            shape=params["arrival"],
            concurrency=params["concurrency"] or IN_FLIGHT,
            rate=rate,
            requests=params["iterations"] or min(enough, MOST_REQUESTS),
            duration_s=duration,
            seed=params["seed"],
        )
    at_once = int(value) if over == "concurrency" else params["concurrency"] or 1
    requests = params["iterations"] or (
        MOST_REQUESTS if duration else max(SEQUENTIAL_REQUESTS, at_once)
    )
    if over:  # each place is to be used more than once
        requests = min(max(requests, 2 * at_once), MOST_REQUESTS) if not duration else requests
    return Stage(CLOSED, at_once, requests=requests, duration_s=duration)


def load_in_words(params: Mapping[str, Any]) -> list[str]:
    """Return what a run sends, one sentence per model."""
    most = f"at most {params['num_predict']} tokens each"
    if params["sweep"]:
        what = f"a sweep over {params['sweep']['over']}"
    else:
        stage = stage_of(params)
        count = f"{stage.requests} requests"
        if stage.duration_s:
            count = f"requests for {stage.duration_s:g} s"
        what = f"{count}, {stage.label}"
    return [
        f"send {what}, {most}, to {model['name']} after {params['warmup']} to warm up"
        for model in params["models"]
    ]
