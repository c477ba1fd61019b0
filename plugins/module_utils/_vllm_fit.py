# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Whether a model fits: weights, KV cache of one full sequence and fixed overhead per worker.

The rule is vLLM's own (v1/worker/utils.py): the budget of an instance is the GPU's whole memory
times ``gpu_memory_utilization``, rounded up; what the weights and the runtime leave of it is KV
cache; a start is refused when that doesn't hold one sequence of ``max_model_len`` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import Service
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_flags import normal
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_model import (
    Shape,
    kv_bytes_per_token,
    kv_element_bytes,
    loaded_share,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_problem import GIB, human, problem

BLOCK_TOKENS = 16  # the KV cache is handed out in blocks; so a length is rounded down to them
# Of the CPU build, per service: three processes with a toy model held 2.9 GiB.
CPU_OVERHEAD_BYTES = 3 * GIB
_MORE_WEIGHTS = ("speculative-config", "spec-model", "enable-lora", "lora-modules")


@dataclass(frozen=True)
class Fit:
    """The arithmetic of one service; all sizes are per worker, None is not known."""

    fits: bool | None
    sentence: str
    budget: int | None = None
    weights: int | None = None
    overhead: int = 0
    kv_per_token: int | None = None
    kv: int | None = None
    max_len: int | None = None
    longest: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the form in which results carry it."""
        parts = [self.weights, self.kv]
        total = None if None in parts else sum(part or 0 for part in parts) + self.overhead
        return {
            "known": self.fits is not None,
            "fits": self.fits,
            "weights_bytes": self.weights,
            "kv_bytes_per_token": self.kv_per_token,
            "kv_bytes": self.kv,
            "overhead_bytes": self.overhead,
            "total_bytes": total,
            "budget_bytes": self.budget,
            "max_model_len": self.max_len,
            "max_len_that_fits": self.longest,
            "sentence": self.sentence,
        }


def budget_of(gpu: Mapping[str, Any], utilization: float) -> int | None:
    """Return the memory that an instance asks a GPU for; None when its size isn't known."""
    total = usable(gpu)
    return None if total is None else math.ceil(total * utilization)


def usable(gpu: Mapping[str, Any]) -> int | None:
    """Return the memory that programs can have: the whole without what the driver keeps."""
    total = gpu.get("memory_total_bytes")
    return None if total is None else int(total) - int(gpu.get("memory_reserved_bytes") or 0)


@dataclass(frozen=True)
class Needs:
    """What one worker of a service needs, and how that is said; None is not known."""

    weights: int | None
    overhead: int
    per_token: int | None
    kv: int | None
    max_len: int | None
    context: int | None
    at_most: str
    words: str

    def fit(
        self, fits: bool | None, end: str, budget: int | None = None, longest: int | None = None
    ) -> Fit:
        """Return these needs with a judgement."""
        return Fit(
            fits,
            f"{self.words}; {end}",
            budget,
            self.weights,
            self.overhead,
            self.per_token,
            self.kv,
            self.max_len,
            longest,
        )


def needs_of(service: Service, shape: Shape, disk_bytes: int | None) -> Needs:
    """Work out what a worker needs.

    Args:
        service: the declared service.
        shape: what the model's configuration says.
        disk_bytes: size of all weights; None when it isn't known.
    """
    model = service.section("model")
    dtype = str(model.get("dtype", "auto"))
    workers = service.tensor_parallel * service.pipeline_parallel
    overhead = CPU_OVERHEAD_BYTES if service.settings.cpu else service.settings.overhead_bytes
    share = loaded_share(dtype, shape)
    weights = None if disk_bytes is None else math.ceil(disk_bytes * share / workers)
    max_len = model.get("max_model_len") or shape.context
    kv_dtype = str(model.get("kv_cache_dtype", "auto"))
    element = kv_element_bytes(kv_dtype, dtype, shape)
    unknown = _unknown_kv(service, shape, element, kv_dtype)
    per_token = None
    if not unknown and element:
        per_token = kv_bytes_per_token(
            shape, element, service.tensor_parallel, service.pipeline_parallel
        )
    if per_token and not max_len:
        unknown = "the context isn't known: declare model.max_model_len"
    kv = per_token * max_len if per_token and max_len else None
    words = (
        f"weights {_weights_words(disk_bytes, weights, share, service)}"
        f" + KV cache {_kv_words(shape, kv, per_token, max_len, unknown)}"
        f" + fixed overhead {human(overhead)}{_not_counted(service)}"
    )
    return Needs(weights, overhead, per_token, kv, max_len, shape.context, shape.at_most, words)


def estimate(needs: Needs, budget: int | None, budget_says: str) -> Fit:
    """Compare what a worker needs with the share of its GPU.

    Args:
        needs: what :func:`needs_of` returned.
        budget: what a worker may take; None when it isn't known.
        budget_says: how the budget came about, for the sentence.
    """
    if budget is None:
        return needs.fit(None, f"{budget_says}, so whether it fits is not known")
    left = None if needs.weights is None else budget - needs.weights - needs.overhead
    longest = _longest(left, needs)
    fits, end = _judge(needs, budget, longest)
    return needs.fit(fits, f"{budget_says}; {end}", budget, longest)


def estimate_cpu(needs: Needs, service: Service, available: int | None) -> Fit:
    """Compare what the CPU build needs with its KV cache space and the host's memory.

    The KV cache has a size of its own there (``VLLM_CPU_KVCACHE_SPACE``, per worker), so that one
    sequence has to fit that, and all workers of this host have to fit its memory.
    """
    space = service.kv_cache_gb * GIB
    workers = service.local_workers
    budget = available
    says = "host memory is not known"
    if available is not None:
        says = f"host memory that services can have {human(available)}"
    limit = service.memory_max_bytes
    if limit is not None and (budget is None or limit < budget):
        budget, says = limit, f"memory limit {service.memory_max}"
    says = f"KV cache space {service.kv_cache_gb} GiB per worker; {says}"
    if needs.kv is not None and needs.kv > space and not needs.at_most:
        longest = _longest(space, needs)
        end = f"one sequence needs {human(needs.kv)} of the {service.kv_cache_gb} GiB"
        best = f"; the largest max_model_len that fits is {longest}" if longest else ""
        return needs.fit(False, f"{says}; {end}{best}", budget, longest)
    if budget is None or needs.weights is None:
        return needs.fit(None, f"{says}, so whether it fits is not known", budget)
    total = cpu_total(needs, service) or 0
    end = f"weights, KV cache space and overhead of {workers} worker(s) are {human(total)}"
    if total > budget:
        return needs.fit(False, f"{says}; {end}, {human(total - budget)} too much", budget)
    known = needs.kv is not None and needs.kv <= space
    if not known:
        return needs.fit(None, f"{says}; {end}; whether one sequence fits is not known", budget)
    longest = _longest(space, needs)
    return needs.fit(True, f"{says}; {end}, it fits", budget, longest)


def cpu_total(needs: Needs, service: Service) -> int | None:
    """Return the main memory that a service of the CPU build needs on this host."""
    if needs.weights is None:
        return None
    return needs.overhead + service.local_workers * (needs.weights + service.kv_cache_gb * GIB)


def _judge(needs: Needs, budget: int, longest: int | None) -> tuple[bool | None, str]:
    """Say whether needs keep to a budget; None is not known."""
    weights, overhead, kv = needs.weights, needs.overhead, needs.kv
    fixed = (weights or 0) + overhead
    if weights is not None and fixed > budget:
        over = human(fixed - budget)
        return False, f"weights and overhead alone are {human(fixed)}, {over} too much"
    if weights is None and (kv is None or fixed + kv <= budget):
        return None, "so whether it fits is not known"
    if kv is None:
        return None, f"{human(budget - fixed)} are left for a KV cache that is not known"
    need = fixed + kv
    if need <= budget:
        return True, f"together {human(need)}, it fits"
    if needs.at_most:
        return None, f"together {human(need)} at most, so whether it fits is not known"
    best = f"; the largest max_model_len that fits is {longest}" if longest else ""
    return False, f"together {human(need)}, {human(need - budget)} too much{best}"


def _longest(left: int | None, needs: Needs) -> int | None:
    """Return how many tokens fit what is left, at most the model's own context."""
    if left is None or not needs.per_token:
        return None
    tokens = max(0, left) // needs.per_token // BLOCK_TOKENS * BLOCK_TOKENS
    return min(tokens, needs.context or tokens)


def _unknown_kv(service: Service, shape: Shape, element: int | None, kv_dtype: str) -> str:
    if shape.unknown:
        return shape.unknown
    if any(normal(flag) == "hf-overrides" for flag in service.extra_args):
        return "extra_args.hf-overrides changes the model's shape"
    if element is None:
        return f"the size of kv_cache_dtype {kv_dtype} with its scales isn't known"
    return ""


def _weights_words(disk: int | None, weights: int | None, share: float, service: Service) -> str:
    if disk is None or weights is None:
        return "not known (declare model.weights_bytes or put the files in place)"
    text = human(disk)
    if share != 1.0:
        text += f" x {share:g} (another data type in memory)"
    if service.tensor_parallel > 1:
        text += f" / {service.tensor_parallel} (tensor parallel)"
    if service.pipeline_parallel > 1:
        text += f" / {service.pipeline_parallel} (pipeline parallel)"
    return text if text == human(weights) else f"{text} = {human(weights)}"


def _kv_words(
    shape: Shape, kv: int | None, per_token: int | None, max_len: int | None, unknown: str
) -> str:
    if unknown or kv is None or per_token is None:
        return f"not known ({unknown})"
    text = f"{human(per_token)}/token x {max_len} tokens = {human(kv)}"
    return f"at most {text} ({shape.at_most})" if shape.at_most else text


def _not_counted(service: Service) -> str:
    flags = sorted({normal(flag) for flag in service.extra_args} & set(_MORE_WEIGHTS))
    return f" (not counted: memory for {', '.join(flags)})" if flags else ""


def fit_problem(service: Service, fit: Fit) -> list[dict[str, str]]:
    """Return a refusal when the arithmetic says that the model can't fit."""
    if fit.fits is not False:
        return []
    shorter = fit.longest is not None and 0 < fit.longest < (fit.max_len or 0)
    field = "model.max_model_len" if shorter else "model"
    found = str(fit.max_len) if shorter else service.model_path
    allowed = f"at most {fit.longest}" if shorter else "a model that fits"
    return [problem(service.name, field, found, f"{allowed}: {fit.sentence}")]
