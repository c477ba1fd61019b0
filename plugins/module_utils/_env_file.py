# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The canonical environment file of the Ollama service, rendered from the model catalog.

The text means the same to systemd's ``EnvironmentFile=`` and to a shell that sources it: one
assignment a line, double quotes, and comments on lines of their own, because systemd takes
a comment behind a value for a part of the value.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_config import (
    AVAILABLE,
    COUNT,
    INFORMATIONAL,
    MODELS_DIR,
    TOTAL_SIZE,
    full_name,
    hide_credentials,
    is_model_name,
    is_model_variable,
    is_secret,
)

HOST = "OLLAMA_HOST"
MANAGED = (MODELS_DIR, HOST, *INFORMATIONAL)
REGISTRY = "# Model registry"
SIZE = "# Size:"
UNKNOWN = "unknown"

_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_DIGEST = re.compile(r"^(?:sha256:)?([0-9a-f]{6,64})$")
_SHORT = 12


@dataclass(frozen=True)
class Model:
    """One model of the catalog, as the environment file shows it."""

    name: str
    size_bytes: int | None = None
    digest: str = ""


@dataclass(frozen=True)
class Settings:
    """What the environment file says besides the models."""

    models_dir: str
    host: str
    extra: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)


def human_size(size_bytes: int) -> str:
    """Say a size as people write it in these files: decimal units, ``2.0GB``, ``15GB``."""
    value, unit = float(size_bytes), "B"
    for larger in ("KB", "MB", "GB", "TB", "PB"):
        if round(value, 1) < 1000:
            break
        value, unit = value / 1000, larger
    if unit == "B":
        return f"{size_bytes}B"
    text = f"{value:.1f}"
    return (text[:-2] if value >= 10 and text.endswith(".0") else text) + unit


def model_variables(names: Sequence[str]) -> dict[str, str]:
    """Give each model its variable: ``llama3.2:3b`` becomes ``MODEL_LLAMA3_2_3B``.

    The tag ``latest`` is left out. Where two models would get the same variable, each of them
    gets the first digits of its name's hash behind it, so that the order doesn't matter.
    """
    plain = {name: _variable(name) for name in names}
    taken: dict[str, int] = {}
    for variable in plain.values():
        taken[variable] = taken.get(variable, 0) + 1
    result = {}
    for name, variable in plain.items():
        digits = hashlib.sha256(full_name(name).encode()).hexdigest()[:8].upper()
        result[name] = f"{variable}_{digits}" if taken[variable] > 1 else variable
    return result


def _variable(name: str) -> str:
    full = full_name(name)
    base = full[: -len(":latest")] if full.endswith(":latest") else full
    return "MODEL_" + re.sub(r"[^A-Z0-9]+", "_", base.upper()).strip("_")


def read_models(entries: Iterable[Mapping[str, Any]], host: str) -> list[Model]:
    """Check the catalog's entries and return them as models."""
    models = []
    for number, entry in enumerate(entries, start=1):
        name = str(entry.get("name") or "").strip()
        if not is_model_name(name):
            raise HostError(
                f"{host}: models entry {number} has the name {name!r}, "
                "wanted a model name such as llama3.2:3b.",
                "Correct the entry in the catalog.",
            )
        size = entry.get("size_bytes")
        if size is not None and size < 0:
            raise HostError(f"{host}: model {name} has size_bytes {size}, wanted 0 or more.")
        models.append(Model(name, size, _digest(str(entry.get("digest") or ""), name, host)))
    for index, model in enumerate(models):
        if any(full_name(other.name) == full_name(model.name) for other in models[:index]):
            raise HostError(
                f"{host}: model {model.name} is listed twice, wanted once.",
                "Remove one of the entries from the catalog.",
            )
    return models


def _digest(text: str, name: str, host: str) -> str:
    match = _DIGEST.match(text.lower())
    if text and not match:
        raise HostError(
            f"{host}: model {name} has the digest {text!r}, wanted 6 to 64 hexadecimal digits.",
            "Take the digest that 'ollama list' shows.",
        )
    return match.group(1) if match else ""


def read_extra(extra: Mapping[str, Any], host: str) -> dict[str, str]:
    """Check further settings and return their values as text."""
    settings = {}
    for name, value in extra.items():
        check_name(name, "extra", host)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        check_value(name, text, host)
        settings[name] = text
    return settings


def check_name(name: str, option: str, host: str) -> None:
    """Refuse a name that is no variable name, or one that the catalog decides about."""
    if not _NAME.match(name):
        raise HostError(
            f"{host}: {option} names {name!r}, wanted the name of an environment variable."
        )
    if name in MANAGED or is_model_variable(name):
        raise HostError(
            f"{host}: {option} names {name}, which is rendered from the model catalog.",
            "Remove it there and declare the models, models_dir or host instead.",
        )


def check_value(name: str, value: str, host: str) -> None:
    """Refuse a value that an environment file can't hold on one line."""
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise HostError(f"{host}: the value of {name} holds a line end or a control character.")


def total_size(models: Sequence[Model]) -> str:
    """Return the size of all models together, or ``unknown`` when one has no size."""
    sizes = [model.size_bytes for model in models if model.size_bytes is not None]
    return human_size(sum(sizes)) if len(sizes) == len(models) else UNKNOWN


def render(models: Sequence[Model], settings: Settings) -> str:
    """Return the environment file's text; the same input always gives the same text."""
    lines = [
        "# Environment of the Ollama service.",
        "# Rendered from the model catalog by hx_infra.llm.ollama_env: change the catalog,",
        "# not this file.",
        "",
        _assign(MODELS_DIR, settings.models_dir),
        _assign(HOST, settings.host),
    ]
    lines += _section("Further settings", settings.extra)
    lines += _section("Kept from the file that stood here before", settings.kept)
    return "\n".join([*lines, "", *registry(models)]) + "\n"


def registry(models: Sequence[Model]) -> list[str]:
    """Return the lines that say which models there are, from the heading on."""
    lines = [REGISTRY]
    variables = model_variables([model.name for model in models])
    for model in models:
        lines += [_size_comment(model), _assign(variables[model.name], model.name)]
    names = ",".join(model.name for model in models)
    return [
        *lines,
        "",
        _assign(AVAILABLE, names),
        f"{COUNT}={len(models)}",
        _assign(TOTAL_SIZE, total_size(models)),
    ]


def _size_comment(model: Model) -> str:
    size = UNKNOWN if model.size_bytes is None else human_size(model.size_bytes)
    digest = f", digest {model.digest[:_SHORT]}" if model.digest else ""
    return f"{SIZE} {size}{digest}"


def _section(title: str, settings: Mapping[str, str]) -> list[str]:
    if not settings:
        return []
    return ["", f"# {title}"] + [_assign(name, settings[name]) for name in sorted(settings)]


def _assign(name: str, value: str) -> str:
    escaped = re.sub(r'([\\"$`])', r"\\\1", value)
    return f'{name}="{escaped}"'


def hide_secrets(text: str) -> str:
    """Return a file's text for a diff, with the values of secrets hidden."""
    lines = []
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals and value.strip() and is_secret(name.strip(" \t#")):
            lines.append(f"{name}=(hidden)")
        elif not equals and is_secret(line) and not line.lstrip().startswith(("#", ";")):
            lines.append("(hidden)")
        else:
            lines.append(hide_credentials(line))
    return "\n".join(lines)
