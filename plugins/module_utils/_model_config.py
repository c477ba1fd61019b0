# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Reading environment files that name models, as people write them by hand.

The grammar is the common part of what a shell and systemd's ``EnvironmentFile=`` take, read with
patience: whatever can't be understood is reported with its line number and reason, and the rest
of the file still counts. The shell library ``model-config.sh`` reads the same grammar.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    WARN,
    Verdict,
    judge,
)

AVAILABLE = "OLLAMA_MODELS_AVAILABLE"
COUNT = "OLLAMA_MODELS_COUNT"
TOTAL_SIZE = "OLLAMA_MODELS_TOTAL_SIZE"
MODELS_DIR = "OLLAMA_MODELS"
INFORMATIONAL = (AVAILABLE, COUNT, TOTAL_SIZE)  # and the model variables: no engine reads them

_ASSIGNMENT = re.compile(r"^(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)$", re.DOTALL)
_MODEL_VARIABLE = re.compile(r"^(?:OLLAMA_)?MODEL_[A-Za-z0-9_]+$", re.IGNORECASE)
_MODEL_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/:-]*$")
_PIN = re.compile(r"^(.*)@sha256:([0-9a-fA-F]{6,64})$", re.DOTALL)
_SECRET = re.compile(
    r"(?:^|[^A-Za-z0-9])(?:api_?key|key|token|secret|passw(?:or)?d|pass|credential)s?"
    r"(?:[^A-Za-z0-9]|$)",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(r"(://)[^/\s@]+@")  # in addresses such as those of proxies
_BLANK = " \t\r\v\f"
_SHOWN_TEXT = 120


@dataclass(frozen=True)
class Problem:
    """A line that isn't what it should be."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True)
class Variable:
    """One variable that names a model."""

    name: str
    value: str
    line: int
    model: str
    pin: str = ""


@dataclass
class ModelConfig:
    """What an environment file says.

    Attributes:
        settings: every variable of the file with the value that counts (the last one).
        variables: the variables that name a model, in the order of the file.
        available: the entries of the list of available models, pins included.
        malformed: the lines that could not be read, or only in part.
        duplicates: names that are assigned more than once.
    """

    settings: dict[str, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    available: list[str] = field(default_factory=list)
    malformed: list[Problem] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)

    @property
    def only_in_variables(self) -> list[str]:
        """Models that have a variable but don't stand in the list."""
        listed = {split_pin(entry)[0] for entry in self.available}
        return _unique(item.model for item in self.variables if item.model not in listed)

    @property
    def only_in_available(self) -> list[str]:
        """Models that stand in the list but have no variable."""
        named = {item.model for item in self.variables}
        listed = (split_pin(entry)[0] for entry in self.available)
        return _unique(model for model in listed if model not in named)

    @property
    def pin_conflicts(self) -> list[str]:
        """Models that are pinned to two digests of which neither begins with the other."""
        pins: dict[str, str] = {}
        conflicts = []
        entries = [(item.model, item.pin) for item in self.variables]
        entries += [split_pin(entry) for entry in self.available]
        for model, pin in entries:
            if not pin:
                continue
            known = pins.setdefault(model, pin)
            if not (known.startswith(pin) or pin.startswith(known)):
                conflicts.append(model)
        return _unique(conflicts)


def is_model_variable(name: str) -> bool:
    """Tell whether a variable of this name stands for one model."""
    return bool(_MODEL_VARIABLE.match(name))


def is_informational(name: str) -> bool:
    """Tell whether a variable is for people and scripts alone and means nothing to the engine."""
    return name in INFORMATIONAL or is_model_variable(name)


def is_secret(name: str) -> bool:
    """Tell whether the value of a variable of this name should not be shown."""
    return bool(_SECRET.search(name))


def hide_credentials(text: str) -> str:
    """Return a text with the user and password in its addresses hidden."""
    return _CREDENTIALS.sub(r"\1(hidden)@", text)


def split_pin(entry: str) -> tuple[str, str]:
    """Split ``name[:tag][@sha256:<hex>]`` into the full model name and the digest's beginning."""
    match = _PIN.match(entry)
    name, pin = (match.group(1), match.group(2).lower()) if match else (entry, "")
    return full_name(name), pin


def full_name(name: str) -> str:
    """Return a model's name with its tag; without one it means ``latest``."""
    if not name or ":" in name.rsplit("/", 1)[-1]:
        return name
    return f"{name}:latest"


def is_model_name(name: str) -> bool:
    """Tell whether a text can be the name of a model."""
    return bool(_MODEL_NAME.match(name)) and len(name) <= 255


def parse(content: bytes | str) -> ModelConfig:
    """Read the content of an environment file; never fails, whatever it is given."""
    text = content.decode("utf-8", errors="replace") if isinstance(content, bytes) else content
    config = ModelConfig()
    models: dict[str, Variable] = {}
    seen: set[str] = set()
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.replace("\0", "").lstrip("\ufeff").strip(_BLANK)
        if not line or line[0] in "#;":
            continue
        match = _ASSIGNMENT.match(line)
        if not match:
            config.malformed.append(_problem(number, line, _why_no_assignment(line)))
            continue
        name = match.group(1)
        value, reason = read_value(match.group(2))
        if reason:
            config.malformed.append(_problem(number, line, reason))
        if value is None:
            continue
        if name in seen and name not in config.duplicates:
            config.duplicates.append(name)
        seen.add(name)
        config.settings[name] = value
        if is_model_variable(name):
            _take_model(config, models, Variable(name, value, number, *split_pin(value)), line)
    config.variables = [variable for variable in models.values() if variable.value]
    listed = config.settings.get(AVAILABLE, "")
    config.available = [entry for entry in (part.strip() for part in listed.split(",")) if entry]
    return config


def _take_model(
    config: ModelConfig, models: dict[str, Variable], variable: Variable, line: str
) -> None:
    models[variable.name] = variable
    if not variable.value:
        config.malformed.append(_problem(variable.line, line, "names no model"))
    elif not is_model_name(variable.model):
        config.malformed.append(_problem(variable.line, line, "is not the name of a model"))


def read_value(text: str) -> tuple[str | None, str]:
    """Return the value in what follows the ``=``, and what is wrong with it.

    Without quotes a comment starts at a ``#`` after white space; within quotes there are none.
    The value is ``None`` when it can't be told where it ends.
    """
    if not text or text[0] not in "\"'":
        return _read_bare(text)
    quote, value, position = text[0], "", 1
    while position < len(text):
        char = text[position]
        if char == quote:
            rest = text[position + 1 :].strip(_BLANK)
            if rest and not rest.startswith("#"):
                return None, "has text after the closing quote"
            return value, ""
        if char == "\\" and quote == '"' and text[position + 1 : position + 2] in tuple('"\\$`'):
            position += 1
            char = text[position]
        value += char
        position += 1
    return None, "has no closing quote"


def _read_bare(text: str) -> tuple[str, str]:
    if text.startswith("#"):
        return "", ""
    value = re.split(r"[ \t]#", text, maxsplit=1)[0].rstrip(_BLANK)
    if re.search(r"[ \t]", value):
        return value, "has white space but no quotes"
    return value, ""


def _why_no_assignment(line: str) -> str:
    if "=" not in line:
        return "has no '='"
    return "has no valid variable name before the '='"


def _problem(number: int, line: str, reason: str) -> Problem:
    words = re.match(r"(?:export[ \t]+)?[A-Za-z0-9_]*", line)
    text = f"{words.group(0) if words else ''} (hidden)" if is_secret(line) else line
    shown = hide_credentials(text)
    printable = "".join(char if char.isprintable() else "?" for char in shown)
    return Problem(number, printable[:_SHOWN_TEXT], reason)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def shown_settings(settings: dict[str, str]) -> dict[str, str]:
    """Return the variables of a file with the values of secrets hidden."""
    return {
        name: "(hidden)" if value and is_secret(name) else hide_credentials(value)
        for name, value in settings.items()
    }


def cross_check(
    config: ModelConfig,
    *,
    subject: str,
    expected: Sequence[str] | None = None,
    models_dir: str = "",
) -> list[Verdict]:
    """Judge whether the file agrees with itself and with what is declared.

    Args:
        config: the file as it was read.
        subject: the file's path, named in every verdict.
        expected: names of the models that the file must name; ``None`` leaves this out.
        models_dir: the directory that ``OLLAMA_MODELS`` must hold; empty leaves this out.
    """
    listed = [split_pin(entry)[0] for entry in config.available]
    named = _unique(item.model for item in config.variables)
    differences = [f"{model} has no entry in {AVAILABLE}" for model in config.only_in_variables]
    differences += [f"{model} has no variable" for model in config.only_in_available]
    differences += [f"{model} is pinned to two digests" for model in config.pin_conflicts]
    verdicts = [
        judge(
            "model_lists_agree",
            not differences,
            subject=subject,
            value=named,
            limit=_unique(listed),
            evidence="; ".join(differences)
            or f"the model variables and {AVAILABLE} name the same {len(named)} models",
        ),
        _count_verdict(config, subject, len(_unique(listed))),
        judge(
            "env_file_lines",
            not config.malformed,
            subject=subject,
            value=len(config.malformed),
            limit=0,
            unit="malformed lines",
            evidence="; ".join(f"line {item.line} {item.reason}" for item in config.malformed[:5])
            or "every line could be read",
            otherwise=WARN,
        ),
        _duplicates_verdict(config, subject, listed),
    ]
    if expected is not None:
        wanted = _unique(split_pin(name)[0] for name in expected)
        verdicts.append(
            judge(
                "env_file_catalog",
                sorted(named) == sorted(wanted),
                subject=subject,
                value=named,
                limit=wanted,
                evidence="models named by the variables against the declared catalog",
            )
        )
    if models_dir:
        found = config.settings.get(MODELS_DIR, "")
        verdicts.append(
            judge(
                "env_file_models_dir",
                found.rstrip("/") == models_dir.rstrip("/"),
                subject=subject,
                value=found,
                limit=models_dir,
                evidence=f"value of {MODELS_DIR}",
            )
        )
    return verdicts


def _count_verdict(config: ModelConfig, subject: str, listed: int) -> Verdict:
    written = config.settings.get(COUNT)
    return judge(
        "model_count",
        written == str(listed),
        subject=subject,
        value=written,
        limit=listed,
        evidence=f"{COUNT} against the entries of {AVAILABLE}"
        if written is not None
        else f"{COUNT} is not set",
        otherwise=FAIL if written is not None else WARN,
    )


def _duplicates_verdict(config: ModelConfig, subject: str, listed: Sequence[str]) -> Verdict:
    named = [item.model for item in config.variables]
    twice = [f"{name} is assigned twice" for name in config.duplicates]
    twice += [f"{model} is listed twice" for model in _repeated(listed)]
    twice += [f"{model} has two variables" for model in _repeated(named)]
    return judge(
        "env_file_duplicates",
        not twice,
        subject=subject,
        value=len(twice),
        limit=0,
        evidence="; ".join(twice[:5]) or "nothing is named twice",
        otherwise=WARN,
    )


def _repeated(names: Sequence[str]) -> list[str]:
    return _unique(name for name in names if names.count(name) > 1)


def describe(config: ModelConfig) -> dict[str, Any]:
    """Return a file's content in the form that module results carry."""
    return {
        "available": list(config.available),
        "variables": [vars(item).copy() for item in config.variables],
        "only_in_variables": config.only_in_variables,
        "only_in_available": config.only_in_available,
        "duplicates": list(config.duplicates),
        "malformed": [vars(item).copy() for item in config.malformed],
        "settings": shown_settings(config.settings),
    }
