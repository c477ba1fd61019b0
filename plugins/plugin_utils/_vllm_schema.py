# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Judge declared vLLM services by their JSON schema, on the controller.

Every problem of every service is told at once, with the field, what was found and what is allowed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

try:
    import jsonschema
except ImportError as error:
    IMPORT_ERROR: ImportError | None = error
else:
    IMPORT_ERROR = None

SCHEMA = Path(__file__).with_name("schemas") / "vllm_service.schema.json"
# Said in place of a pattern, which nobody reads.
WORDS = {
    "name": "1 to 48 of a-z, 0-9, '.', '_' and '-', not at the ends",
    "host": "an address or a host name",
    "memory_max": "a number with K, M, G or T, such as 32G",
    "cpu_quota": "percent of one core, such as 400%",
    "path": "an absolute path of letters, digits and ._+@=,~- without a slash at its end",
    "chat_template": "an absolute path of letters, digits and ._+@=,~-",
    "manifest": "the absolute path of a file that sha256sum wrote",
    "hub": "<organisation>/<model>",
    "revision": "a commit of 40 hexadecimal digits, so that the files can't change",
    "archive": "an absolute path or an https address (http with insecure: true)",
    "sha256": "64 hexadecimal digits",
    "files": "file names with the SHA-256 of each",
    "served_names": "letters, digits and ._:/@-, such as llama3.2:3b",
    "hosts": "names of inventory hosts",
    "trust_remote_code": "a mapping with the reason, such as {reason: reviewed at commit ...}",
}
SHOWN = 80


def load() -> dict[str, Any]:
    """Return the schema of one service."""
    schema: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return schema


def problems(services: Any) -> list[dict[str, str]]:
    """Return every problem of a list of declared services.

    Each has ``service``, ``field``, ``found`` and ``allowed``.
    """
    if not isinstance(services, list):
        return [_problem("", "", services, "a list of services")]
    validator = jsonschema.Draft202012Validator(load())
    result = []
    for number, service in enumerate(services):
        label = _label(service, number)
        errors = sorted(
            validator.iter_errors(service), key=lambda error: list(map(str, error.path))
        )
        for error in errors:
            result += [item for item in _explain(label, error) if item not in result]
    return result


def _label(service: Any, number: int) -> str:
    name = service.get("name") if isinstance(service, dict) else None
    return name if isinstance(name, str) and name else f"#{number + 1}"


def _explain(label: str, error: Any) -> Iterable[dict[str, str]]:
    """Turn one error of the library into problems that name the field."""
    path = ".".join(str(part) for part in error.absolute_path)
    keyword, schema = error.validator, error.schema
    if keyword == "additionalProperties" and error.validator_value is False:
        known = sorted(schema["properties"])
        for name in sorted(set(map(str, error.instance)) - set(known)):
            yield _unknown(label, _join(path, name), error.instance.get(name), name, known)
    elif keyword == "required":
        for name in error.validator_value:
            if name not in error.instance:
                yield _missing(label, _join(path, name), schema["properties"].get(name, {}))
    elif keyword == "dependentRequired":
        for trigger, names in error.validator_value.items():
            for name in names if trigger in error.instance else ():
                if name not in error.instance:
                    yield _missing(label, _join(path, name), schema["properties"][name])
    elif keyword == "oneOf":
        names = [item["required"][0] for item in error.validator_value]
        found = [name for name in names if name in error.instance]
        text = " and ".join(found) if found else "none of them"
        yield _raw(label, path, text, f"exactly one of {', '.join(names)}")
    elif error.parent is None and "propertyNames" in error.absolute_schema_path:
        yield _problem(label, path, error.instance, _allowed_name(path))
    else:
        yield _problem(label, path, error.instance, _allowed(error))


def _allowed_name(path: str) -> str:
    if path == "service.environment":
        return "names of variables in capitals"
    if path == "extra_args":
        return "names of flags without leading dashes"
    return WORDS.get(path.rsplit(".", 1)[-1], "a plain name")


def _missing(label: str, path: str, schema: dict[str, Any]) -> dict[str, str]:
    wanted = WORDS.get(path.rsplit(".", 1)[-1]) or _type_words(schema)
    return _raw(label, path, "nothing", wanted)


def _unknown(label: str, path: str, value: Any, name: str, known: list[str]) -> dict[str, str]:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    meant = f"; did you mean {near[0]}?" if near else ""
    return _raw(label, path, f"{_show(value)} (unknown field)", ", ".join(known) + meant)


def _allowed(error: Any) -> str:
    keyword, value = error.validator, error.validator_value
    names = [part for part in error.absolute_path if isinstance(part, str)]
    if keyword == "pattern":
        said = [WORDS[name] for name in names if name in WORDS]
        return said[-1] if said else "a text in one line"
    if keyword == "type" and names and names[-1] in WORDS:
        return WORDS[names[-1]]
    few = "at least one entry" if value == 1 else f"at least {value} entries"
    phrases = {
        "enum": ", ".join(map(str, value)) if isinstance(value, list) else "",
        "uniqueItems": "each entry once",
        "minItems": few,
        "minProperties": few,
        "maxItems": f"at most {value} entries",
        "minLength": f"a text of at least {value} characters",
    }
    return phrases.get(keyword) or _type_words(error.schema)


def _type_words(schema: dict[str, Any]) -> str:
    words = {
        "integer": "a whole number",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "array": "a list",
        "object": "a mapping",
    }
    kinds = schema.get("type", "object")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    text = " or ".join(words[kind] for kind in kinds)
    low, above, high = (
        schema.get("minimum"),
        schema.get("exclusiveMinimum"),
        schema.get("maximum"),
    )
    if low is not None and high is not None:
        return f"{text} from {low} to {high}"
    if above is not None and high is not None:
        return f"{text} above {above}, at most {high}"
    if low is not None:
        return f"{text}, at least {low}"
    if above is not None:
        return f"{text} above {above}"
    return text


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _problem(label: str, path: str, value: Any, allowed: str) -> dict[str, str]:
    return _raw(label, path, _show(value), allowed)


def _raw(label: str, path: str, found: str, allowed: str) -> dict[str, str]:
    return {"service": label, "field": path, "found": found, "allowed": allowed}
