# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._container_daemon import merge
from ansible_collections.hx_infra.llm.plugins.module_utils._container_host import HostGpus
from ansible_collections.hx_infra.llm.plugins.module_utils._container_plan import (
    Found,
    Wanted,
    plan_toolkit,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

PATH = "/etc/docker/daemon.json"
NVIDIA = {"args": [], "path": "nvidia-container-runtime"}
OTHERS = {"log-driver": "journald", "runtimes": {"crun": {"path": "/usr/bin/crun"}}}


@pytest.mark.parametrize(
    ("before", "wanted", "after", "added", "restart"),
    [
        ("", {"runtime": True}, {"runtimes": {"nvidia": NVIDIA}}, ["runtime nvidia"], False),
        ("{}", {"cdi": True}, {"features": {"cdi": True}}, ["feature cdi"], True),
        (
            json.dumps(OTHERS),
            {"runtime": True},
            {**OTHERS, "runtimes": {**OTHERS["runtimes"], "nvidia": NVIDIA}},
            ["runtime nvidia"],
            False,
        ),
        (
            '{"features": {"buildkit": false, "cdi": false}}',
            {"cdi": True},
            {"features": {"buildkit": False, "cdi": True}},
            ["feature cdi"],
            True,
        ),
        (
            '{"runtimes": {"nvidia": {"path": "/opt/own"}}}',
            {"runtime": True},
            {"runtimes": {"nvidia": {"path": "/opt/own"}}},
            [],
            False,
        ),
    ],
)
def test_merge(before, wanted, after, added, restart):
    flags = {"runtime": False, "cdi": False, **wanted}
    found = merge(PATH, before, **flags, host="h")
    assert json.loads(found.text) == after
    assert list(found.added) == added
    assert found.restart is restart
    if not added:
        assert found.text == before
    again = merge(PATH, found.text, **flags, host="h")
    assert again.added == ()


def test_merge_keeps_order_and_indent():
    before = '{\n  "storage-driver": "overlay2",\n  "debug": true\n}\n'
    found = merge(PATH, before, runtime=True, cdi=False, host="h")
    assert found.text.startswith('{\n  "storage-driver": "overlay2",\n  "debug": true,\n')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{,}", "is no JSON"),
        ("[]", "holds a list"),
        ('{"runtimes": []}', r"runtimes is \[\], wanted: a JSON object"),
    ],
)
def test_merge_refuses(text, words):
    with pytest.raises(HostError, match=words):
        merge(PATH, text, runtime=True, cdi=False, host="h")


GPUS = HostGpus(("GPU-a",), "575.64.03")
ADD_RUNTIME = merge(PATH, "", runtime=True, cdi=False, host="h")
HAS_RUNTIME = merge(PATH, ADD_RUNTIME.text, runtime=True, cdi=False, host="h")
ADD_CDI = merge(PATH, "", runtime=False, cdi=True, host="h")
HAS_CDI = merge(PATH, ADD_CDI.text, runtime=False, cdi=True, host="h")
CDI = {"engine": "docker", "mode": "cdi"}
RUNTIME = {"engine": "docker", "mode": "runtime"}
PODMAN = {"engine": "podman", "mode": "cdi"}


@pytest.mark.parametrize(
    ("wanted", "found", "actions"),
    [
        (PODMAN, {}, []),
        (PODMAN, {"stale": ("there is none",)}, ["write_spec"]),
        (PODMAN, {"links_missing": ("/dev/nvidia0",)}, ["link_devices"]),
        (PODMAN, {"running": ("a",), "stale": ("x",)}, ["write_spec"]),
        (RUNTIME, {"daemon": ADD_RUNTIME}, ["write_daemon_json", "reload"]),
        (RUNTIME, {"daemon": ADD_RUNTIME, "running": ("a",)}, ["write_daemon_json", "reload"]),
        (RUNTIME, {"daemon": HAS_RUNTIME, "knows_runtime": True}, []),
        (RUNTIME, {"daemon": HAS_RUNTIME}, ["reload"]),
        (RUNTIME, {"daemon": HAS_RUNTIME, "knows_runtime": True, "stale": ("x",)}, []),
        (CDI, {"daemon": ADD_CDI}, ["write_daemon_json", "restart"]),
        (CDI, {"daemon": ADD_CDI, "knows_cdi": True}, []),
        (CDI, {"daemon": HAS_CDI}, ["restart"]),
        (CDI, {"daemon": HAS_CDI, "running": ("a",), "live_restore": True}, ["restart"]),
        ({**CDI, "allow_stop": True}, {"daemon": HAS_CDI, "running": ("a",)}, ["restart"]),
        (
            CDI,
            {"daemon": ADD_CDI, "stale": ("x",), "links_missing": ("/dev/nvidia0",)},
            ["link_devices", "write_spec", "write_daemon_json", "restart"],
        ),
    ],
)
def test_plan(wanted, found, actions):
    state = Found(GPUS, **{"engine_version": "28.0.1", **found})
    assert [step.action for step in plan_toolkit(Wanted("h", **wanted), state)] == actions


def test_a_restart_that_stops_containers_is_refused():
    found = Found(GPUS, engine_version="28.0.1", running=("db", "web"), daemon=ADD_CDI)
    with pytest.raises(HostError, match="stops 2 running containers: db, web; live-restore"):
        plan_toolkit(Wanted("h", **CDI), found)


def test_an_old_docker_is_refused_for_cdi():
    found = Found(GPUS, engine_version="20.10.24+dfsg1", daemon=ADD_CDI)
    with pytest.raises(HostError, match=r"Docker is 20.10.24\+dfsg1, wanted: 25.0 or newer"):
        plan_toolkit(Wanted("h", **CDI), found)
