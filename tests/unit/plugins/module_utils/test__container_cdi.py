# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._container_cdi import (
    KIND,
    Spec,
    effective,
    parse_spec,
    reasons_stale,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

A, B = "GPU-aaaa", "GPU-bbbb"
LIBRARY = "/usr/lib/x86_64-linux-gnu/libcuda.so.575.64.03"
# The shape of what nvidia-ctk writes: lists are not indented, names stand after the edits.
YAML = f"""---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-uvm
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - update-ldcache
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: {LIBRARY}
    hostPath: {LIBRARY}
    options:
    - ro
  - containerPath: /usr/lib/x86_64-linux-gnu/libnvidia-egl-gbm.so.1.1.2
    hostPath: /usr/lib/x86_64-linux-gnu/libnvidia-egl-gbm.so.1.1.2
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: {A}
- name: '{B}'
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
      name: not-a-device
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
  name: all
kind: nvidia.com/gpu
"""
EVERYTHING = (
    "/dev/nvidia-uvm",
    "/usr/bin/nvidia-cdi-hook",
    LIBRARY,
    "/usr/lib/x86_64-linux-gnu/libnvidia-egl-gbm.so.1.1.2",
    "/dev/nvidia0",
    "/dev/nvidia1",
)


def spec(**changed):
    fields = {
        "path": "/etc/cdi/nvidia.yaml",
        "version": "0.5.0",
        "kind": KIND,
        "devices": ("0", A, B, "all"),
        "host_paths": (LIBRARY,),
        "drivers": ("575.64.03",),
    }
    return Spec(**{**fields, **changed})


def test_yaml_of_the_toolkit():
    found = parse_spec("/etc/cdi/nvidia.yaml", YAML)
    assert found == spec(host_paths=EVERYTHING)


def test_yaml_with_indented_lists():
    lines = YAML.split("devices:\n")
    indented = "".join(f"  {line}\n" for line in lines[1].splitlines()[:-1])
    text = f"{lines[0]}devices:\n{indented}kind: nvidia.com/gpu\n"
    assert parse_spec("/x.yaml", text).devices == ("0", A, B, "all")


def test_json():
    content = {
        "cdiVersion": "0.5.0",
        "kind": KIND,
        "containerEdits": {
            "mounts": [{"hostPath": LIBRARY, "containerPath": LIBRARY}],
            "hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook"}],
        },
        "devices": [
            {"name": A, "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
            {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/x", "hostPath": "/y"}]}},
        ],
    }
    found = parse_spec("/x.json", json.dumps(content))
    assert found.devices == (A, "all")
    assert found.host_paths == (LIBRARY, "/usr/bin/nvidia-cdi-hook", "/dev/nvidia0", "/y")
    assert found.drivers == ("575.64.03",)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/x.json", "{"),
        ("/x.json", "[]"),
        ("/x.json", '{"cdiVersion": "0.5.0", "devices": [{}]}'),
        ("/x.yaml", ""),
        ("/x.yaml", "cdiVersion: 0.5.0\n"),
        ("/x.yaml", "kind: nvidia.com/gpu\n"),
    ],
)
def test_what_is_no_specification_is_refused(path, text):
    with pytest.raises(HostError, match="no CDI specification"):
        parse_spec(path, text)


@pytest.mark.parametrize(
    ("changed", "lost", "words"),
    [
        ({}, (), None),
        ({"devices": ("0", A, "all")}, (), f"does not name {B}"),
        ({"devices": (A, B, "GPU-cccc", "all")}, (), "names GPU-cccc, which the host does not"),
        ({"devices": (A, B)}, (), "no device 'all'"),
        ({"drivers": ("570.86.15",)}, (), "for driver 570.86.15, the host runs 575.64.03"),
        ({"drivers": ("570.86.15", "575.64.03")}, (), "for driver 570.86.15, 575.64.03"),
        ({"drivers": ()}, (), "no library of the driver 575.64.03"),
        ({}, (LIBRARY,), f"names {LIBRARY}, which is not there"),
        ({"host_paths": ("/a", "/b", "/c")}, ("/a", "/b"), "names /a and 1 more, which"),
    ],
)
def test_staleness(changed, lost, words):
    reasons = reasons_stale(spec(**changed), [A, B], "575.64.03", lambda path: path not in lost)
    assert (not reasons) if words is None else any(words in reason for reason in reasons)
    assert len(reasons) <= 1


def test_the_directory_that_outranks_the_others_counts():
    run, etc = spec(path="/var/run/cdi/nvidia.yaml"), spec()
    other = spec(path="/var/run/cdi/other.yaml", kind="vendor.com/nvidia-like")
    assert effective({"/var/run/cdi": [other, run], "/etc/cdi": [etc]}, "h") is run
    assert effective({"/var/run/cdi": [other], "/etc/cdi": [etc]}, "h") is etc
    assert effective({"/var/run/cdi": []}, "h") is None


def test_two_in_one_directory_are_refused():
    with pytest.raises(HostError, match=r"h: /etc/cdi holds 2 CDI specifications .*x\.yaml"):
        effective({"/etc/cdi": [spec(), spec(path="/etc/cdi/x.yaml")]}, "h")
