# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from gpu_host_samples import LDCONFIG, OPEN_VERSION, PROPRIETARY_VERSION, Link, planted

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_host_driver as driver
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import UnknownError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

PCI = "sys/bus/pci/devices"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {
                "sys/module/nvidia/version": "565.57.01\n",
                "proc/driver/nvidia/version": OPEN_VERSION,
            },
            {"loaded": True, "loaded_version": "565.57.01", "flavour": "open"},
        ),
        (
            {
                "sys/module/nvidia/refcnt": "0\n",
                "proc/driver/nvidia/version": PROPRIETARY_VERSION,
            },
            {"loaded": True, "loaded_version": "535.183.01", "flavour": "proprietary"},
        ),
        (
            {"sys/module/nvidia/version": "575.64.03\n"},
            {"loaded": True, "loaded_version": "575.64.03"},
        ),
        ({"sys/module/nouveau/refcnt": "1\n"}, {"loaded": False}),
    ],
)
def test_loaded_module(tmp_path, files, expected):
    assert driver.loaded_module(planted(tmp_path, files)) == expected


def test_without_sysfs_nothing_is_known_of_modules(tmp_path):
    with pytest.raises(UnknownError, match="/sys/module"):
        driver.loaded_module(planted(tmp_path, {"etc": None}))


def test_library_by_the_loaders_cache(tmp_path):
    files = {
        "opt/driver/libnvidia-ml.so.1": Link("libnvidia-ml.so.580.95.05"),
        "opt/driver/libnvidia-ml.so.580.95.05": "",
        "usr/lib/i386-linux-gnu/libnvidia-ml.so.1": Link("libnvidia-ml.so.470.1.1"),
        "usr/lib/i386-linux-gnu/libnvidia-ml.so.470.1.1": "",
        "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1": Link("libnvidia-ml.so.575.64.03"),
        "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.575.64.03": "",
    }
    host = planted(tmp_path, files, {"ldconfig -p": LDCONFIG})
    notes = []
    expected = {"path": "/opt/driver/libnvidia-ml.so.580.95.05", "version": "580.95.05"}
    assert driver.library(host, notes) == expected
    assert notes == []


def test_library_through_debians_alternatives_without_a_cache(tmp_path):
    folder = "usr/lib/x86_64-linux-gnu"
    files = {
        f"{folder}/libnvidia-ml.so.1": Link("/etc/alternatives/glx--libnvidia-ml.so.1"),
        "etc/alternatives/glx--libnvidia-ml.so.1": Link(
            "/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.1"
        ),
        f"{folder}/nvidia/current/libnvidia-ml.so.1": Link("libnvidia-ml.so.535.183.01"),
        f"{folder}/nvidia/current/libnvidia-ml.so.535.183.01": "",
    }
    assert driver.library(planted(tmp_path, files), []) == {
        "path": f"/{folder}/nvidia/current/libnvidia-ml.so.535.183.01",
        "version": "535.183.01",
    }


def test_a_cache_that_names_a_removed_library_is_not_believed(tmp_path):
    files = {
        "usr/lib64/libnvidia-ml.so.1": Link("libnvidia-ml.so.575.64.03"),
        "usr/lib64/libnvidia-ml.so.575.64.03": "",
    }
    host = planted(tmp_path, files, {"ldconfig -p": LDCONFIG})
    assert driver.library(host, [])["version"] == "575.64.03"


def test_no_library_is_known_to_be_none(tmp_path):
    host = planted(tmp_path, {"usr/lib64": None}, {"ldconfig -p": Outcome(1, "", "no cache")})
    notes = []
    assert driver.library(host, notes) == {}
    assert notes == []


def test_a_library_without_a_version_in_its_name_says_so(tmp_path):
    notes = []
    found = driver.library(planted(tmp_path, {"usr/lib/libnvidia-ml.so.1": ""}), notes)
    assert found == {"path": "/usr/lib/libnvidia-ml.so.1"}
    assert notes == ["the name of /usr/lib/libnvidia-ml.so.1 has no version"]


def device(address, vendor="0x10de", kind="0x030000", number="0x2782", taken_by="nvidia"):
    files = {
        f"{PCI}/{address}/vendor": f"{vendor}\n",
        f"{PCI}/{address}/class": f"{kind}\n",
        f"{PCI}/{address}/device": f"{number}\n",
    }
    if taken_by:
        files[f"{PCI}/{address}/driver"] = Link(f"../../../bus/pci/drivers/{taken_by}")
    return files


def test_pci_devices(tmp_path):
    files = {
        **device("0000:01:00.0"),
        **device("0000:01:00.1", kind="0x040300", number="0x22bc", taken_by="snd_hda_intel"),
        **device("0000:02:00.0", kind="0x030200", number="0x2330", taken_by="nouveau"),
        **device("0000:03:00.0", taken_by=""),
        **device("0000:04:00.0", vendor="0x1002", taken_by="amdgpu"),
    }
    assert driver.pci_devices(planted(tmp_path, files)) == [
        {"address": "0000:01:00.0", "device_id": "2782", "driver": "nvidia"},
        {"address": "0000:02:00.0", "device_id": "2330", "driver": "nouveau"},
        {"address": "0000:03:00.0", "device_id": "2782"},
    ]


def test_a_host_without_nvidia_has_an_empty_list_and_one_without_pci_none(tmp_path):
    files = device("0000:04:00.0", vendor="0x8086", taken_by="i915")
    assert driver.pci_devices(planted(tmp_path, files)) == []
    with pytest.raises(UnknownError):
        driver.pci_devices(planted(tmp_path / "bare", {"etc": None}))


def test_links_in_a_circle_end(tmp_path):
    files = {"usr/lib/libnvidia-ml.so.1": Link("other"), "usr/lib/other": Link("libnvidia-ml.so.1")}
    with pytest.raises(UnknownError, match="too many links"):
        driver.library(planted(tmp_path, files), [])
