# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that modules share are the ones that their documentation shares."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ansible_collections.hx_infra.llm.plugins.doc_fragments.declared_models import ModuleDocFragment
from ansible_collections.hx_infra.llm.plugins.module_utils._model_options import (
    MODEL_SPEC,
    REGISTRY_OPTIONS,
)
from ansible_collections.hx_infra.llm.plugins.modules import model_catalog, model_update_info

DOCUMENTED = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]


def described(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out the texts, each of which has to be there."""
    for name, option in options.items():
        assert option["description"], name
    return {
        name: {key: value for key, value in option.items() if key != "description"}
        for name, option in options.items()
    }


def test_the_fragment_documents_what_the_options_are() -> None:
    assert described(DOCUMENTED["models"]["suboptions"]) == MODEL_SPEC
    assert described({name: DOCUMENTED[name] for name in REGISTRY_OPTIONS}) == REGISTRY_OPTIONS
    assert DOCUMENTED.keys() == {"models", *REGISTRY_OPTIONS}


@pytest.mark.parametrize("module", [model_catalog, model_update_info])
def test_a_module_says_itself_what_it_takes_models_for_and_whether_it_needs_any(
    module: Any,
) -> None:
    spec = module.ARGUMENT_SPEC
    own = yaml.safe_load(module.DOCUMENTATION)
    assert "hx_infra.llm.declared_models" in own["extends_documentation_fragment"]
    assert not REGISTRY_OPTIONS.keys() & own["options"].keys()
    assert {name: spec[name] for name in REGISTRY_OPTIONS} == REGISTRY_OPTIONS
    shared = {key: DOCUMENTED["models"][key] for key in ("type", "elements")}
    wanted = {**described({"models": own["options"]["models"]})["models"], **shared}
    assert spec["models"] == {**wanted, "options": MODEL_SPEC}
