# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Checking a host's declaration before anything is done with it; finds all problems at once."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import ARGUMENT_SPEC
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    EXAMPLE,
    ModelName,
    name_problem,
    parse_name,
    pin_problem,
)

ENGINES = ("ollama",)
LATER_ENGINES = ("vllm",)
MODEL_FIELDS = ("name", "digest", "source", "insecure", "update", "slo")
GPU_FIELDS = (
    "count",
    "name",
    "names",
    "uuids",
    "driver_min",
    "driver_pin",
    "cuda_min",
    "temperature_max_c",
)
OBJECTIVES = ARGUMENT_SPEC["models"]["options"]["slo"]["options"]
PATHS = ("base_dir", "models_dir", "store_dir", "bulk_mount")

_NAME = f'a model name such as "{EXAMPLE}"'
_DIGEST = "12 to 64 hexadecimal digits, as `ollama list` shows them"
_VERSION = re.compile(r"\d+(\.\d+)*")
_MISSING = object()


class Problem(NamedTuple):
    """One thing that is wrong with a declaration."""

    host: str
    field: str
    found: str
    wanted: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.host}: {self.field}: found {self.found}, wanted {self.wanted}"


def validate(host: str, declaration: Mapping[str, Any]) -> list[Problem]:
    """Return everything that is wrong with a host's declaration.

    Args:
        host: name of the host, for the messages.
        declaration: the declared variables without the prefix ``llm_``; what is left out or None
            is not checked.
    """
    given = {key: value for key, value in declaration.items() if value is not None}
    found: list[tuple[str, Any, str]] = []
    if "engine" in given:
        found += _engine(given["engine"])
    found += _models(given.get("models", []), given.get("models_forbidden", []))
    found += _gpus(given.get("gpus", {}))
    found += _paths(given)
    found += _device(given.get("bulk_device", ""))
    return [Problem(host, f"llm_{field}", _say(value), wanted) for field, value, wanted in found]


def _engine(engine: Any) -> Iterator[tuple[str, Any, str]]:
    if engine in ENGINES:
        return
    wanted = " or ".join(ENGINES)
    if engine in LATER_ENGINES:
        wanted += "; this version has no roles for that engine yet"
    yield "engine", engine, wanted


def _models(models: Any, forbidden: Any) -> Iterator[tuple[str, Any, str]]:
    seen: dict[str, str] = {}
    for index, entry in enumerate(_listed(models)):
        field = f"models[{index}]"
        if not isinstance(entry, Mapping):
            yield field, entry, f'a dictionary such as {{name: "{EXAMPLE}"}}'
            continue
        yield from _model(field, entry)
        name = _name(entry.get("name"))
        if name and name.key in seen:
            yield f"{field}.name", entry["name"], f"each model once, it is {seen[name.key]} already"
        elif name:
            seen[name.key] = field
    for index, text in enumerate(_listed(forbidden)):
        field = f"models_forbidden[{index}]"
        name = _name(text)
        if name is None:
            yield field, _nothing(text), _NAME
        elif name.key in seen:
            yield field, text, f"a model that is not declared, it is {seen[name.key]}"
    for field, value in (("models", models), ("models_forbidden", forbidden)):
        if not isinstance(value, (list, tuple)):
            yield field, value, "a list"


def _model(field: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    text = _nothing(entry.get("name"))
    if _name(text) is None:
        wanted = _NAME
        if isinstance(text, str) and "@" in text:
            wanted += "; a digest goes into the field digest"
        yield f"{field}.name", text, wanted
    digest = _nothing(entry.get("digest"))
    if digest is not _MISSING and (not isinstance(digest, str) or pin_problem(digest)):
        yield f"{field}.digest", digest, _DIGEST
    source = _nothing(entry.get("source"))
    if source is not _MISSING and _name(source) is None:
        yield f"{field}.source", source, "a full name host[:port]/namespace/model:tag"
    for key in ("insecure", "update"):
        if not isinstance(entry.get(key, False), bool):
            yield f"{field}.{key}", entry[key], "true or false"
    yield from _slo(f"{field}.slo", entry.get("slo") or {})
    for key in entry:
        if key not in MODEL_FIELDS:
            yield f"{field}.{key}", entry[key], f"one of the fields {', '.join(MODEL_FIELDS)}"


def _slo(field: str, slo: Any) -> Iterator[tuple[str, Any, str]]:
    if not isinstance(slo, Mapping):
        yield field, slo, "a dictionary such as {ttft_ms: 6000}"
        return
    for key, value in slo.items():
        choices = OBJECTIVES.get(key, {}).get("choices")
        if key not in OBJECTIVES:
            yield f"{field}.{key}", value, f"one of the objectives {', '.join(OBJECTIVES)}"
        elif choices:
            if value not in choices:
                yield f"{field}.{key}", value, f"one of {', '.join(choices)}"
        elif not _is_number(value) or value <= 0:
            yield f"{field}.{key}", value, "a number above 0"


def _gpus(gpus: Any) -> Iterator[tuple[str, Any, str]]:
    if not isinstance(gpus, Mapping):
        yield "gpus", gpus, 'a dictionary such as {count: 2, driver_min: "575.64.03"}'
        return
    count = gpus.get("count", 0)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        yield "gpus.count", count, "a number of GPUs, 0 or more"
    if not isinstance(gpus.get("name", ""), str):
        yield "gpus.name", gpus["name"], "a text that the GPUs' names contain"
    for key, example in (("names", "RTX 4070 Ti"), ("uuids", "GPU-5d8bb7a4-...")):
        value = gpus.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            yield f"gpus.{key}", value, f'a list of texts such as ["{example}"]'
    versions = (("driver_min", "575.64.03"), ("driver_pin", "575.64.03"), ("cuda_min", "12.9"))
    for key, example in versions:
        value = gpus.get(key, example)
        if not isinstance(value, str) or not _VERSION.fullmatch(value):
            wanted = f'a version in quotes such as "{example}"'
            yield f"gpus.{key}", _nothing(value), wanted
    limit = gpus.get("temperature_max_c", 1)
    if not _is_number(limit) or limit <= 0:
        yield "gpus.temperature_max_c", limit, "a number of degrees Celsius above 0"
    for key in gpus:
        if key not in GPU_FIELDS:
            yield f"gpus.{key}", gpus[key], f"one of the fields {', '.join(GPU_FIELDS)}"


def _paths(given: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    good = {}
    for key in PATHS:
        value = given.get(key, "")
        if value == "":
            continue
        if not _is_path(value):
            yield key, value, "an absolute path without '..', '//' and a '/' at its end"
        else:
            good[key] = value
    store, models = good.get("store_dir"), good.get("models_dir")
    mount, base = good.get("bulk_mount"), good.get("base_dir")
    if models and models == mount:
        yield "models_dir", models, "a path of its own, it is llm_bulk_mount"
    elif store and models and (_inside(models, store) or _inside(store, models)):
        yield "models_dir", models, f"a path neither above nor below llm_store_dir ({store})"
    if store and store == mount:
        yield "store_dir", store, "a directory below llm_bulk_mount, not the mount point"
    if store and base and (base == store or _inside(base, store)):
        yield "base_dir", base, f"a path outside llm_store_dir ({store})"
    if store and mount and _inside(mount, store):
        yield "bulk_mount", mount, f"a path outside llm_store_dir ({store})"


def _device(device: Any) -> Iterator[tuple[str, Any, str]]:
    if device == "" or (_is_path(device) and device.startswith("/dev/")):
        return
    yield "bulk_device", device, "a device below /dev, such as /dev/disk/by-uuid/..."


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _name(text: Any) -> ModelName | None:
    return parse_name(text) if isinstance(text, str) and not name_problem(text) else None


def _nothing(value: Any) -> Any:
    return _MISSING if value is None or value == "" else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_path(value: Any) -> bool:
    return (
        isinstance(value, str)
        and value.startswith("/")
        and value == posixpath.normpath(value)
        and not value.startswith("//")
        and value != "/"
    )


def _inside(path: str, directory: str) -> bool:
    return path.startswith(f"{directory}/")


def _say(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    return json.dumps(value, ensure_ascii=False, default=str)
