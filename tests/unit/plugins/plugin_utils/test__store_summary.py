# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.plugin_utils._store_summary import (
    problems,
    store_summary,
)

HEX = "0123456789abcdef" * 4
MOVED = "phi3:latest has the digest 0123456789ab, wanted ffffffffffff"
NO_NAME = "'Qwen 3' is no model name: its model is 'Qwen 3', wanted one such as 'qwen3:1.7b'"


def model(name, **changed):
    return {
        "name": name, "digest": HEX, "whole": True, "verified": True, "defects": [], **changed
    }  # fmt: skip


def store(*models, findings=(), held=2_000_000_000):
    return {
        "store": "/mnt/models",
        "exists": True,
        "models": list(models),
        "findings": list(findings),
        "totals": {"held_bytes": held},
    }


def test_the_table_and_what_stands_below_it():
    cut = model("qwen3:1.7b", whole=False, verified=False)
    cut["defects"] = [{"digest": "a" * 64, "state": "missing"}]
    found = store_summary(
        [
            {"host": "llm-01", "store": store(model("phi3:latest")), "models": [{"name": "phi3"}]},
            {
                "host": "llm-02",
                "store": store(
                    cut, model("x:1"), findings=["Blob sha256-aaaaaaaaaaaa is missing."]
                ),
                "models": [{"name": "qwen3:1.7b"}, {"name": "x:1"}],
            },
            {
                "host": "llm-03",
                "store": {"unreachable": True, "msg": "no route\nmore"},
                "models": [{"name": "phi3"}],
            },
        ]
    )
    assert found["text"].splitlines() == [
        "host    declared  models  occupied  verified  findings",
        "llm-01  1 of 1    1       2.0GB     1 of 1    none",
        "llm-02  1 of 2    2       2.0GB     1 of 2    1",
        "llm-03  ? of 1    ?       ?         ?         not looked at",
        "",
        "llm-02: FAIL: qwen3:1.7b is not whole: blob sha256-aaaaaaaaaaaa missing; wanted it whole",
        "llm-02: Blob sha256-aaaaaaaaaaaa is missing.",
        "llm-03: FAIL: its store could not be looked at: no route",
    ]
    assert [host for host, texts in found["failed"].items() if texts] == ["llm-02", "llm-03"]


@pytest.mark.parametrize(
    ("declared", "wanted"),
    [
        ([], []),
        ([{"name": "Phi3"}], []),
        ([{"name": "phi3", "digest": HEX[:12]}], []),
        ([{"name": "phi3", "digest": "f" * 12}], [MOVED]),
        ([{"name": "qwen3:1.7b"}], ["qwen3:1.7b is not there, wanted it whole"]),
        ([{"name": "Qwen 3"}, {"name": "phi3", "digest": "f" * 12}], [NO_NAME, MOVED]),
    ],
)
def test_what_fails_a_host(declared, wanted):
    assert problems(store(model("phi3:latest")), declared) == wanted


def test_models_that_nobody_declared_fail_nothing():
    assert problems(store(model("x:1", whole=False)), []) == []


def test_a_host_without_a_store_fails_when_it_is_to_have_models():
    nothing = {**store(), "exists": False}
    assert problems(nothing, [{"name": "phi3"}]) == ["there is no store at /mnt/models, wanted one"]
    assert problems(nothing, []) == []
