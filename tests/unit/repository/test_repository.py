# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Promises that the repository makes about itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_checkout_is_the_collection():
    galaxy = load(ROOT / "galaxy.yml")
    link = ROOT / "collections" / "ansible_collections" / galaxy["namespace"] / galaxy["name"]
    assert link.is_symlink()
    assert not str(link.readlink()).startswith("/")
    assert link.resolve() == ROOT


def test_the_action_group_names_every_module():
    groups = load(ROOT / "meta" / "runtime.yml")["action_groups"]
    assert groups["llm"] == MODULES


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_defaults_equal_argument_specs(role):
    defaults = load(role / "defaults" / "main.yml") or {}
    specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    options = specs["main"]["options"]
    public = {name: spec for name, spec in options.items() if not spec.get("required")}
    assert set(defaults) == set(public)
    assert all(name.startswith(f"{role.name}_") for name in options)
    for name, value in defaults.items():
        assert public[name].get("default") == value, name


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_every_entry_point_is_specified(role):
    specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    for name, spec in specs.items():
        assert (role / "tasks" / f"{name}.yml").is_file(), name
        assert spec["short_description"]
        assert spec["description"]


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_roles_read_no_other_roles_variables(role):
    others = [other.name for other in ROLES if other != role]
    for path in sorted(role.rglob("*")):
        if path.suffix not in {".yml", ".j2"}:
            continue
        text = path.read_text(encoding="utf-8")
        for expression in re.findall(r"\{\{.*?\}\}|when:.*", text):
            for other in others:
                assert not re.search(rf"(?<![\w.'\"/-]){other}_\w+", expression), (path, other)


def test_playbooks_are_short_and_scoped():
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        text = path.read_text(encoding="utf-8")
        assert "hosts: all" not in text, path
        for play in load(path):
            assert play.get("import_playbook") or "target" in play["hosts"], path


def test_every_declared_default_is_documented():
    declared = set(re.findall(r"llm_\w+", (ROOT / "playbooks/vars/declaration.yml").read_text()))
    documented = (ROOT / "docs" / "variables.md").read_text()
    assert {name for name in declared if f"`{name}`" not in documented} == {"llm_bulk_storage"}


def test_simulators_never_leak_into_the_collection():
    for folder in ("plugins", "roles", "playbooks"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".yml", ".j2", ".sh"}:
                text = path.read_text(encoding="utf-8").lower()
                assert "sim_ollama" not in text, path
                assert "sim-gpu" not in text, path
                assert "simulat" not in text, path


def test_playbooks_and_scenarios_that_the_makefile_names_exist():
    for name in ("create", "reset", "destroy"):
        assert (ROOT / "tests" / "lab" / f"{name}.yml").is_file()
    scenarios = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")}
    assert {role.name for role in ROLES} | {"default", "remediate"} <= scenarios
