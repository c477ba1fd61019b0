# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of the benchmark for the tests of its pages: small, plain, and all of the schema."""

from __future__ import annotations

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import summarize


def sample(number, ttft=100.0, latency=1000.0, error="", text="", prompt_tokens=50):
    return {
        "number": number,
        "model": "",
        "phase": "measure",
        "stage": 0,
        "started_at": f"2026-11-20T10:15:{number % 60:02d}.000Z",
        "at_s": float(number % 60),
        "dispatch_lag_ms": None,
        "ttft_ms": None if error else ttft,
        "latency_ms": None if error else latency,
        "tpot_ms": None if error or ttft is None else 10.0,
        "prompt_tokens": prompt_tokens,
        "gen_tokens": 0 if error else 90,
        "tokens_from": "server",
        "tokens_per_s": None if error else 100.0 + number % 5,
        "rate_from": "server",
        "error_kind": error,
        "error": text,
    }


def row(second, gpus=2):
    return {
        "t": float(second),
        "gpu": [
            {
                "index": index,
                "util_percent": 80.0,
                "memory_used_bytes": 9_000_000_000,
                "memory_total_bytes": 16_000_000_000,
                "temperature_c": 60.0,
                "power_w": 150.0,
                "throttle": [],
            }
            for index in range(gpus)
        ],
        "cpu_percent": 20.0,
        "memory_used_bytes": 20_000_000_000,
        "memory_total_bytes": 64_000_000_000,
        "load1": 1.0,
        "engine": {"running": 4, "waiting": 0, "kv_cache_percent": 12.0},
        "client": {"tokens_per_s": 400.0, "in_flight": 4},
    }


def verdict(check, status, value, limit, unit="", evidence=""):
    return {
        "check": check,
        "status": status,
        "subject": "m",
        "value": value,
        "limit": limit,
        "unit": unit,
        "evidence": evidence,
    }


def summary(values):
    return {
        **summarize(values),
        "p50": summarize(values)["median"],
        "p999": max(values, default=None),
    }


def entry(model="llama3.2:3b", samples=None, concurrency=4, slo=None, gpus=2, **given):
    samples = [sample(number) for number in range(1, 41)] if samples is None else samples
    good = [item for item in samples if not item["error_kind"]]

    def of(name):
        return summary([item[name] for item in good if item[name] is not None])

    ttft = of("ttft_ms")
    errors = {}
    for item in samples:
        if item["error_kind"]:
            errors[item["error_kind"]] = errors.get(item["error_kind"], 0) + 1
    gaps = summary([10.0, 11.0, 12.0] * 1000 if ttft["count"] else [])
    verdicts = [
        verdict("answered", "FAIL" if errors else "PASS", len(good), len(samples), "requests")
    ]
    if slo:
        status = "PASS" if (ttft["median"] or 0) <= slo else "FAIL"
        verdicts.append(verdict("ttft", status, ttft["median"], slo, "ms"))
    made = {
        "model": model,
        "stage": {
            "shape": "closed",
            "concurrency": concurrency,
            "rate": 0.0,
            "requests": len(samples),
            "duration_s": 0.0,
            "seed": 0,
            "label": f"{concurrency} at once",
        },
        "metrics": {
            "ttft_ms": ttft,
            "latency_ms": of("latency_ms"),
            "tpot_ms": of("tpot_ms"),
            "gap_ms": {
                **gaps,
                "stalls": 0,
                "stall_limit_ms": 500.0,
                "histogram": [[10.0, 1000], [12.5, 2000], [600.0, 0], [700.0, 2]]
                if ttft["count"]
                else [],
            },
            "tokens_per_s": of("tokens_per_s"),
            "prompt_tokens_per_s": summary([]),
            "load_ms": 8000.0,
            "cold_ttft_ms": 8500.0,
            "total_tokens_per_s": 380.0 if good else None,
            "requests_per_s": 4.2 if good else None,
            "goodput_per_s": None,
            "slo_attainment": None,
            "tokens_from": ["server"],
            "rate_from": ["server"],
            "gpu_ratio": 1.0,
        },
        "samples": samples,
        "warmup": [],
        "wall_s": 60.0,
        "not_sent": 0,
        "errors": errors,
        "client": {
            "overhead_ms": 0.41,
            "itl_overhead_ms": 0.02,
            "loop_lag_p99_ms": 0.93,
            "dispatch_lag_p99_ms": 0.2,
            "kernel_stamps": True,
            "cpu_percent_of_core": 6.0,
            "calibration": None,
            "limit_ms": 5.0,
        },
        "server_truth": {
            "engine": "ollama",
            "ttft_ms": 97.0,
            "itl_ms": 10.0,
            "requests": 40,
            "client_minus_server_ttft_ms": 3.0,
            "explained": "network",
        },
        "timeline": {
            "step_s": 1.0,
            "begun_at": "2026-11-20T10:15:00.000Z",
            "rows": [row(second, gpus) for second in range(60)],
            "sources": {"gpu": "nvml" if gpus else "none: no driver"},
        },
        "validity": {"state": "VALID", "reasons": []},
        "comparison": None,
        "verdicts": verdicts,
        "baseline_recorded": False,
    }
    return {**made, **given}


def run(entries=None, sweep=None, host="llm-01", **given):
    return {
        "schema": 1,
        "host": host,
        "url": "http://127.0.0.1:11434",
        "engine": {"name": "ollama", "version": "0.11.4"},
        "dialect": "ollama_generate",
        "started_at": "2026-11-20T10:15:00Z",
        "options": {},
        "facts": {"gpus": ["RTX 4070 Ti", "RTX 4070 Ti"], "driver": "575.64.03"},
        "entries": [entry()] if entries is None else entries,
        "sweeps": [sweep] if sweep else [],
        **given,
    }
