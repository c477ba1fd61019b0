# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host around the cards: a tree that the real reader walks, programs that answer from a table."""

from __future__ import annotations

import dataclasses
import json
import sys

from gpu_machine import ROOT

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host import Wanted, observe
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import run_program
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

sys.path.append(str(ROOT / "tests" / "unit" / "plugins" / "module_utils"))

from gpu_host_samples import LDCONFIG, MODINFO, Link, planted
from xid_samples import BOOT_2, NOISE, Journal

KERNEL, NEXT_KERNEL = "6.1.0-28-amd64", "6.1.0-31-amd64"
NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")


def cdi(version, gpus):
    """Write a specification of the container toolkit, as nvidia-ctk generates it."""
    library = f"/usr/lib/x86_64-linux-gnu/libcuda.so.{version}"
    devices = [
        {"name": str(n), "containerEdits": {"deviceNodes": [{"path": f"/dev/nvidia{n}"}]}}
        for n in range(gpus)
    ]
    mounts = [{"hostPath": library, "containerPath": library}]
    spec = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}
    return json.dumps({**spec, "containerEdits": {"mounts": mounts}})


def dcgm(*found):
    fine = {"entity_group": "GPU", "entity_id": 0, "status": "Pass"}
    tests = [{"name": "software", "results": [fine, *found]}]
    category = {"category": "Deployment", "tests": tests}
    return json.dumps({"DCGM Diagnostic": {"test_categories": [category]}})


def pci(address, driver="nvidia"):
    """Write a card of the PCI bus."""
    folder = f"sys/bus/pci/devices/{address}"
    return {
        f"{folder}/vendor": "0x10de\n",
        f"{folder}/class": "0x030000\n",
        f"{folder}/device": "0x2782\n",
        f"{folder}/driver": Link(f"../../../bus/pci/drivers/{driver}"),
    }


def module_of(release, version="575.64.03"):
    """Write the driver's module of a kernel; its file tells its version to the played modinfo."""
    folder = f"lib/modules/{release}"
    return {
        f"{folder}/modules.dep": "updates/dkms/nvidia.ko:\n",
        f"{folder}/updates/dkms/nvidia.ko": MODINFO.format(version=version),
    }


def healthy_tree(facts):
    """Return the files of a host whose kernel has loaded the driver of these cards."""
    version, gpus = facts["driver"]["version"], facts["gpus"]
    files = {
        "sys/module": None,
        "sys/module/nvidia/version": f"{version}\n",
        "proc/sys/kernel/osrelease": f"{KERNEL}\n",
        "proc/sys/kernel/random/boot_id": f"{BOOT_2}\n",
        "proc/77/comm": "nvidia-persiste\n",
        "sys/firmware/acpi": None,
        "opt/driver/libnvidia-ml.so.1": Link(f"libnvidia-ml.so.{version}"),
        f"opt/driver/libnvidia-ml.so.{version}": "",
        "etc/cdi/nvidia.json": cdi(version, len(gpus)),
        **module_of(KERNEL, version),
        **{f"dev/{name}": "" for name in (*NODES, *(f"nvidia{n}" for n in range(len(gpus))))},
    }
    for gpu in gpus:
        files.update(pci(gpu["pci_bus_id"][4:].lower()))
    return files


ANSWERS = {
    "ldconfig -p": LDCONFIG,
    "systemctl is-active": Outcome(3, "inactive\n", ""),
    "systemctl show": "LoadState=loaded\nEnvironment=OLLAMA_HOST=127.0.0.1\n",
    "nvidia-ctk": "NVIDIA Container Toolkit CLI version 1.17.8\n",
    "dcgmi diag": dcgm(),
    "journalctl --boot": Outcome(1, "", ""),  # nothing matches
}


def read_host(folder, facts, *, files=None, gone=(), answers=None, log=(), cuda=True):
    """Read a host with the real reader: a tree, two children on this machine, played programs."""
    tree = {**healthy_tree(facts), **(files or {})}
    host = planted(
        folder / "root",
        {name: content for name, content in tree.items() if name not in gone},
        {**ANSWERS, **(answers or {})},
    )
    journal = Journal(folder / "bin")
    for message, boot in [(NOISE, BOOT_2), *log]:
        journal.log(message, boot)
    played = host.run

    def run(argv, timeout_s):
        if argv[0] == sys.executable:
            return run_program(argv, timeout_s)
        if argv[0] == "modinfo" and "modinfo" not in played.answers:
            with open(argv[1], encoding="utf-8") as file:
                return Outcome(0, file.read(), "")
        return played(argv, timeout_s)

    # nvidia-uvm and its like are plain files here: whoever runs the tests may open them.
    host = dataclasses.replace(host, run=run, timeout_s=20.0)
    wanted = Wanted(
        python=sys.executable,
        units=("ollama.service",),
        cuda=cuda,
        journalctl=journal.program,
    )
    return observe(host, wanted)


# ---------------------------------------------------------------- the cards
