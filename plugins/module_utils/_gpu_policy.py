# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a GPU host is judged by: the tables, and what an inventory changes in them.

A policy that names an unknown check, field or value is refused as a whole, with every problem at
once: an override that does nothing would be taken for one that works.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Callable

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    ACTIONS,
    CHECKS,
    CRITICAL,
    INFO,
    WARN,
    Check,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_xids import (
    UNNAMED,
    XIDS,
    Xid,
)

SEVERITIES = (INFO, WARN, CRITICAL)
FIELDS = ("limit", "severity", "enabled")
XID_FIELDS = ("severity", "action")
# What a program means that computes without being allowed to; the words of an older option.
REACTIONS = {"fail": CRITICAL, "warn": WARN, "ignore": INFO}
REFUSED = "The policy of the GPU checks is refused."
REMEDY = "docs/gpu.md lists checks, limits and severities."


@dataclass(frozen=True)
class Policy:
    """The tables after an inventory's overrides.

    Attributes:
        checks: the checks that are made, by name.
        xids: the Xid table, by code.
        disabled: names of the checks that the inventory switched off.
        declared: names of the checks whose limit the inventory set.
    """

    checks: Mapping[str, Check]
    xids: Mapping[int, Xid]
    disabled: tuple[str, ...] = ()
    declared: frozenset[str] = frozenset()

    def xid(self, code: int) -> Xid:
        """Return the row of a code; one that says so for a code without a row."""
        return self.xids.get(code) or Xid(code, *UNNAMED)


def merge(
    policy: Mapping[str, Any] | None = None,
    xids: Mapping[Any, Any] | None = None,
    foreign_processes: str = "fail",
) -> Policy:
    """Return the tables with an inventory's overrides.

    Args:
        policy: ``{check: {limit, severity, enabled}}``, each field optional. A severity holds for
            every degree of a miss.
        xids: ``{code: {severity, action}}``; a code that the table lacks may be added.
        foreign_processes: what ``gpu_foreign_processes`` means: ``fail``, ``warn`` or ``ignore``;
            a severity in the policy outranks it.

    Raises:
        HostError: something in it is unknown or has a value that can't be; names every field with
            the value found and the values allowed.
    """
    checks = {check.name: check for check in CHECKS}
    foreign = checks["gpu_foreign_processes"]
    checks[foreign.name] = replace(foreign, severity=REACTIONS[foreign_processes])
    rows = {row.code: row for row in XIDS}
    policy, xids = policy or {}, xids or {}
    problems = [*_policy_problems(policy, checks), *_xid_problems(xids)]
    if problems:
        raise HostError(f"{REFUSED} {'; '.join(problems)}.", REMEDY)
    disabled, declared = [], set()
    for name, fields in policy.items():
        checks[name] = _overridden(checks[name], fields)
        if fields.get("limit") is not None:
            declared.add(name)
        if fields.get("enabled") is False:
            disabled.append(name)
    for name in disabled:
        del checks[name]
    for code, fields in xids.items():
        number = int(code)
        row = rows.get(number) or Xid(number, *UNNAMED)
        repeated = "" if "severity" in fields else row.repeated
        rows[number] = replace(row, **fields, repeated=repeated)
    return Policy(checks, rows, tuple(sorted(disabled)), frozenset(declared))


def _overridden(check: Check, fields: Mapping[str, Any]) -> Check:
    severity, limit = fields.get("severity"), fields.get("limit")
    if severity is not None:
        check = replace(check, severity=severity, lesser=severity if check.lesser else "")
    if limit is not None:
        limit = tuple(limit) if isinstance(limit, list) else limit
        check = replace(check, limit=limit, source=f"policy: {check.name}.limit")
    return check


def _policy_problems(policy: Any, checks: Mapping[str, Check]) -> Iterator[str]:
    if not isinstance(policy, Mapping):
        yield _wrong("policy", policy, "a mapping {check: {limit, severity, enabled}}")
        return
    for name, fields in policy.items():
        field = f"policy.{name}"
        if name not in checks:
            yield _wrong(field, name, f"one of the checks {', '.join(checks)}")
        elif not isinstance(fields, Mapping):
            yield _wrong(field, fields, f"a mapping with {', '.join(FIELDS)}")
        else:
            yield from _check_problems(field, fields, checks[name])


def _check_problems(field: str, fields: Mapping[str, Any], check: Check) -> Iterator[str]:
    for key, value in fields.items():
        if key not in FIELDS:
            yield _wrong(f"{field}.{key}", value, f"one of the fields {', '.join(FIELDS)}")
    severity = fields.get("severity")
    if severity is not None and severity not in SEVERITIES:
        yield _wrong(f"{field}.severity", severity, f"one of {', '.join(SEVERITIES)}")
    enabled = fields.get("enabled")
    if enabled is not None and not isinstance(enabled, bool):
        yield _wrong(f"{field}.enabled", enabled, "true or false")
    limit = fields.get("limit")
    if limit is None:
        return
    if not check.kind:
        where = f"set {check.declared} instead" if check.declared else "this check has none"
        yield _wrong(f"{field}.limit", limit, f"no limit, {where}")
        return
    fits, wanted = KINDS[check.kind]
    if check.kind == "word":
        wanted = f"one of {', '.join(check.choices)}"
    if not fits(limit) or (check.kind == "word" and limit not in check.choices):
        yield _wrong(f"{field}.limit", limit, wanted)


def _xid_problems(xids: Any) -> Iterator[str]:
    if not isinstance(xids, Mapping):
        yield _wrong("xids", xids, "a mapping {code: {severity, action}}")
        return
    for code, fields in xids.items():
        field = f"xids.{code}"
        if isinstance(code, bool) or not str(code).isdecimal() or not int(code):
            yield _wrong(field, code, "the number of an Xid")
        elif not isinstance(fields, Mapping) or not fields:
            yield _wrong(field, fields, f"a mapping with {', '.join(XID_FIELDS)}")
        else:
            for key, value in fields.items():
                yield from _xid_field(f"{field}.{key}", key, value)


def _xid_field(field: str, key: str, value: Any) -> Iterator[str]:
    if key not in XID_FIELDS:
        yield _wrong(field, value, f"one of the fields {', '.join(XID_FIELDS)}")
        return
    allowed: Iterable[str] = SEVERITIES if key == "severity" else ACTIONS
    if value not in allowed:
        yield _wrong(field, value, f"one of {', '.join(allowed)}")


def _wrong(field: str, value: Any, wanted: str) -> str:
    return f"{field}: found {value!r}, wanted {wanted}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _is_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


# What a limit may be: the test, and the words for what is wanted.
KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "number": (_is_number, "a number of 0 or more"),
    "count": (
        lambda value: _is_number(value) and isinstance(value, int),
        "a whole number of 0 or more",
    ),
    "ratio": (lambda value: _is_number(value) and value <= 1, "a number between 0 and 1"),
    "names": (_is_names, "a list of names or patterns"),
    "word": (lambda value: isinstance(value, str), ""),
}
