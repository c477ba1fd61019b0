# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from gpu_host_samples import Link, planted

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_host_containers as containers
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

VERSION = {"nvidia-ctk": "NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a9b9d0d\n"}
SPEC = """---
cdiVersion: 0.5.0
containerEdits:
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.575.64.03
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.575.64.03
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: all
kind: nvidia.com/gpu
"""


def look(tmp_path, files, answers=None):
    notes = []
    return containers.toolkit(planted(tmp_path, files, answers), notes), notes


def test_all_there(tmp_path):
    found, notes = look(tmp_path, {"var/run/cdi/nvidia.yaml": SPEC}, VERSION)
    assert found == {
        "installed": True,
        "version": "1.17.8",
        "cdi_file": "/var/run/cdi/nvidia.yaml",
        "cdi_gpus": ["0", "all"],
        "driver_version": "575.64.03",
    }
    assert notes == []


def test_the_directory_of_the_higher_rank_counts(tmp_path):
    old = SPEC.replace("575.64.03", "535.183.01")
    files = {"etc/cdi/nvidia.yaml": old, "run/cdi/nvidia.yaml": SPEC, "var/run": Link("../run")}
    found, _notes = look(tmp_path, files)
    assert found["driver_version"] == "575.64.03"
    assert look(tmp_path / "b", {"etc/cdi/nvidia.yaml": old})[0]["driver_version"] == "535.183.01"


def test_nothing_there_is_known(tmp_path):
    assert look(tmp_path, {"etc": None}) == ({"installed": False}, [])


def test_other_vendors_files_are_not_ours(tmp_path):
    found, notes = look(tmp_path, {"etc/cdi/amd.json": '{"kind": "amd.com/gpu"}'})
    assert (found, notes) == ({"installed": False}, [])


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"etc/cdi/nvidia.yaml": "nvidia: what\n"}, "no CDI specification"),
        ({"etc/cdi/nvidia.yaml": b"nvidia \xff"}, "can't be read"),
        ({"etc/cdi/a.yaml": SPEC, "etc/cdi/b.yaml": SPEC}, "holds 2 CDI specifications"),
    ],
)
def test_specifications_that_no_engine_could_use_are_named(tmp_path, files, text):
    found, notes = look(tmp_path, files)
    assert "cdi_file" not in found
    assert text in notes[0]


def test_a_specification_of_two_drivers(tmp_path):
    mixed = SPEC.replace("hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.575.64.03", "", 1)
    mixed = mixed.replace("  mounts:", "  mounts:\n  - hostPath: /usr/lib/libnvidia-ml.so.570.1.1")
    found, notes = look(tmp_path, {"etc/cdi/nvidia.yaml": mixed})
    assert "driver_version" not in found
    assert "570.1.1, 575.64.03" in notes[0]


@pytest.mark.parametrize("answer", [Outcome(None, "", ""), Outcome(1, "", "broken")])
def test_a_toolkit_that_does_not_say_its_version(tmp_path, answer):
    found, notes = look(tmp_path, {"etc": None}, {"nvidia-ctk": answer})
    assert found == {"installed": True}
    assert notes[0].startswith("nvidia-ctk --version")


def test_without_character_devices_nothing_is_said_of_links(tmp_path):
    assert containers.char_links(planted(tmp_path, {"dev/nvidia0": ""})) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_char_links(tmp_path):
    host = planted(tmp_path, {"dev/char": None})
    try:
        # the numbers of /dev/null: a node that nobody needs a driver for
        os.mknod(tmp_path / "dev/nvidia0", 0o20600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this container can't make device nodes")
    assert containers.char_links(host) is False
    (tmp_path / "dev/char/1:3").symlink_to("../nvidia0")
    assert containers.char_links(host) is True
