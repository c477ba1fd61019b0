# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import socket

import pytest
from vllm_samples import GIB, LLAMA_31_8B, service, settings

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_files as files
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_observe as observe
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import Service

HUB = "https://hub.example"
BASE = f"{HUB}/org/x/resolve/{'0' * 40}"


@pytest.fixture
def folder(tmp_path):
    """A function that makes a model's directory of files with sizes or content."""

    def make(**contents):
        for name, content in contents.items():
            path = tmp_path / name.replace("__", "-").replace("_dot_", ".")
            path.write_text("x" * content if isinstance(content, int) else json.dumps(content))
        return str(tmp_path)

    return make


def test_weights_are_the_files_of_the_index(folder):
    path = folder(
        model__1_dot_safetensors=100,
        model__2_dot_safetensors=50,
        extra_dot_safetensors=7,
        consolidated_dot_safetensors=150,
        config_dot_json=LLAMA_31_8B,
    )
    assert files.on_disk(path).weights == 157
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    folder(model_dot_safetensors_dot_index_dot_json=index)
    found = files.on_disk(path)
    assert (found.weights, found.trouble, found.present) == (150, "", True)
    assert found.config == LLAMA_31_8B


def test_a_consolidated_file_alone_counts(folder):
    found = files.on_disk(folder(consolidated_dot_safetensors=9, config_dot_json={}))
    assert (found.weights, found.trouble) == (9, "")


@pytest.mark.parametrize(
    ("contents", "trouble", "others"),
    [
        ({"config_dot_json": {}}, "holds no *.safetensors", ()),
        ({"model_dot_safetensors": 1}, "holds no config.json", ()),
        ({"model_dot_safetensors": 1, "config_dot_json": []}, "config.json is no mapping", ()),
        ({"model_dot_safetensors": 1, "config_dot_json": 3}, "config.json can't be read", ()),
        (
            {"m_dot_gguf": 1, "config_dot_json": {}},
            "holds no *.safetensors",
            ("m.gguf",),
        ),
        (
            {
                "model_dot_safetensors": 1,
                "config_dot_json": {},
                "model_dot_safetensors_dot_index_dot_json": {"weight_map": {"a": "b.safetensors"}},
            },
            "lacks 1 of 1 files of model.safetensors.index.json, such as b.safetensors",
            (),
        ),
        (
            {
                "model_dot_safetensors": 1,
                "config_dot_json": {},
                "model_dot_safetensors_dot_index_dot_json": 5,
            },
            "has an model.safetensors.index.json that can't be read",
            (),
        ),
    ],
)
def test_incomplete_models(folder, contents, trouble, others):
    found = files.on_disk(folder(**contents))
    assert trouble in found.trouble
    assert found.other_formats == others


def absent(**model):
    declared = service(source={"hub": "org/x", "revision": "0" * 40}, **model)
    del declared["model"]["path"]
    return Service(declared, settings(models_dir="/nonexistent"))


def hub(answers):
    asked = []

    def fetch(method, url):
        key = (method, url.replace(BASE, ""))
        asked.append(key)
        answer = answers.get(key, files.FetchError("answered 404 Not Found", 404))
        if isinstance(answer, Exception):
            raise answer
        return answer

    return fetch, asked


def test_the_hub_s_index_tells_the_size():
    index = json.dumps({"metadata": {"total_size": 16 * GIB}, "weight_map": {}}).encode()
    fetch, asked = hub(
        {
            ("GET", "/config.json"): (json.dumps(LLAMA_31_8B).encode(), {}),
            ("GET", "/model.safetensors.index.json"): (index, {}),
        }
    )
    found = files.look(absent(), HUB, fetch)
    assert (found.weights, found.config, found.present) == (16 * GIB, LLAMA_31_8B, False)
    assert found.notes == ()
    assert len(asked) == 2


def test_a_single_file_tells_its_size_by_its_header():
    fetch, _asked = hub({("HEAD", "/model.safetensors"): (b"", {"x-linked-size": "12"})})
    found = files.look(absent(), HUB, fetch)
    assert (found.weights, found.config) == (12, None)
    assert found.notes == (f"GET {BASE}/config.json: answered 404 Not Found",)


def test_a_declared_size_comes_before_the_hub_s_and_no_hub_is_not_asked():
    fetch, asked = hub({})
    assert files.look(absent(weights_bytes=5), HUB, fetch).weights == 5
    assert asked == [("GET", "/config.json")]
    assert files.look(absent(weights_bytes=5), "", fetch).weights == 5
    assert files.look(absent(), "", fetch).weights is None
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("index", "why"),
    [
        (b"<html>", "the answer is no JSON"),
        (b"[]", "the answer is no mapping"),
        (b"{}", "it names no total_size"),
        (b'{"metadata": null}', "it names no total_size"),
        (b'{"metadata": {"total_size": "big"}}', "the size is 'big'"),
    ],
)
def test_a_hub_that_gives_no_index_leaves_the_size_unknown_and_that_is_said(index, why):
    fetch, _asked = hub(
        {
            ("GET", "/config.json"): (b"{}", {}),
            ("GET", "/model.safetensors.index.json"): (index, {}),
        }
    )
    found = files.look(absent(), HUB, fetch)
    assert found.weights is None
    assert found.notes[0].startswith(f"GET {BASE}/model.safetensors.index.json: {why}")


def test_a_hub_that_does_not_answer_is_asked_once():
    silence = files.FetchError("no answer (timed out)")
    fetch, asked = hub({("GET", "/config.json"): silence})
    found = files.look(absent(), HUB, fetch)
    assert found.notes == (f"GET {BASE}/config.json: no answer (timed out)",)
    assert len(asked) == 1


def test_notes_hold_no_credentials():
    fetch, _asked = hub({})
    found = files.look(absent(), "https://me:s3cr3t@hub.example", fetch)
    assert "s3cr3t" not in "".join(found.notes)
    assert "GET https://***@hub.example/org/x" in found.notes[0]


def test_a_file_is_no_model(tmp_path):
    path = tmp_path / "model"
    path.write_text("")
    found = files.look(Service(service(path=str(path)), settings()), "", None)
    assert (found.present, found.trouble) == (False, "is a file, wanted a directory")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1"])
def test_own_listeners_are_found_with_their_process(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip(f"no {address} here")
        server.listen()
        port = server.getsockname()[1]
        (found,) = [item for item in observe.listeners() if item.port == port]
    assert (found.address, found.pid) == (address, os.getpid())
    assert found.name


def test_units_by_their_processes(tmp_path):
    for pid, group in ((11, "/system.slice/citadel-llm@a.service"), (12, "/user.slice")):
        process = tmp_path / str(pid)
        process.mkdir()
        (process / "cgroup").write_text(f"0::{group}\n")
        (process / "status").write_text("VmRSS:\t9 kB\nRssAnon:\t  2048 kB\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    1024 kB\n")
    units = ["citadel-llm@a.service", "citadel-llm@b.service"]
    found = observe.observe([], units, str(tmp_path), more_pids={units[1]: [12]})
    assert found.unit_pids[units[1]] == frozenset({12})
    assert found.unit_memory[units[1]] == 2048 * 1024
    found = observe.observe([], units, proc=str(tmp_path))
    assert found.unit_pids == {units[0]: frozenset({11}), units[1]: frozenset()}
    assert found.unit_memory == {units[0]: 2048 * 1024, units[1]: 0}
    assert (found.memory_available, found.listeners) == (1024 * 1024, ())


def test_a_container_of_a_unit_is_its_own(tmp_path):
    container, other = "a1" * 32, "b2" * 32
    groups = {
        11: f"0::/machine.slice/libpod-{container}.scope/container",
        12: f"0::/machine.slice/libpod-conmon-{container}.scope",
        13: f"0::/system.slice/docker-{other}.scope",
        14: "0::/system.slice/docker.service",
    }
    for pid, group in groups.items():
        process = tmp_path / str(pid)
        process.mkdir()
        (process / "cgroup").write_text(f"{group}\n")
    unit = "citadel-llm@a.service"
    run = tmp_path / "run"
    run.mkdir()

    def pids():
        return observe.observe([], [unit], str(tmp_path), run=str(run)).unit_pids[unit]

    assert pids() == frozenset()
    (run / "citadel-llm@a.cid").write_text(f"{container}\n")
    assert pids() == frozenset({11, 12})
    (run / "citadel-llm@a.cid").write_text("slice\n")  # no id, but in every group's name
    assert pids() == frozenset()


def test_names_and_addresses():
    found = observe.observe(["localhost", "no.such.name.invalid", "192.0.2.1"], [])
    assert set(found.addresses["localhost"]) <= {"127.0.0.1", "::1"}
    assert found.addresses["no.such.name.invalid"] == ()
    assert found.addresses["192.0.2.1"] == ("192.0.2.1",)
    assert "127.0.0.1" in found.local
    assert "192.0.2.1" not in found.local
