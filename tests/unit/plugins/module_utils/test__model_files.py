# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may be declared about a model's files, and which files of a hub are wanted."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub import HubFile
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files import (
    Rules,
    Source,
    Wanted,
    check_path,
    read_declaration,
    read_list,
    select,
)

COMMIT = "a" * 40
SHA = "b" * 64


def params(source: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    base = {
        "hub": "", "revision": "", "endpoint": "https://huggingface.co", "insecure": False,
        "include": [], "exclude": [], "files": {}, "path": None, "manifest": None,
        "archive": "", "sha256": "",
    }  # fmt: skip
    options = {
        "name": "m", "dest": "/srv/m", "state": "present", "verify": "quick", "exclusive": False,
        "prune_partials": True, "update": False, "allow_unpinned": False, "allow_pickle": False,
        "allow_code": False,
    }  # fmt: skip
    return {**options, "source": None if source is None else {**base, **source}, **more}


HUB = {"hub": "org/m", "revision": COMMIT}


@pytest.mark.parametrize(
    ("source", "more", "said"),
    [
        (None, {}, "source is not given"),
        ({}, {}, "names none of them"),
        ({**HUB, "path": "/x"}, {}, "names hub and path"),
        (HUB, {"dest": None}, "dest is not given"),
        (HUB, {"dest": "/"}, "a directory of its own"),
        (HUB, {"dest": "m"}, "absolute path"),
        ({"hub": "org/m"}, {}, "40 hexadecimal digits"),
        ({**HUB, "revision": "main"}, {}, "40 hexadecimal digits"),
        ({**HUB, "revision": "../x"}, {"allow_unpinned": True}, "no revision"),
        ({**HUB, "hub": "../m"}, {}, "wanted an id"),
        ({**HUB, "hub": "a/b/c"}, {}, "wanted an id"),
        ({**HUB, "endpoint": "http://mirror"}, {}, "wanted https"),
        ({**HUB, "endpoint": "https://u:p@mirror"}, {}, "holds a password"),
        ({**HUB, "files": {"a": 1111}}, {}, "wanted 64 hexadecimal digits"),
        ({**HUB, "files": {"../a": SHA}}, {}, "leads outside"),
        ({**HUB, "files": {"a.PKL": SHA}}, {}, "a.PKL, which is refused"),
        ({**HUB, "include": ["*.pt"]}, {}, "allow_pickle"),
        ({**HUB, "include": ["*.py"]}, {}, "allow_code"),
        ({"path": "/x"}, {}, "without checksums"),
        ({"archive": "/x.tar"}, {}, "source.sha256"),
        ({"archive": "x.tar", "sha256": SHA}, {}, "absolute path or a URL"),
        ({"archive": "http://a/x.tar", "sha256": SHA}, {}, "wanted https"),
    ],
)
def test_refused(source: dict[str, Any] | None, more: dict[str, Any], said: str) -> None:
    with pytest.raises(HostError) as caught:
        read_declaration(params(source, **more))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("source", "more", "pinned"),
    [
        (HUB, {}, "source"),
        ({**HUB, "files": {"a.json": f"sha256:{SHA.upper()}"}}, {}, "files"),
        ({**HUB, "revision": "main"}, {"allow_unpinned": True}, "no"),
        ({"hub": "org/m"}, {"allow_unpinned": True}, "no"),
        ({"path": "/x"}, {"allow_unpinned": True}, "no"),
        ({"path": "/x", "files": {"a.json": SHA}}, {}, "files"),
        ({"archive": "https://a/x.tar", "sha256": SHA}, {}, "source"),
        ({**HUB, "include": ["*.bin"]}, {"allow_pickle": True}, "source"),
    ],
)
def test_accepted(source: dict[str, Any], more: dict[str, Any], pinned: str) -> None:
    found = read_declaration(params(source, **more)).source
    assert found is not None
    assert found.pinned == pinned


def test_a_directory_is_served_from_where_it_is() -> None:
    source = {"path": "/srv/x/", "files": {"a.json": SHA}}
    assert read_declaration(params(source, dest=None)).in_place
    assert not read_declaration(params(source)).in_place


@pytest.mark.parametrize(
    "path", ["", "/a", "../a", "a/../b", "a//b", "a\\b", "a\nb", ".hx-model.json", "x.partial", "."]
)
def test_paths_that_lead_outside_or_are_ours(path: str) -> None:
    with pytest.raises(HostError):
        check_path(path, "here")


def test_reads_what_sha256sum_writes() -> None:
    text = f"# made today\n{SHA}  ./a.json\n{SHA} *sub/b c.json\n\n"
    assert read_list(text, "sums") == {"a.json": SHA, "sub/b c.json": SHA}
    with pytest.raises(HostError, match="sums, line 1"):
        read_list("a.json\n", "sums")


OFFERED = [
    HubFile("config.json", 1, git_sha1="1" * 40),
    HubFile("model.safetensors", 2, sha256="2" * 64),
    HubFile("onnx/model.onnx", 3, sha256="3" * 64),
    HubFile("pytorch_model.bin", 4, sha256="4" * 64),
    HubFile("tokenizer_hack.py", 5, git_sha1="5" * 40),
    HubFile("tokenizer.model", 6, sha256="6" * 64),
    HubFile(".gitattributes", 7, git_sha1="7" * 40),
]
SOURCE = Source("hub", "https://hub", "org/m", COMMIT)


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        (Rules(), "config.json model.safetensors tokenizer.model"),
        (Rules(exclude=("token*",)), "config.json model.safetensors"),
        (Rules(include=("*.safetensors",)), "model.safetensors"),
        (Rules(include=("*.bin", "*.json"), allow_pickle=True), "config.json pytorch_model.bin"),
        (Rules(allow_code=True), "config.json model.safetensors tokenizer.model tokenizer_hack.py"),
    ],
)
def test_selects(rules: Rules, names: str) -> None:
    assert [item.path for item in select(OFFERED, SOURCE, rules)] == names.split()


def test_declared_files_are_compared_with_what_the_hub_says() -> None:
    def declared(path: str, sha256: str) -> list[Wanted]:
        source = Source("hub", "https://hub", "org/m", COMMIT, ((path, sha256),))
        return select(OFFERED, source, Rules())

    assert declared("config.json", SHA) == [Wanted("config.json", 1, SHA, "1" * 40)]
    with pytest.raises(HostError, match="on the hub, wanted"):
        declared("model.safetensors", SHA)
    with pytest.raises(HostError, match="doesn't have"):
        declared("none.json", SHA)


def test_a_model_of_pickles_alone_is_refused() -> None:
    with pytest.raises(HostError, match=r"it offers pickles \(pytorch_model.bin\)"):
        select([OFFERED[0], OFFERED[3]], SOURCE, Rules())
    with pytest.raises(HostError, match="leads outside"):
        select([HubFile("../x.safetensors", 1, sha256=SHA)], SOURCE, Rules())
