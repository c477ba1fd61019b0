# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared schedule: when a model is loaded and when each token comes out."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from sim_ollama.settings import Settings

DEFAULT_CPU_FACTOR = 8.0
DEFAULT_JITTER = 0.05


class Schedule(NamedTuple):
    """The timing of one model on the hardware that it was placed on."""

    load_seconds: float
    ttft_seconds: float
    prompt_tokens_per_second: float
    tokens_per_second: float
    jitter: float
    answer_tokens: int

    def prompt_seconds(self, tokens: int) -> float:
        """Return how long a prompt of so many evaluated tokens takes."""
        return self.ttft_seconds + max(0, tokens) / self.prompt_tokens_per_second

    def intervals(self, count: int, seed: int) -> list[float]:
        """Return the time that each of count tokens takes, with seeded jitter."""
        rng = random.Random(seed)
        step = 1.0 / self.tokens_per_second
        return [step * (1.0 + rng.uniform(-self.jitter, self.jitter)) for _turn in range(count)]


def derived(size: int) -> dict[str, float]:
    """Return the built-in schedule of a model with so many bytes of weights."""
    megabytes = size / 1e6
    return {
        "load_seconds": 0.3 + megabytes / 100.0,
        "ttft_seconds": 0.04 + megabytes / 1000.0,
        "prompt_tokens_per_second": max(50.0, 60000.0 / (megabytes + 10.0)),
        "tokens_per_second": max(5.0, 2200.0 / (megabytes + 10.0)),
        "answer_tokens": 64,
    }


def model_values(settings: Settings, model: str, size: int) -> dict[str, Any]:
    """Return built-in values, overlaid with the file's defaults and the model's own."""
    values: dict[str, Any] = dict(derived(size))
    values.update(settings.section("defaults"))
    values.update(settings.section("models").get(model) or {})
    return values


def schedule_for(settings: Settings, model: str, size: int, gpu_share: float) -> Schedule:
    """Return a model's schedule; gpu_share is the part of it that lies on GPUs, 0 to 1."""
    values = model_values(settings, model, size)
    cpu_factor = float(values.get("cpu_factor", DEFAULT_CPU_FACTOR))
    factor = (1.0 + (1.0 - gpu_share) * (cpu_factor - 1.0)) * settings.slow_factor()
    return Schedule(
        load_seconds=float(values["load_seconds"]) * settings.slow_factor(),
        ttft_seconds=float(values["ttft_seconds"]) * factor,
        prompt_tokens_per_second=float(values["prompt_tokens_per_second"]) / factor,
        tokens_per_second=float(values["tokens_per_second"]) / factor,
        jitter=float(values.get("jitter", DEFAULT_JITTER)),
        answer_tokens=int(values["answer_tokens"]),
    )
