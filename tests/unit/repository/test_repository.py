# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Promises that the repository makes about itself."""

from __future__ import annotations

import configparser
import fnmatch
import functools
import itertools
import re
from pathlib import Path

import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C it takes a tenth of the time
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))


@functools.cache
def load(path):
    """Return what a file holds; several tests ask for the same ones, and none changes anything."""
    loader = LOADER(path.read_text(encoding="utf-8"))
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def test_the_checkout_is_the_collection():
    galaxy = load(ROOT / "galaxy.yml")
    link = ROOT / "collections" / "ansible_collections" / galaxy["namespace"] / galaxy["name"]
    assert link.is_symlink()
    assert not str(link.readlink()).startswith("/")
    assert link.resolve() == ROOT


def test_both_configurations_say_the_same():
    def settings(path, up):
        parser = configparser.ConfigParser()
        parser.read(path)
        return {name: value.replace(up, "./", 1) for name, value in parser["defaults"].items()}

    there = settings(ROOT / "playbooks" / "ansible.cfg", "../")
    assert there == settings(ROOT / "ansible.cfg", "./")


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
    main = specs["main"]["options"]
    for name, spec in specs.items():
        assert (role / "tasks" / f"{name}.yml").is_file(), name
        assert spec["short_description"]
        assert spec["description"]
        for option, entry in spec.get("options", {}).items():
            assert entry.get("default") == main[option].get("default"), (name, option)
            assert entry["type"] == main[option]["type"], (name, option)


def tasks_of(content):
    """Yield every task, also those in blocks and plays."""
    for entry in content or []:
        yield entry
        for key in ("tasks", "pre_tasks", "post_tasks", "block", "rescue", "always"):
            yield from tasks_of(entry.get(key))


def ignoring_tasks(content, fatal=True):
    """Yield every task that ignores lost connections, and whether any of its errors is fatal."""
    for entry in content or []:
        own = entry.get("any_errors_fatal", fatal)
        if "ignore_unreachable" in entry:
            yield entry["name"], own and not entry.get("ignore_errors")
        for key in ("block", "rescue", "always"):
            yield from ignoring_tasks(entry.get(key), own)


def test_no_connection_that_is_given_up_ends_a_play():
    """Where any error is fatal Ansible counts lost connections, also those that a task ignores."""
    found = 0
    for path in [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")]:
        content = load(path)
        parts = content if isinstance(content, list) else []
        plays = [part for part in parts if "hosts" in part]
        checked = [ignoring_tasks(play["tasks"], play.get("any_errors_fatal")) for play in plays]
        for name, fatal in itertools.chain(*checked or [ignoring_tasks(parts)]):
            assert not fatal, (path, name)
            found += 1
    assert found > 8


def test_roles_are_entered_where_they_are_specified_with_options_that_they_have():
    entered = 0
    paths = [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("molecule/*/*.yml")]
    for path in sorted(set(paths) - set(ROOT.glob("playbooks/vars/*.yml"))):
        content = load(path)
        for task in tasks_of(content if isinstance(content, list) else []):
            role = task.get("ansible.builtin.import_role")
            if not role:
                continue
            name = role["name"].rsplit(".", 1)[1]
            specs = load(ROOT / "roles" / name / "meta" / "argument_specs.yml")["argument_specs"]
            assert role.get("tasks_from", "main") in specs, (path, task["name"])
            given = {key for key in task.get("vars", {}) if not key.startswith("__")}
            assert given <= set(specs["main"]["options"]), (path, task["name"])
            entered += 1
    assert entered > 20


def test_every_declaration_reaches_somewhere():
    declared = load(ROOT / "playbooks" / "vars" / "declaration.yml")
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "playbooks").rglob("*.yml"))
    for name in declared:
        assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is declared and never used"


def test_documentation_points_to_no_other_collection():
    """Users need none, and `make lint` looks up what is named in Ansible itself and in this one."""
    assert load(ROOT / "galaxy.yml")["dependencies"] == {}
    named = set()
    for folder in ("plugins", "roles", "playbooks", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".yml", ".md"}:
                text = path.read_text(encoding="utf-8")
                named |= set(re.findall(r"\b[MP]\((\w+\.\w+)\.\w", text))
    assert named == {"ansible.builtin", "hx_infra.llm"}


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_every_role_has_its_papers(role):
    meta = load(role / "meta" / "main.yml")["galaxy_info"]
    assert meta["description"]
    assert "GPL-3.0-or-later" in str(meta["license"])
    readme = (role / "README.md").read_text(encoding="utf-8")
    assert readme.splitlines()[0].split(".")[-1].strip("# ") == role.name


def test_what_a_developer_has_lying_about_stays_out_of_the_tarball():
    patterns = load(ROOT / "galaxy.yml")["build_ignore"]
    for name in (".venv", ".venv-core218", ".ruff_cache", ".pytest_cache", "runs", "build"):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


def test_ansible_lint_judges_everything_that_is_shipped():
    """With all rules of the profile, so that nothing else has to judge the tarball once more."""
    config = load(ROOT / ".ansible-lint")
    assert config["profile"] == "production"
    assert set(config) == {"profile", "offline", "enable_list", "exclude_paths"}
    patterns = load(ROOT / "galaxy.yml")["build_ignore"]
    for path in config["exclude_paths"]:
        assert any(fnmatch.fnmatch(path.rstrip("/"), pattern) for pattern in patterns), path


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
    text = (ROOT / "playbooks/vars/declaration.yml").read_text()
    declared = set(re.findall(r"\bllm_\w+", text))
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


def test_awx_job_templates_name_playbooks_and_variables_that_exist():
    declared = set(re.findall(r"llm_\w+", (ROOT / "docs" / "variables.md").read_text()))
    for template in load(ROOT / "awx" / "job_templates.yml")["controller_templates"]:
        assert (ROOT / template["playbook"]).is_file(), template["name"]
        for question in template.get("survey_spec", {}).get("spec", []):
            assert question["variable"] in declared, question
            assert isinstance(question["default"], int)


def test_every_option_of_vllm_has_a_declaration_with_its_default():
    given = load(ROOT / "playbooks" / "vars" / "vllm.yml")
    defaults = load(ROOT / "roles" / "vllm" / "defaults" / "main.yml")
    assert {name for name in given if name.startswith("vllm_")} == set(defaults)
    environment = NativeEnvironment()
    found = {"inventory_hostname": "llm-01"}
    for name, text in load(ROOT / "playbooks" / "vars" / "declaration.yml").items():
        if name in ("hx_address", "hx_base_dir", "hx_gpus", "hx_venv") or name.startswith(
            "hx_vllm_"
        ):
            found[name] = environment.from_string(text).render(found)
    for name, default in defaults.items():
        value = environment.from_string(given[name]).render(found)
        if name == "vllm_address":
            assert value == "llm-01"
        elif name != "vllm_gpu_python":  # of the virtual environment that playbooks make
            assert value == default, name
