# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""From declarations to measurements: which endpoints a host has, and which loads each is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import ARGUMENT_SPEC
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

APIS = {"ollama": "ollama_generate", "vllm": "openai_chat"}
WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
OBJECTIVES = tuple(ARGUMENT_SPEC["models"]["options"]["slo"]["options"])
# What one client alone can't reach, and what a sweep misses at its first steps.
OF_A_CROWD = ("target_throughput_rps", "goodput_rps")
# What changes the cost of a request: a first baseline is of the module's own defaults.
OF_A_REQUEST = (
    "extra_body",
    "num_predict",
    "prompt_file",
    "prompt_tokens",
    "prompts",
    "stream",
    "think",
    "unique_prompts",
)
# The options of the module that make up a load and how it is judged.
LOAD = (
    "arrival",
    "calibrate",
    "concurrency",
    "cv_limit",
    "duration",
    "error_limit",
    "extra_body",
    "iterations",
    "loop_lag_limit_ms",
    "max_duration",
    "min_samples",
    "num_predict",
    "overhead_limit_ms",
    "prompt_file",
    "prompt_tokens",
    "prompts",
    "rate",
    "sample_interval",
    "sample_resources",
    "seed",
    "stall_ms",
    "stream",
    "sweep",
    "think",
    "timeout",
    "unique_prompts",
    "warmup",
)


def endpoints(
    host: str,
    engine: str,
    declared: Mapping[str, Any],
    chosen: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return a host's endpoints with the models that are to be measured there.

    Args:
        host: its name, for messages.
        engine: ``ollama`` or ``vllm``.
        declared: ``models`` (the catalog), ``url`` of Ollama, ``services`` of vLLM, ``address``
            that they listen on unless they say otherwise, ``keys`` (the directory with their
            keys; empty without), ``api`` and ``slo`` that replace what is declared.
        chosen: names of models; empty for all that are declared.

    Returns:
        Endpoints with ``name``, ``url``, ``api``, ``key_file`` and ``models``, each with ``name``
        and ``slo``.

    Raises:
        HostError: the engine is none, or the host declares no such model.
    """
    if engine not in APIS:
        raise HostError(f"{host}: llm_benchmark_engine is '{engine}', wanted ollama or vllm.")
    found = list(_ollama(declared) if engine == "ollama" else _vllm(host, declared))
    known = [model["name"] for endpoint in found for model in endpoint["models"]]
    names = [name for endpoint in found for name in endpoint.pop("aliases")]
    missing = [name for name in chosen if name not in names]
    if missing or not known:
        where = "llm_models" if engine == "ollama" else "llm_vllm_services"
        raise HostError(
            f"{host}: {where} declares {', '.join(known) or 'nothing'}, wanted"
            f" {', '.join(missing) or 'at least one model'} to measure on {engine}."
        )
    for endpoint in found:
        endpoint["api"] = declared.get("api") or APIS[engine]
        wanted = []
        for model in endpoint["models"]:
            served = model.pop("served")
            # A model with several names is measured under the one that was asked for.
            name = next((item for item in chosen if item in served), None)
            if chosen and name is None:
                continue
            slo = {**model["slo"], **(declared.get("slo") or {})}
            wanted.append({"name": name or model["name"], "slo": _objectives(slo)})
        endpoint["models"] = wanted
    return [endpoint for endpoint in found if endpoint["models"]]


def _ollama(declared: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    models = [
        {"name": model["name"], "served": [model["name"]], "slo": model.get("slo") or {}}
        for model in declared.get("models") or []
    ]
    yield {
        "name": "ollama",
        "url": declared["url"],
        "key_file": "",
        "models": models,
        "aliases": [model["name"] for model in models],
    }


def _vllm(host: str, declared: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in declared.get("services") or []:
        service, model = entry.get("service") or {}, entry.get("model") or {}
        group = (service.get("group") or {}).get("hosts") or [host]
        if group[0] != host:  # the first host of a group answers for all
            continue
        name = str(entry["name"])
        served = [str(item) for item in model.get("served_names") or [name]]
        performance = entry.get("performance") or {}
        slo = {
            "latency_ms": performance.get("target_latency_ms"),
            "target_throughput_rps": performance.get("target_throughput_rps"),
        }
        keys = declared.get("keys") or ""
        yield {
            "name": name,
            "url": f"http://{_reached(service, declared)}:{service['port']}",
            "key_file": f"{keys}/{name}.key.env" if keys else "",
            "models": [{"name": served[0], "served": served, "slo": slo}],
            "aliases": served,
        }


def _reached(service: Mapping[str, Any], declared: Mapping[str, Any]) -> str:
    """Return where a service is reached on its host; one that stands for all, by the loopback."""
    address = str(service.get("host") or declared.get("address") or "").strip("[]")
    if address in WILDCARDS:
        return "127.0.0.1"
    return f"[{address}]" if ":" in address else address


def _objectives(slo: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in slo.items() if name in OBJECTIVES and value is not None}


def series(
    ends: Sequence[Mapping[str, Any]],
    preset: str,
    presets: Mapping[str, Sequence[Mapping[str, Any]]],
    load: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return the measurements of a preset: each of its loads on each endpoint.

    Args:
        ends: endpoints, as ``endpoints`` returns them; ``elsewhere`` where the URL is not that of
            the host's own server.
        preset: name of one of ``presets``.
        presets: loads by name, each a list of options of the module.
        load: options that replace those of the preset.

    Returns:
        Measurements with ``label``, ``url``, ``api``, ``key_file``, ``models``, ``options``,
        ``sequential`` (one plain request at a time to the host's own server, the load that first
        baselines are of) and ``swept``.

    Raises:
        HostError: there is no such preset, or an option that makes up no load.
    """
    if preset not in presets:
        raise HostError(f"the preset is '{preset}', wanted one of {', '.join(sorted(presets))}.")
    strange = sorted(set(load) - set(LOAD))
    if strange:
        raise HostError(
            f"the load says {', '.join(strange)}, wanted options of inference_benchmark that make"
            f" up a load: {', '.join(LOAD)}."
        )
    loads: list[dict[str, Any]] = []
    for step in presets[preset]:
        options = _merged(step, load)
        if options not in loads:  # what was asked for may make two steps the same
            loads.append(options)
    found = []
    for end in ends:
        for options in loads:
            swept = bool(options.get("sweep"))
            alone = _alone(options)
            found.append(
                {
                    "label": _label(end, options, preset if len(loads) == 1 else ""),
                    "url": end["url"],
                    "api": end.get("api") or APIS["ollama"],
                    "key_file": end.get("key_file") or "",
                    "models": [_judged(model, alone or swept) for model in end["models"]],
                    "options": options,
                    "sequential": alone and not end.get("elsewhere") and _plain(options),
                    "swept": swept,
                }
            )
    return found


def _merged(step: Mapping[str, Any], load: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step with what was asked for; what that leaves no room for goes."""
    options = dict(step)
    if load.get("prompts") or load.get("prompt_file"):
        options.pop("prompt_tokens", None)
    if load.get("rate") or load.get("sweep") or load.get("concurrency"):
        for name in ("rate", "sweep", "concurrency"):
            options.pop(name, None)
    if load.get("duration"):
        options.pop("iterations", None)
    options.update({name: _typed(name, value) for name, value in load.items()})
    if "cv_limit" not in load:
        # Clients that share a GPU slow each other down, so that variation says nothing there.
        if not _alone(options):
            options["cv_limit"] = 0
        elif not _alone(step):
            options.pop("cv_limit", None)
    return options


def _alone(options: Mapping[str, Any]) -> bool:
    """Return whether one request is sent at a time, each when the one before is answered."""
    if options.get("sweep") or options.get("rate"):
        return False
    return int(options.get("concurrency") or 1) == 1


def _plain(options: Mapping[str, Any]) -> bool:
    """Return whether a request is what the module sends unless told otherwise."""
    for name in OF_A_REQUEST:
        usual = ARGUMENT_SPEC[name].get("default")
        if options.get(name, usual) not in (usual, None):
            return False
    return True


def _typed(name: str, value: Any) -> Any:
    """Return a number that came as text as a number; ``-e name=value`` gives texts."""
    kind = {"int": int, "float": float}.get(ARGUMENT_SPEC[name]["type"])
    if kind is None or not isinstance(value, str):
        return value
    try:
        return kind(value)
    except ValueError:
        word = "a whole number" if kind is int else "a number"
        raise HostError(f"the load's {name} is '{value}', wanted {word}.") from None


def _judged(model: Mapping[str, Any], alone: bool) -> dict[str, Any]:
    slo = model.get("slo") or {}
    kept = {name: value for name, value in slo.items() if not (alone and name in OF_A_CROWD)}
    return {"name": model["name"], "slo": kept}


def _label(end: Mapping[str, Any], options: Mapping[str, Any], preset: str) -> str:
    told = [str(end.get("name") or end["url"])]
    if preset:
        told.append(preset)
    elif options.get("sweep"):
        told.append("sweep")
    elif options.get("prompt_tokens"):
        told.append(f"prompts of {options['prompt_tokens']} tokens")
    return ", ".join(told)
