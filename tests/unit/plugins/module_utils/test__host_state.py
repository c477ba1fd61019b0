# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of a host, read from a tree that stands for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _host_state as host_state

SHOWN = (
    "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n"
    "FragmentPath=/etc/systemd/system/ollama.service\nDropInPaths=/etc/a.conf /etc/b.conf\n"
    "MainPID=42\n"
)
ABSENT = "LoadState=not-found\nActiveState=inactive\nSubState=dead\nMainPID=0\n"
MOUNTINFO = (
    "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n"
    "30 22 7:0 / {target} rw,relatime shared:1 - ext4 {device} rw\n"
    "31 22 7:0 /part /elsewhere rw - ext4 {device} rw\n"
    "broken line\n"
)


def run(argv):
    return (0, SHOWN if "ollama.service" in argv else ABSENT, "")


def http(url):
    if url.endswith("/api/version"):
        return 200, '{"version": "0.11.4"}'
    models = [{"name": "b:1", "digest": "d2", "size": 2}, {"name": "a:1", "digest": "d1"}]
    return 200, json.dumps({"models": models})


def silent(_url):
    return 0, "connection refused"


@pytest.fixture
def layout(tmp_path):
    return host_state.Layout(
        node_dir=str(tmp_path / "node"),
        scripts_dir=str(tmp_path / "scripts"),
        logs_dir=str(tmp_path / "logs"),
        models_dir=str(tmp_path / "active"),
        store_dir=str(tmp_path / "disk" / "models"),
        bulk_mount=str(tmp_path / "disk"),
        bulk_device="/dev/sdz9",
        env_file=str(tmp_path / "node" / "ollama.env"),
        url="http://127.0.0.1:11434",
        units=["ollama.service"],
        timers=["gpu-telemetry.timer"],
        audit_paths=[str(tmp_path)],
    )


def observe(layout, http=http, mountinfo="/nowhere", now=0.0):
    access = host_state.Access(run=run, http=http, now=now, mountinfo=str(mountinfo))
    return host_state.observe(layout, access)


def test_nothing_there_is_no_error(layout):
    state = observe(layout, silent)
    assert {item["kind"] for item in state["links"]} == {"missing"}
    assert state["mounts"] == state["stores"] == []
    assert state["env_file"]["exists"] is False
    assert state["engine"]["answers"] is False
    assert state["baseline"]["rows"] == 0
    assert state["telemetry"]["age_seconds"] is None


def test_mounts_of_the_disk_only_and_whole(layout, tmp_path):
    mountinfo = tmp_path / "mountinfo"
    (tmp_path / "my disk").mkdir()
    target = str(tmp_path / "my disk").replace(" ", "\\040")
    mountinfo.write_text(MOUNTINFO.format(target=target, device="/dev/sdz9"))
    mounts = observe(layout, mountinfo=mountinfo)["mounts"]
    assert [(item["target"], item["fstype"]) for item in mounts] == [
        (str(tmp_path / "my disk"), "ext4")
    ]
    assert mounts[0]["size_bytes"] > 0


def test_links(layout, tmp_path):
    (tmp_path / "disk" / "models").mkdir(parents=True)
    (tmp_path / "active").symlink_to(tmp_path / "disk" / "models")
    links = {item["path"]: item for item in observe(layout)["links"]}
    active = links[layout.models_dir]
    assert (active["kind"], active["realpath"]) == ("link", layout.store_dir)
    assert links[layout.bulk_mount]["kind"] == "dir"


def test_link_that_leads_nowhere(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    described = host_state.describe_path(str(tmp_path / "link"))
    assert (described["kind"], described["realpath"]) == ("link", "")


def test_store(layout, tmp_path):
    store = tmp_path / "disk" / "models"
    blob = b"weights"
    digest = hashlib.sha256(blob).hexdigest()
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / "a" / "1"
    manifest.parent.mkdir(parents=True)
    layer = {"digest": f"sha256:{digest}", "size": len(blob), "mediaType": "x"}
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": layer, "layers": [layer]}))
    blobs = store / "blobs"
    blobs.mkdir()
    (blobs / f"sha256-{digest}").write_bytes(blob)
    (blobs / f"sha256-{'0' * 64}").write_bytes(b"orphan")
    (blobs / f"sha256-{'1' * 64}-partial").write_bytes(b"partial")
    (tmp_path / "active").symlink_to(store)
    found = observe(layout)["stores"]
    assert len(found) == 1  # two names lead to it
    assert [model["name"] for model in found[0]["models"]] == ["a:1"]
    assert (found[0]["partial_files"], found[0]["orphans"]) == (1, 1)
    assert sum(found[0]["owners"].values()) == 10


def test_env_file(layout, tmp_path):
    (tmp_path / "node").mkdir()
    path = tmp_path / "node" / "ollama.env"
    path.write_text('OLLAMA_MODELS="/mnt/x"\nMODEL_A="a:1"\nnonsense\nSECRET_KEY=abc\n')
    path.chmod(0o640)
    found = observe(layout)["env_file"]
    assert (found["mode"], found["models_dir"], found["models"]) == ("0640", "/mnt/x", ["a:1"])
    assert "abc" not in json.dumps(found)


def test_units(layout):
    state = observe(layout)
    unit, timer = state["units"][0], state["timers"][0]
    assert (unit["active"], unit["enabled"], unit["main_pid"]) == ("active", "enabled", 42)
    assert unit["drop_ins"] == ["/etc/a.conf", "/etc/b.conf"]
    assert (timer["load"], timer["enabled"]) == ("not-found", "not-found")


def test_unit_without_systemd():
    unit = host_state.describe_unit("x.service", lambda _argv: (127, "", "no such file"))
    assert (unit["load"], unit["active"]) == ("unknown", "unknown")


def test_engine(layout):
    engine = observe(layout)["engine"]
    assert (engine["version"], [model["name"] for model in engine["models"]]) == (
        "0.11.4",
        ["a:1", "b:1"],
    )


@pytest.mark.parametrize("body", ["", "no json", "[]", '{"models": 1}'])
def test_engine_that_answers_nonsense(body):
    engine = host_state.describe_engine("http://x", lambda _url: (200, body))
    assert engine["models"] == []


def test_baseline_and_telemetry(layout, tmp_path):
    perf = tmp_path / "logs" / "perf"
    perf.mkdir(parents=True)
    (perf / "baseline.csv").write_text(
        "timestamp,model,first_token_ms,tokens_per_s\n1,b:1,2,3\n1,a:1,2,3\n\n"
    )
    gpu = tmp_path / "node" / "logs" / "gpu"
    gpu.mkdir(parents=True)
    (gpu / "nvidia-smi-ping.csv").write_text("x\n")
    now = (gpu / "nvidia-smi-ping.csv").stat().st_mtime + 30
    state = observe(layout, now=now)
    assert (state["baseline"]["rows"], state["baseline"]["models"]) == (2, ["a:1", "b:1"])
    assert state["telemetry"]["age_seconds"] == 30


def test_scripts_and_world_writable(layout, tmp_path):
    shared = tmp_path / "scripts" / "service" / "ollama"
    shared.mkdir(parents=True)
    (shared / "start.sh").touch()
    (shared / "start.sh").chmod(0o777)
    state = observe(layout)
    start = next(item for item in state["scripts"] if item["name"].endswith("start.sh"))
    assert (start["shared"]["kind"], start["local"]["kind"]) == ("file", "missing")
    assert state["world_writable"] == {"count": 1, "paths": [str(shared / "start.sh")]}
    allowed = replace(layout, audit_allow=[str(shared / "start.sh")])
    assert observe(allowed)["world_writable"] == {"count": 0, "paths": []}
