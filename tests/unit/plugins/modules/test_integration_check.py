# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    GRPC_PORT,
    NAMES,
    PORTS,
    Found,
    IntegrationError,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.modules import integration_check
from ansible_collections.hx_infra.llm.plugins.modules.integration_check import run, secret_of


@pytest.fixture
def secret(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "secret"
        path.write_bytes(text)
        path.chmod(mode)
        return str(path)

    return write


def test_a_credential_file(secret):
    assert secret_of(secret(b"pass word\n", 0o640)) == "pass word"


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (b"pw\n", 0o644, "has mode 0644, so that everybody can use it"),
        (b"", 0o600, "has 0 lines"),
        (b"a\nb\n", 0o600, "has 2 lines"),
        (b"\xff\xfe", 0o600, "it holds no text"),
    ],
)
def test_a_credential_file_that_cant_be_used(secret, text, mode, said):
    with pytest.raises(IntegrationError, match=said) as caught:
        secret_of(secret(text, mode))
    assert caught.value.check == "authenticated"


def test_a_credential_file_that_isnt_there():
    with pytest.raises(IntegrationError, match="/none can't be read: No such file"):
        secret_of("/none")


def entry(**fields):
    usual = {name: spec.get("default") for name, spec in integration_check.SERVICE.items()}
    return {**usual, "kind": "redis", "host": "h", **fields}


def test_one_without_credentials_is_left_out_and_the_order_kept(monkeypatch):
    asked = []

    def check_all(all_wanted):
        asked.extend(all_wanted)
        return [Found(address="a", authenticated="x", ready="y") for _one in all_wanted]

    def secrets(path):
        if path == "/bad":
            raise IntegrationError("authenticated", "password_file /bad can't be read")
        return "from-file"

    monkeypatch.setattr(integration_check, "check_all", check_all)
    entries = [
        entry(name="first"),
        entry(name="bad", **{"password_file": "/bad"}),
        entry(name="last", **{"password_file": "/good"}),
    ]
    result = run({"integrations": entries, "timeout": 5.0}, "llm-01", secrets)
    assert [(one.name, one.password) for one in asked] == [("first", ""), ("last", "from-file")]
    assert [one["status"] for one in result["integrations"]] == ["PASS", "FAIL", "PASS"]
    assert [one["name"] for one in result["integrations"]] == ["first", "bad", "last"]
    assert len(result["problems"]) == 1
    assert "bad: authenticated is password_file /bad can't be read" in result["problems"][0]
    assert (result["changed"], result["actions"], result["plan"]) == (False, [], [])


def test_options_and_library_agree():
    spec = integration_check.SERVICE
    assert set(spec["kind"]["choices"]) == set(NAMES) == set(PORTS)
    assert spec["grpc_port"]["default"] == GRPC_PORT
    fields = set(Wanted.__dataclass_fields__) - {"timeout"}
    assert set(spec) == fields | {"password_file"}
    assert spec["password"]["no_log"] is True
