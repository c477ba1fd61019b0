# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each part of the role container_runtime has a tag, and works without the others."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible.plugins.test.core import changed
from jinja2.nativetypes import NativeEnvironment

ROLE = Path(__file__).resolve().parents[3] / "roles" / "container_runtime"
NAME = re.compile(r"\b__container_runtime_\w+")
OPTIONAL = re.compile(r"\b(__container_runtime_\w+) \| default\(")
VARIABLES = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))


def tasks(part):
    return (ROLE / "tasks" / f"{part}.yml").read_text(encoding="utf-8")


def registered(part):
    return set(re.findall(r"register: (\w+)", tasks(part)))


def parts():
    """Return what each tag of the role, but the one for all, stands for."""
    entries = yaml.safe_load(tasks("main"))
    return [entry["ansible.builtin.import_tasks"].removesuffix(".yml") for entry in entries]


def needed(text, seen=frozenset()):
    """Return the role's own names that a text can't do without, through its variables."""
    found = set(NAME.findall(text)) - set(OPTIONAL.findall(text)) - seen
    for name in list(found & set(VARIABLES)):
        found |= needed(str(VARIABLES[name]), seen | found)
    return found - seen


def test_each_part_has_its_tag():
    for part, entry in zip(parts(), yaml.safe_load(tasks("main"))):
        assert entry["tags"] == ["container_runtime", f"container_runtime_{part}"]


@pytest.mark.parametrize("part", parts())
def test_a_part_needs_nothing_that_another_part_registers(part):
    others = set().union(*(registered(other) for other in parts() if other != part))
    assert needed(tasks(part)) & others == set()


@pytest.mark.parametrize(("check", "fetched", "pending"), [
    (True, False, False), (True, True, True), (False, True, False),
])  # fmt: skip
def test_the_proof_alone_knows_whether_it_can_run(check, fetched, pending):
    environment = NativeEnvironment(undefined=jinja2.StrictUndefined)
    environment.tests["changed"] = changed
    expression = VARIABLES["__container_runtime_pending"].replace("| length", "| list | length")
    template = environment.from_string(expression)
    given = {
        "ansible_check_mode": check,
        "__container_runtime_result_fetch_proof_image": {"changed": fetched},
    }
    assert template.render(given) is pending
