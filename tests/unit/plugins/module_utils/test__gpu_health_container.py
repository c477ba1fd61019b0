# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container whose driver is a library alone: no module, no node, no PCI device, no kernel log.

The lab's hosts are such: whatever the readers make of them must not turn into a warning.
"""

from __future__ import annotations

import json

import pytest
from gpu_health_samples import card, dead, facts, outcome
from gpu_host_samples import planted
from xid_samples import Journal

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_health
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host import Wanted, observe
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_xid_journal import days_ago

LIBRARY = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
VIRTIO = "sys/bus/pci/devices/0000:00:02.0"
FILES = {
    "sys/module/loop/refcnt": "0\n",
    f"{VIRTIO}/vendor": "0x1af4\n",
    f"{VIRTIO}/class": "0x010000\n",
    f"{VIRTIO}/device": "0x1001\n",
    "sys/firmware": None,  # engines hide what is in it
    "proc/sys/kernel/osrelease": "6.1.0-28-amd64\n",
    "proc/sys/kernel/random/boot_id": "0f0f0f0f-0000-4000-8000-000000000000\n",
    "proc/1/comm": "systemd\n",
    "dev/null": "",
    LIBRARY: "",  # no link to a file with a version
}
ANSWERS = {
    "ldconfig -p": f"1 libs found\n\tlibnvidia-ml.so.1 (libc6,x86-64) => {LIBRARY}\n",
    "systemctl is-active": Outcome(3, "inactive\n", ""),
    "systemctl show": "LoadState=loaded\nUser=ollama\nEnvironment=OLLAMA_HOST=0.0.0.0\n",
    "journalctl --boot": Outcome(1, "-- No entries --\n", ""),
}
DECLARED = {"count": 2, "name": "RTX 4070 Ti", "driver_min": "575.64.03", "cuda_min": "12.9"}
NO_CUDA = {"gpu_cuda": {"enabled": False}}
NO_KERNEL = {
    "gpu_pci_count",
    "gpu_device_nodes",
    "gpu_library",
    "gpu_next_kernel",
    "gpu_nouveau",
    "gpu_secure_boot",
}


@pytest.fixture
def judged(tmp_path):
    def judge(found, history=None):
        host = planted(tmp_path / "root", FILES, ANSWERS)
        journal = Journal(tmp_path / "bin")
        wanted = Wanted(
            python="python",
            units=("ollama.service",),
            history_file=history,
            journalctl=journal.program,
        )
        inventory = _gpu_health.Inventory(expected=DECLARED, policy=NO_CUDA)
        return _gpu_health.judge(found, observe(host, wanted), inventory, 1_795_000_000.0)

    return judge


@pytest.fixture
def history(tmp_path):
    def written(*xids):
        path = tmp_path / "xid-history.jsonl"
        lines = [
            {
                "boot": f"{number:032x}",
                "monotonic_us": number + 1,
                "pci_bus_id": "00000000:01:00.0",
                "time": days_ago(1),
                "xid": xid,
            }
            for number, xid in enumerate(xids)
        ]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return str(path)

    return written


def statuses(report):
    return {health.check: health.status for health in report.checks}


def test_nothing_but_what_is_switched_off_is_left_out_and_nothing_is_yellow(judged):
    found = judged(facts(card(0), card(1)))
    assert {health.status for health in found.checks} <= {"N/A", "PASS", "INFO"}
    assert {verdict.status for verdict in found.verdicts} == {"PASS"}
    assert found.disabled == ("gpu_cuda",)
    assert found.notes == []
    seen = statuses(found)
    assert {seen[check] for check in (*NO_KERNEL, "gpu_xid", "gpu_xid_repeated")} == {"N/A"}
    for check in ("gpu_host", "gpu_count", "gpu_cuda_environment", "gpu_driver_version"):
        assert seen[check] == "PASS", check


@pytest.mark.parametrize("xids", [(), (79,), (31, 31)])
def test_a_history_without_a_kernels_log_is_read_all_the_same(judged, history, xids):
    found = judged(facts(card(0), card(1)), history(*xids))
    assert found.message("llm-01") == ""
    if xids:  # from boots before this one
        told = [health for health in found.checks if health.check == "gpu_xid"]
        assert [health.status for health in told] == ["INFO", "PASS"]


def test_a_history_of_a_fault_that_comes_back_stops_the_run(judged, history):
    message = judged(facts(card(0), card(1)), history(79, 79)).message("llm-01")
    assert "gpu_xid_repeated is 2 boots, wanted 2 boots" in message


def test_a_driver_that_does_not_answer_is_no_driver_of_another_kernel(judged):
    found = judged(dead("timeout"))
    assert outcome(found, "gpu_driver").status == "CRITICAL"
    assert outcome(found, "gpu_library").because == "gpu_driver"
    assert "gpu_driver is timeout" in found.message("llm-01")
