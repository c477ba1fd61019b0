# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the modules that take declared models."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment ``hx_infra.llm.declared_models``.

    A module says itself what it takes O(models) for, and whether it needs any.
    """

    DOCUMENTATION = r"""
options:
  models:
    type: list
    elements: dict
    suboptions:
      name:
        description: The model's name as Ollama takes it. The tag V(latest) is the default.
        type: str
        required: true
      digest:
        description:
          - The digest that C(ollama list) shows, 12 digits or more. The model must have it, and is
            never updated to another one.
        type: str
        default: ""
      source:
        description:
          - Full name C(host[:port]/namespace/model:tag) to pull it from. The model then gets its
            declared name, with the same digest.
        type: str
        default: ""
      insecure:
        description: Whether the source speaks plain HTTP.
        type: bool
        default: false
      update:
        description:
          - Whether M(hx_infra.llm.model_catalog) pulls the model when its tag has moved in the
            registry. A pin wins.
        type: bool
        default: false
      slo:
        description: Service level objectives. Other modules read them; this one doesn't.
        type: dict
        default: {}
  registry:
    description:
      - C(host[:port]) of a registry that models without O(models[].source) come from instead of
        Ollama's own.
    type: str
    default: ""
  registry_insecure:
    description: Whether O(registry) speaks plain HTTP.
    type: bool
    default: false
"""
