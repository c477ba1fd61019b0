# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ansible_collections.hx_infra.llm.plugins.doc_fragments.gateway_runtime import (
    ModuleDocFragment,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_options import RUNTIME_OPTIONS
from ansible_collections.hx_infra.llm.plugins.modules import gateway_traffic

DEFAULTS = {name: spec.get("default") for name, spec in gateway_traffic.ARGUMENTS.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": "weighted", "weight": 11}, "gw: weight is 11; wanted 0 to 10"),
        ({"state": "weighted", "weight": -1}, "gw: weight is -1; wanted 0 to 10"),
        ({"state": "ready", "weight": 3}, "weight is 3 with state=ready; wanted state=weighted"),
        ({"state": "ready", "only_owner": True}, "only_owner is true and owner is empty"),
        ({"state": "drained", "budget": -1}, "budget is -1; wanted 0 or more"),
        ({"state": "drained", "reload_wait": -5}, "reload_wait is -5"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(HostError, match=message):
        gateway_traffic.run({**DEFAULTS, "gateway": "gw", "host": "a", **changes}, False)


def test_documentation_states_the_defaults() -> None:
    own = yaml.safe_load(gateway_traffic.DOCUMENTATION)["options"]
    shared = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    assert shared.keys() == RUNTIME_OPTIONS.keys()
    documented = {name: option.get("default") for name, option in {**own, **shared}.items()}
    assert documented == DEFAULTS
