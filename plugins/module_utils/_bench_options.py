# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The options of M(hx_infra.llm.inference_benchmark), shared by its module and action plugin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_PROMPT = (
    "{nonce}: Explain in about one hundred words why a server's memory bandwidth limits how fast"
    " it can generate text."
)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "url": {"type": "str", "default": "http://127.0.0.1:11434"},
    "host": {"type": "str"},
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
                    "tokens_per_s": {"type": "float", "no_log": False},
                },
            },
        },
    },
    "prompts": {"type": "list", "elements": "str", "default": [DEFAULT_PROMPT]},
    "iterations": {"type": "int", "default": 3},
    "warmup": {"type": "int", "default": 1},
    "concurrency": {"type": "int", "default": 1},
    "num_predict": {"type": "int", "default": 128},
    "think": {"type": "bool", "default": False},
    "timeout": {"type": "float", "default": 120.0},
    "max_duration": {"type": "float", "default": 1800.0},
    "baseline_file": {"type": "path"},
    "baseline_tolerance": {"type": "float", "default": 20.0},
    "results_file": {"type": "path"},
    "cv_limit": {"type": "float", "default": 20.0},
    "fail_on": {"type": "str", "choices": ["never", "WARN", "FAIL"], "default": "never"},
    "run_from": {"type": "str", "choices": ["target", "controller"], "default": "target"},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "measurements": {"type": "list", "elements": "dict"},
    "progress_file": {"type": "path"},
}

_AT_LEAST = {
    "iterations": 1,
    "warmup": 0,
    "concurrency": 1,
    "num_predict": 1,
    "timeout": 0.001,
    "max_duration": 0.001,
    "baseline_tolerance": 0,
    "cv_limit": 0,
}


def option_errors(params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the options, beyond their types."""
    errors = [
        f"{name} is {params[name]:g}, wanted at least {least:g}"
        for name, least in _AT_LEAST.items()
        if params[name] < least
    ]
    if params["concurrency"] > params["iterations"] >= 1:
        errors.append(
            f"concurrency is {params['concurrency']}, wanted at most the number of iterations"
            f" ({params['iterations']})"
        )
    if not params["prompts"] or not all(prompt.strip() for prompt in params["prompts"]):
        errors.append("prompts holds no or an empty prompt, wanted at least one text")
    names = [model["name"] for model in params["models"]]
    if not names:
        errors.append("models is empty, wanted at least one model")
    errors += [
        f"model {name} is given twice" for name in sorted(set(names)) if names.count(name) > 1
    ]
    return errors
