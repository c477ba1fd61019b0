# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of models, as facts about Ollama state them."""

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _ollama_names as names
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

HEX = "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72"


@pytest.mark.parametrize(
    ("text", "full", "shown"),
    [
        ("x", "registry.ollama.ai/library/x:latest", "x:latest"),
        ("qwen3:1.7b", "registry.ollama.ai/library/qwen3:1.7b", "qwen3:1.7b"),
        ("library/x", "registry.ollama.ai/library/x:latest", "x:latest"),
        ("jo/x:q4_K_M", "registry.ollama.ai/jo/x:q4_K_M", "jo/x:q4_K_M"),
        ("registry.ollama.ai/library/x:1", "registry.ollama.ai/library/x:1", "x:1"),
        ("localhost:5000/library/x", "localhost:5000/library/x:latest", None),
        ("hf.co/some-one/model-GGUF:Q4_K_M", "hf.co/some-one/model-GGUF:Q4_K_M", None),
        ("_x", "registry.ollama.ai/library/_x:latest", "_x:latest"),
    ],
)
def test_parse_and_show(text, full, shown):
    name = names.parse_name(text)
    assert name.full == full
    assert str(name) == (shown or full)
    assert names.manifest_name(name.manifest[len("manifests/") :]) == name


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("localhost:5000/x", "its namespace is 'localhost:5000'"),
        ("x:", "its tag is ''"),
        ("a.b/x", "its namespace is 'a.b'"),
        ("-x", "its model is '-x'"),
        ("x@sha256:" + HEX, "a digest can't be part of a name"),
        ("http://h/library/x", "a scheme can't be part of a name"),
        ("a/b/c/d", "it has more than host, namespace and model"),
        ("x y", "its model is 'x y'"),
        ("x:" + "t" * 81, f"its tag is '{'t' * 81}'"),
        ("../x", "its namespace is '..'"),
        ("x\n", "its model is 'x\\n'"),
    ],
)
def test_refused_names(text, problem):
    assert names.name_problem(text) == problem
    with pytest.raises(HostError, match="is no model name"):
        names.parse_name(text)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("phi3", "phi3:latest", True),
        ("Phi3", "registry.ollama.ai/library/phi3:LATEST", True),
        ("phi3", "phi3:mini", False),
        ("jo/phi3", "phi3", False),
    ],
)
def test_same(first, second, same):
    assert names.same(first, second) is same


@pytest.mark.parametrize("relative", ["x", "a/b/c", "h/n/m/.tag.swp", "h/n/m/t/more", "h/n.n/m/t"])
def test_files_that_are_no_manifests(relative):
    assert names.manifest_name(relative) is None


@pytest.mark.parametrize(
    ("text", "digits"),
    [("", ""), (HEX[:12], HEX[:12]), ("sha256:" + HEX, HEX), (HEX[:12].upper(), HEX[:12])],
)
def test_read_pin(text, digits):
    assert names.read_pin(text) == digits


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HEX[:11], "it has 11 hexadecimal digits"),
        (HEX + "0", "it has 65 hexadecimal digits"),
        ("xyz" + HEX[:12], "it has characters that are no hexadecimal digits"),
        ("sha256:", "it has 0 hexadecimal digits"),
    ],
)
def test_refused_pins(text, problem):
    assert names.pin_problem(text) == problem
    with pytest.raises(HostError, match="12 to 64"):
        names.read_pin(text)
