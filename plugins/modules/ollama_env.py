#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Install the environment file of the Ollama service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_env
short_description: Render the environment file of the Ollama service from the model catalog
version_added: 0.1.0
description:
  - Writes the settings of the Ollama service and one C(MODEL_*) variable per model of the catalog,
    with the model's size as a comment above it, in a form that means the same to systemd's
    C(EnvironmentFile=) and to a shell that sources the file.
  - The file is rendered as a whole. What people wrote into it by hand is gone afterwards,
    unless O(extra) declares it or O(keep) names it; RV(dropped) lists those variables,
    and the old file stays beside the new one.
  - The file is replaced atomically. At any moment the old or the new one stands there.
  - With O(registry_only) it replaces the models alone and leaves every setting as it stands in the
    file.
options:
  path:
    description: The environment file. Its directory must exist, except in check mode.
    type: path
    required: true
  models:
    description:
      - The models of the catalog, in the order in which the file names them.
      - Take the sizes from the same source at every run, otherwise the file changes with them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the model with its tag, for example V(llama3.2:3b).
        type: str
        required: true
      size_bytes:
        description: Size of the model. Without it the comment and the total say V(unknown).
        type: int
      digest:
        description: The digest that C(ollama list) shows, shown behind the size.
        type: str
        default: ""
  models_dir:
    description:
      - Directory of the model store, the value of E(OLLAMA_MODELS).
      - Needed unless O(registry_only).
    type: path
  host:
    description: Address at which the service listens, the value of E(OLLAMA_HOST).
    type: str
    default: 127.0.0.1:11434
  extra:
    description:
      - Further settings, a dictionary of variable names and values. Boolean values become
        V(true) and V(false).
      - May not name what is rendered from the catalog.
    type: dict
    default: {}
  keep:
    description:
      - Names of variables that keep the value they have in the file that stands at O(path).
      - A variable that the file doesn't have is left out; O(extra) wins over it.
    type: list
    elements: str
    default: []
  registry_only:
    description:
      - Whether only the lines that name models, their list, count and total size are replaced.
        Settings, owner, group and mode stay as they are then, and O(models_dir), O(host), O(extra)
        and O(keep) aren't looked at.
      - Without a file nothing is written, because there are no settings to put the models beside.
    type: bool
    default: false
    version_added: 0.5.0
  owner:
    description: Owner of the file.
    type: str
    default: root
  group:
    description: Group of the file.
    type: str
    default: ollama
  mode:
    description: Mode of the file, in octal digits.
    type: str
    default: "0640"
  backup:
    description:
      - Whether a file whose content changes is kept as C(<path>.bak.<timestamp>), with the
        same owner, group and mode as the new file.
      - The timestamp is the time of the old file's last change, in UTC, so that check mode names
        the same file as the real run.
    type: bool
    default: true
author:
  - hx_infra.llm contributors (@hx-infra)
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Values of variables whose names speak of keys, tokens or passwords are hidden, and so
      are users and passwords in addresses.
  idempotent:
    support: full
seealso:
  - module: hx_infra.llm.model_config_info
"""

EXAMPLES = r"""
- name: Install the environment file of llm-01
  hx_infra.llm.ollama_env:
    path: /opt/hx-infrastructure/llm-01/config/ollama/ollama.env
    models_dir: /mnt/active_llm_models
    models:
      - {name: "llama3.2:3b", size_bytes: 2019393189, digest: a80c4f17acd5}
      - {name: "qwen3:1.7b", size_bytes: 1359293444, digest: 8f68893c685c}
    extra:
      OLLAMA_KEEP_ALIVE: 10m
  notify: Restart ollama

- name: Keep one setting that operators made by hand
  hx_infra.llm.ollama_env:
    path: /opt/hx-infrastructure/llm-01/config/ollama/ollama.env
    models_dir: /mnt/active_llm_models
    models: "{{ llm_models }}"
    keep: [OLLAMA_NUM_PARALLEL]

- name: Name the models that a run of the catalog has left
  hx_infra.llm.ollama_env:
    path: /opt/hx-infrastructure/llm-01/config/ollama/ollama.env
    models: "{{ catalog.env }}"
    registry_only: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in sentences.
  returned: always
  type: list
  elements: str
  sample: ["Write /opt/hx/config/ollama/ollama.env: 2 models, 3.4GB"]
plan:
  description: The same steps as data.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: V(backup), V(create), V(update) or V(permissions).
      type: str
    target:
      description: The file that the step writes.
      type: str
path:
  description: The environment file.
  returned: always
  type: str
backup_file:
  description: The file that keeps the old content. Empty when the content didn't change.
  returned: always
  type: str
content_changed:
  description: Whether the content changed.
  returned: always
  type: bool
settings_changed:
  description:
    - Whether variables changed that mean something to the service, so that it needs a restart. The
      models' variables, their list, count and total size don't.
  returned: always
  type: bool
  version_added: 0.5.0
registry:
  description: The lines that say which models there are, as they stand in the file.
  returned: always
  type: list
  elements: str
  version_added: 0.5.0
model_variables:
  description: The variable of each model.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the variable.
      type: str
    model:
      description: Name of the model.
      type: str
models_count:
  description: Number of models.
  returned: always
  type: int
models_total_size:
  description: Size of all models together, as it stands in the file.
  returned: always
  type: str
  sample: 18.4GB
kept:
  description: Variables that were carried over from the old file because of O(keep).
  returned: always
  type: list
  elements: str
dropped:
  description: Variables of the old file that the new one doesn't have.
  returned: always
  type: list
  elements: str
parsed_before:
  description: What the old file said.
  returned: always
  type: dict
  contains:
    exists:
      description: Whether there was an old file.
      type: bool
    available:
      description: Entries of E(OLLAMA_MODELS_AVAILABLE).
      type: list
      elements: str
    variables:
      description: Variables that name a model.
      type: list
      elements: dict
    only_in_variables:
      description: Models with a variable that the list lacks.
      type: list
      elements: str
    only_in_available:
      description: Models of the list that have no variable.
      type: list
      elements: str
    duplicates:
      description: Variables that were assigned more than once.
      type: list
      elements: str
    malformed:
      description: Lines that could not be read.
      type: list
      elements: dict
    settings:
      description: All variables with their values; those of secrets are hidden.
      type: dict
"""

import os
import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _env_file as env_file
from ansible_collections.hx_infra.llm.plugins.module_utils import _env_install as install
from ansible_collections.hx_infra.llm.plugins.module_utils import _env_models as env_models
from ansible_collections.hx_infra.llm.plugins.module_utils import _model_config as model_config
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

ARGUMENT_SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "models": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "size_bytes": {"type": "int"},
            "digest": {"type": "str", "default": ""},
        },
    },
    "models_dir": {"type": "path"},
    "host": {"type": "str", "default": "127.0.0.1:11434"},
    "extra": {"type": "dict", "default": {}},
    "keep": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "registry_only": {"type": "bool", "default": False},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "ollama"},
    "mode": {"type": "str", "default": "0640"},
    "backup": {"type": "bool", "default": True},
}


def whole_file(
    params: dict[str, Any],
    models: list[env_file.Model],
    before: model_config.ModelConfig,
    host: str,
) -> tuple[bytes, list[str]]:
    """Return the file's new content, and the variables that it keeps from the old one."""
    extra = env_file.read_extra(params["extra"], host)
    for option, name in (("models_dir", "OLLAMA_MODELS"), ("host", "OLLAMA_HOST")):
        env_file.check_value(name, params[option], host)
    for name in params["keep"]:
        env_file.check_name(name, "keep", host)
    kept = {
        name: before.settings[name]
        for name in params["keep"]
        if name in before.settings and name not in extra
    }
    for name, value in kept.items():
        env_file.check_value(name, value, host)
    settings = env_file.Settings(params["models_dir"], params["host"], extra, kept)
    return env_file.render(models, settings).encode(), sorted(kept)


def run(params: dict[str, Any], host: str, check_mode: bool) -> dict[str, Any]:
    """Plan, act unless in check mode, and return the result."""
    alone = params["registry_only"]
    path = os.path.realpath(params["path"]) if alone else params["path"]
    models = env_file.read_models(params["models"], host)
    state = install.read_state(path, host)
    before = model_config.parse(state.content or b"")
    kept: list[str] = []
    content = b""
    if alone:
        access = install.present_access(state)
        if state.content is not None:
            content = env_models.with_registry(state.content, models, path)
    else:
        access = install.find_access(params["owner"], params["group"], params["mode"], host)
        content, kept = whole_file(params, models, before, host)
    text = content.decode("utf-8", errors="replace")
    replaced = state.content is not None and state.content != content
    backup = install.backup_name(path, state) if params["backup"] and replaced else ""
    plan = install.plan_install(
        path, state, content, access, backup=backup, backup_exists=os.path.lexists(backup)
    )
    if alone and state.content is None:
        plan = []
    wanted = model_config.parse(text)
    dropped = [name for name in before.settings if name not in wanted.settings]
    if plan and not check_mode:
        install.check_possible(path, access, host)
        install.apply_install(plan, state, content, access)
    return {
        "changed": bool(plan),
        "actions": [_sentence(step, models, dropped) for step in plan],
        "plan": plan,
        "path": path,
        "backup_file": backup,
        "content_changed": bool(plan) and state.content != content,
        "settings_changed": bool(plan) and env_models.settings_changed(state.content, content),
        "registry": env_file.registry(models),
        "model_variables": [{"name": item.name, "model": item.model} for item in wanted.variables],
        "models_count": len(models),
        "models_total_size": env_file.total_size(models),
        "kept": kept,
        "dropped": dropped,
        "parsed_before": {
            "exists": state.content is not None,
            **model_config.describe(before),
        },
        "diff": _diff(path, state, text, access),
    }


def _sentence(step: dict[str, Any], models: list[env_file.Model], dropped: list[str]) -> str:
    target = step["target"]
    if step["action"] == "backup":
        return f"Keep the old {step['source']} as {target}"
    if step["action"] == "permissions":
        return f"Give {target} to {step['access']}, it was {step['found']}"
    gone = f"; drops {', '.join(dropped)}" if dropped else ""
    return f"Write {target}: {len(models)} models, {env_file.total_size(models)}{gone}"


def _diff(
    path: str, state: install.FileState, text: str, access: install.Access
) -> list[dict[str, str]]:
    before = (state.content or b"").decode("utf-8", errors="replace")
    entries = []
    if before != text:
        entries.append(
            {
                "before_header": path,
                "after_header": path,
                "before": env_file.hide_secrets(before),
                "after": env_file.hide_secrets(text),
            }
        )
    if state.content is not None and not access.matches(state):
        found = install.describe_access(state)
        entries.append(
            {
                "before_header": f"{path} (permissions)",
                "after_header": f"{path} (permissions)",
                "before": f"{found}\n",
                "after": f"{access}\n",
            }
        )
    return entries


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        required_if=[("registry_only", False, ["models_dir"])],
        supports_check_mode=True,
    )
    host = platform.node()
    try:
        result = run(module.params, host, module.check_mode)
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        where = error.filename or module.params["path"]
        module.fail_json(msg=f"{host}: {where} can't be written: {error.strerror}.")
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
