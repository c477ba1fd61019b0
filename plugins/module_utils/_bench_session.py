# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A session of measuring: calibrate, then each model under each load, with everything around it."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_calibrate import (
    calibrate,
    places_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import OLLAMA
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_entry import (
    Known,
    digest_of,
    limits_of,
    measured_entry,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_facts import (
    engine_facts,
    gpu_names,
    gpu_ratio,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Sample, Setting
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import (
    Measurement,
    Plan,
    Progress,
    Runner,
    address_of,
    rfc3339,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import stage_of
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_prompts import Prompts
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_sampler import Sampler, Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import Stage
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_sweep import (
    OBJECTIVES,
    next_value,
    point_of,
    summarise,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_truth import (
    getter,
    server_truth,
    snapshot,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import http_prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check import (
    key_headers,
    read_key,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_facts import read_gpus
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter

SCHEMA = 1
GPU_TIMEOUT_S = 30.0
PROMPT_FILE_LIMIT = 4 * 2**20
# Options that say where things are kept rather than what was measured.
_NOT_TOLD = frozenset(
    {"measurements", "measured_run", "progress_file", "key_file", "host", "url", "models"}
)

Entry = dict[str, Any]


class Session:
    """Everything between the options and the entries of a result."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params
        self.run_id = uuid.uuid4().hex[:8]
        self._started = time.time()
        self._ends_at = time.monotonic() + params["max_duration"]
        key = read_key(params["key_file"])
        self._headers = tuple(key_headers(key).items())
        self._key = key
        self.prompts = _prompts(params)
        self._writer = ProgressWriter(params["progress_file"])
        self._prepare = http_prepare(
            params["url"],
            ca_path=params["ca_path"],
            validate_certs=params["validate_certs"],
            headers=dict(self._headers),
        )
        self._calibrations: dict[int, Entry] = {}  # by streams at once
        # A controller that sends the requests sees neither the host's processors nor its GPUs.
        self._local = params["run_from"] == "target"

    def facts(self) -> dict[str, Any]:
        """Return what is measured: engine, digests, GPUs, prompts."""
        params = self._params
        models = [model["name"] for model in params["models"]]
        found: dict[str, Any] = {
            "engine": engine_facts(self._prepare, params["api"], models),
            "prompts": self.prompts,
            "gpus": [],
            "driver": "",
        }
        if self._local or params["measurements"] is not None:
            smi = shutil.which("nvidia-smi")
            if smi or params["gpu_python"]:
                gpus = read_gpus("auto", params["gpu_python"], smi, GPU_TIMEOUT_S, run_killable)
                found["gpus"], found["driver"] = gpu_names(gpus)
        return found

    def measure(self) -> tuple[list[tuple[Measurement, Entry]], dict[str, Any], list[Entry]]:
        """Measure every model under every load; return measurements, facts and sweeps."""
        params = self._params
        facts = self.facts()
        limits, trust = limits_of(params)
        known = Known(params, facts, limits, trust, {})
        pairs: list[tuple[Measurement, Entry]] = []
        sweeps: list[Entry] = []
        for model in params["models"]:
            name = model["name"]
            runner = self._runner()
            warmup = self._mask(runner.warm_up(name))
            if not params["sweep"]:
                pairs.append(
                    self._stage(runner, name, stage_of(params), index=0, warmup=warmup, known=known)
                )
                continue
            steps = self._sweep(runner, model, warmup, known)
            pairs += steps
            sweeps.append(self._summary(model, [entry for _measured, entry in steps]))
        return pairs, facts, sweeps

    def sweeps_from(self, entries: list[Entry]) -> list[Entry]:
        """Return the sweeps of what was measured elsewhere."""
        if not self._params["sweep"]:
            return []
        return [
            self._summary(model, [e for e in entries if e["model"] == model["name"]])
            for model in self._params["models"]
        ]

    def describe(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the file of a run says besides its entries."""
        params, engine = self._params, facts.get("engine") or {}
        return {
            "schema": SCHEMA,
            "run_id": self.run_id,
            "host": params["host"] or "",
            "url": params["url"],
            "engine": {"name": engine.get("name", ""), "version": engine.get("version", "")},
            "dialect": params["api"],
            "started_at": rfc3339(self._started),
            "seconds": round(time.time() - self._started, 1),
            "options": _told(params),
            "slo": {model["name"]: model["slo"] or {} for model in params["models"]},
            **_of_the_run(params["measured_run"]),
            "facts": {
                "gpus": list(facts.get("gpus") or []),
                "driver": facts.get("driver") or "",
                "digests": dict(engine.get("digests") or {}),
            },
        }

    # -- one model --------------------------------------------------------------------------------

    def _runner(self) -> Runner:
        params = self._params
        plan = Plan(
            setting=Setting(
                url=params["url"],
                dialect=params["api"],
                stream=params["stream"],
                timeout_s=params["timeout"],
                headers=self._headers,
                stall_ms=params["stall_ms"],
            ),
            prompts=Prompts(
                texts=self.prompts,
                tokens=params["prompt_tokens"],
                run_id=self.run_id,
                unique=params["unique_prompts"],
            ),
            max_tokens=params["num_predict"],
            think=params["think"],
            extra=params["extra_body"],
            warmup=params["warmup"],
            ends_at=self._ends_at,
        )
        address = address_of(params["url"], params["ca_path"], params["validate_certs"])
        return Runner(address, plan, self._tell)

    def _stage(
        self,
        runner: Runner,
        model: str,
        stage: Stage,
        *,
        index: int,
        warmup: list[Any],
        known: Known,
    ) -> tuple[Measurement, Entry]:
        params = self._params
        if warmup and warmup[-1].error_kind:  # it can't be measured, and would only fail again
            measured = Measurement(model, stage, warmup=warmup, not_sent=_expected(stage))
            measured.begun_at = warmup[0].started_at
            truth = {"engine": "none", "explained": "Nothing was measured."}
            entry = measured_entry(
                measured, calibration={}, server_truth=truth, timeline=None, known=known
            )
            return measured, entry
        calibration = self._calibration(stage, warmup)
        url, secure = params["url"], params["validate_certs"]
        get = getter(url, self._headers, params["ca_path"], secure)
        own_account = params["api"] in OLLAMA
        before = None if own_account else snapshot(get, model)
        sampler = self._sampler()
        sampler.start()
        try:
            measured = runner.run(model, stage, index)
        finally:
            sampler.stop()
        after = None if own_account else snapshot(get, model)
        measured.warmup = warmup
        measured.gpu_ratio = gpu_ratio(self._prepare, model)
        truth = server_truth(measured.samples, params["api"], before, after)
        timeline = sampler.timeline(measured) if params["sample_resources"] else None
        self._mask(measured.samples)
        entry = measured_entry(
            measured,
            calibration=calibration,
            server_truth=truth,
            timeline=timeline,
            known=known,
        )
        return measured, entry

    def _mask(self, samples: list[Sample]) -> list[Sample]:
        """Take the key out of what a server said; it may repeat it in an error."""
        for sample in samples if self._key else []:
            sample.error = sample.error.replace(self._key, "***")
        return samples

    def _sweep(
        self, runner: Runner, model: Mapping[str, Any], warmup: list[Any], known: Known
    ) -> list[tuple[Measurement, Entry]]:
        spec = self._params["sweep"]
        points: list[Entry] = []
        steps: list[tuple[Measurement, Entry]] = []
        while time.monotonic() < self._ends_at:
            value = next_value(points, spec)
            if value is None:
                break
            stage = stage_of(self._params, spec["over"], value)
            steps.append(
                self._stage(
                    runner, model["name"], stage, index=len(steps), warmup=warmup, known=known
                )
            )
            if steps[-1][1]["cut"]:
                break
            points.append(self._point(model, steps[-1][1], value))
            if warmup and warmup[-1].error_kind:
                break
        return steps

    def _point(self, model: Mapping[str, Any], entry: Entry, value: float) -> Entry:
        return point_of(
            value,
            entry["metrics"],
            requests=len(entry["samples"]) + entry["not_sent"],
            failed=sum(bool(s["error_kind"]) for s in entry["samples"]) + entry["not_sent"],
            slo=_sweep_slo(model["slo"]),
            rates=[
                s["tokens_per_s"]
                for s in entry["samples"]
                if not s["error_kind"] and s["tokens_per_s"] is not None
            ],
        )

    def _summary(self, model: Mapping[str, Any], entries: list[Entry]) -> Entry:
        spec = self._params["sweep"]
        points = [
            self._point(model, entry, float(entry["stage"][spec["over"]]))
            for entry in entries
            if not entry.get("cut")  # what the time cut short is nothing that the load broke
        ]
        return {"model": model["name"], **summarise(points, _sweep_slo(model["slo"]), spec)}

    def _calibration(self, stage: Stage, warmup: list[Any]) -> Entry:
        params = self._params
        if not params["calibrate"]:
            return {}
        latency = warmup[-1].latency_ms / 1e3 if warmup and warmup[-1].latency_ms else None
        places = places_of(stage, latency)
        if places not in self._calibrations:
            self._writer.update("the client", "calibrating")
            self._calibrations[places] = calibrate(
                places, params["api"], tls=params["url"].startswith("https")
            )
        return self._calibrations[places]

    def _sampler(self) -> Sampler:
        params = self._params
        if not params["sample_resources"]:
            return Sampler(Watch(local=False, url=""))
        return Sampler(
            Watch(
                step_s=params["sample_interval"],
                limit_s=params["max_duration"] + params["timeout"],
                local=self._local,
                gpu_python=params["gpu_python"] or "",
                smi=shutil.which("nvidia-smi") or "",
                url=params["url"],
                headers=self._headers,
                ca_path=params["ca_path"],
                validate_certs=params["validate_certs"],
            )
        )

    def _tell(self, progress: Progress) -> None:
        notes = []
        if progress.unit != "requests":
            notes.append(f"{progress.requests} requests")
        if progress.errors:
            notes.append(f"{progress.errors} errors")
        if progress.in_flight:
            notes.append(f"{progress.in_flight} in flight")
        if progress.ttft_ms is not None:
            notes.append(f"first token {progress.ttft_ms:.0f} ms")
        if progress.tokens_per_s is not None:
            notes.append(f"{progress.tokens_per_s:.1f} tokens/s")
        label = f" ({progress.label})" if progress.label else ""
        self._writer.update(
            f"{progress.model}{label}",
            progress.phase,
            progress.done,
            progress.total,
            unit=progress.unit,
            note=", ".join(notes),
        )


def _told(params: Mapping[str, Any]) -> Entry:
    """Return the options that say what was measured; what a request had besides may be secret."""
    told = {name: value for name, value in params.items() if name not in _NOT_TOLD}
    extra = params["extra_body"]
    told["extra_body"] = {"fields": sorted(extra), "digest": digest_of(extra)} if extra else {}
    return told


def _of_the_run(measured: Mapping[str, Any] | None) -> Entry:
    """Return the name and the times of a run that was measured elsewhere."""
    names = ("run_id", "started_at", "seconds")
    return {name: measured[name] for name in names if name in (measured or {})}


def _expected(stage: Stage) -> int:
    """Return how many requests a stage would have had; what a time ends is taken as one."""
    return 1 if stage.duration_s else stage.requests


def _sweep_slo(slo: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a model's objectives as a sweep takes them.

    ``target_throughput_rps`` and ``goodput_rps`` are none of them: a small load misses them by
    being small, and no larger one breaks them.
    """
    found = {name: value for name, value in (slo or {}).items() if value and name in OBJECTIVES}
    if (slo or {}).get("slo_percentile"):
        found["percentile"] = int(slo["slo_percentile"][1:])  # type: ignore[index]
    return found


def _prompts(params: Mapping[str, Any]) -> list[str]:
    """Return the prompts: those given, or the file's paragraphs.

    Raises:
        HostError: the file can't be read, or holds none.
    """
    path = params["prompt_file"]
    if not path:
        return list(params["prompts"])
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(PROMPT_FILE_LIMIT + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"{path} can't be read: {error}.", "Correct prompt_file.") from error
    if len(text) > PROMPT_FILE_LIMIT:
        raise HostError(f"{path} is larger than {PROMPT_FILE_LIMIT} characters.")
    found = [part.strip() for part in text.split("\n\n") if part.strip()]
    if not found:
        raise HostError(f"{path} holds no prompt, wanted paragraphs between empty lines.")
    return found
