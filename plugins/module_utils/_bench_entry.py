# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a result says about one model under one load, from the measurement to the verdicts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_baselines import (
    Identity,
    arrays_of,
    read_baseline,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_calibrate import client_error
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_compare import (
    Rules,
    compare,
    comparison_verdicts,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_csv import Baseline
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_judge import Limits, judge_model
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_metrics import (
    errors_of,
    metrics_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import median
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_validity import (
    TrustLimits,
    judge_validity,
    overhead_limit_ms,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import Verdict

WITHOUT_ERROR = "the client was not calibrated"


@dataclass(frozen=True)
class Known:
    """What a measurement is judged with.

    Attributes:
        params: the module's options.
        facts: engine, digests, GPUs, as ``_bench_facts`` finds them.
        limits, trust: what it is held against.
        baselines: the first ones per model, of the CSV file.
    """

    params: Mapping[str, Any]
    facts: Mapping[str, Any]
    limits: Limits
    trust: TrustLimits
    baselines: Mapping[str, Baseline]


def limits_of(params: Mapping[str, Any]) -> tuple[Limits, TrustLimits]:
    """Return what the options say a measurement is held against."""
    limits = Limits(
        slo={model["name"]: model["slo"] or {} for model in params["models"]},
        cv_percent=params["cv_limit"],
        tolerance_percent=params["baseline_tolerance"],
        invalid=params["invalid"],
    )
    trust = TrustLimits(
        min_samples=params["min_samples"],
        error_percent=params["error_limit"],
        cv_percent=params["cv_limit"],
        overhead_ms=params["overhead_limit_ms"],
        loop_lag_ms=params["loop_lag_limit_ms"],
        in_service=params["in_service"],
    )
    return limits, trust


def rules_of(wanted: Mapping[str, Any]) -> Rules:
    """Return how a comparison with a named baseline is judged; refuse what may not differ."""
    return Rules(wanted["fail_percent"], wanted["warn_percent"], tuple(wanted["may_differ"]))


def measured_entry(
    measured: Measurement,
    *,
    calibration: Mapping[str, Any],
    server_truth: Mapping[str, Any],
    timeline: Mapping[str, Any] | None,
    known: Known,
) -> dict[str, Any]:
    """Return the figures of a measurement; ``judge_entry`` adds what is thought of them."""
    params = known.params
    slo = known.limits.slo.get(measured.model)
    metrics = metrics_of(measured, slo, params["stall_ms"])
    limit_ms = overhead_limit_ms(metrics, known.trust)
    return {
        "model": measured.model,
        "stage": {**asdict(measured.stage), "label": measured.stage.label},
        "begun_at": measured.begun_at,
        "asked": _asked(known),
        "metrics": metrics,
        "samples": [sample.as_dict() for sample in measured.samples],
        "warmup": [sample.as_dict() for sample in measured.warmup],
        "wall_s": round(measured.wall_s, 3),
        "not_sent": measured.not_sent,
        "in_flight": measured.in_flight,
        "cut": measured.cut,
        "errors": errors_of(measured),
        "client": client_error(calibration, measured, limit_ms),
        "server_truth": dict(server_truth),
        "timeline": timeline,
    }


def judge_entry(entry: dict[str, Any], measured: Measurement, known: Known) -> Identity:
    """Add validity, comparison and verdicts to an entry; return what was measured."""
    metrics = entry["metrics"]
    validity = judge_validity(
        measured,
        metrics,
        timeline=entry["timeline"],
        client=entry["client"],
        server_truth=entry["server_truth"],
        limits=known.trust,
    )
    identity = identity_of(measured, entry["asked"], known)
    verdicts: list[Verdict] = judge_model(
        measured, metrics, known.limits, known.baselines.get(measured.model), validity
    )
    entry["comparison"] = None
    wanted = known.params["baseline"] or {}
    if wanted.get("compare"):
        rules = rules_of(wanted)
        entry["comparison"] = compare(
            wanted["compare"],
            read_baseline(wanted["directory"], wanted["compare"], measured.model),
            identity,
            arrays=arrays_of(measured),
            gap_p99_ms=metrics["gap_ms"]["p99"],
            rules=rules,
        )
        verdicts += comparison_verdicts(measured.model, entry["comparison"], rules)
    entry["validity"] = validity
    entry["verdicts"] = verdicts
    entry["baseline_recorded"] = False
    return identity


def identity_of(measured: Measurement, asked: Mapping[str, Any], known: Known) -> Identity:
    """Return what a measurement is a measurement of."""
    params, engine = known.params, asked["engine"]
    counted = [sample.prompt_tokens for sample in measured.samples if sample.prompt_tokens]
    middle = median(counted)
    return Identity(
        model=measured.model,
        model_digest=str((engine.get("digests") or {}).get(measured.model, "")),
        engine=str(engine.get("name") or ""),
        engine_version=str(engine.get("version") or ""),
        dialect=params["api"],
        stream=params["stream"],
        shape=measured.stage.shape,
        concurrency=measured.stage.concurrency,
        rate=measured.stage.rate,
        prompt_kind=asked["prompt_kind"],
        prompt_digest=asked["prompt_digest"],
        prompt_tokens=params["prompt_tokens"] or (None if middle is None else round(middle)),
        max_tokens=params["num_predict"],
        think=params["think"],
        extra_digest=digest_of(params["extra_body"]),
        unique_prompts=params["unique_prompts"],
        run_from=params["run_from"],
        gpus=tuple(known.facts.get("gpus") or ()),
        driver=str(known.facts.get("driver") or ""),
    )


def digest_of(extra: Mapping[str, Any] | None) -> str:
    """Return a digest of a request's further fields, whatever their order; empty for none."""
    if not extra:
        return ""
    return hashlib.sha256(json.dumps(extra, sort_keys=True).encode()).hexdigest()


def _asked(known: Known) -> dict[str, Any]:
    """Return who was asked, and with what; known only where the requests were sent from."""
    params = known.params
    engine = known.facts.get("engine") or {"name": "", "version": "", "digests": {}}
    if params["prompt_tokens"]:
        return {"engine": engine, "prompt_kind": "synthetic", "prompt_digest": ""}
    text = "\0".join(known.facts.get("prompts") or params["prompts"])
    return {
        "engine": engine,
        "prompt_kind": "file" if params["prompt_file"] else "fixed",
        "prompt_digest": hashlib.sha256(text.encode()).hexdigest(),
    }
