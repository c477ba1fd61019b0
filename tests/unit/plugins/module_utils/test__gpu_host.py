# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All parts together: what is known stands in the result, what isn't in its errors."""

from __future__ import annotations

import dataclasses
import json
import os
import pwd

import pytest
from gpu_host_samples import LDCONFIG, MODINFO, OPEN_VERSION, Link, planted
from xid_samples import NOISE, XID_79, Journal

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host import Wanted, observe
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

RELEASE, VERSION = "6.1.0-28-amd64", "565.57.01"
PARTS = {
    "module",
    "library",
    "kernels",
    "next_kernel",
    "pci",
    "nodes",
    "secure_boot",
    "persistence_daemon",
    "toolkit",
    "dcgm",
    "environment",
    "cuda",
    "xids",
    "errors",
}
PCI = "sys/bus/pci/devices/0000:01:00.0"
HEALTHY = {
    "sys/module/nvidia/version": f"{VERSION}\n",
    "proc/driver/nvidia/version": OPEN_VERSION,
    "proc/sys/kernel/osrelease": f"{RELEASE}\n",
    "proc/77/comm": "nvidia-persiste\n",
    "opt/driver/libnvidia-ml.so.1": Link(f"libnvidia-ml.so.{VERSION}"),
    f"opt/driver/libnvidia-ml.so.{VERSION}": "",
    f"lib/modules/{RELEASE}/modules.dep": "updates/dkms/nvidia.ko:\n",
    f"lib/modules/{RELEASE}/updates/dkms/nvidia.ko": "",
    f"{PCI}/vendor": "0x10de\n",
    f"{PCI}/class": "0x030000\n",
    f"{PCI}/device": "0x2782\n",
    f"{PCI}/driver": Link("../../../bus/pci/drivers/nvidia"),
    "sys/firmware/acpi": None,
    "dev/nvidiactl": "",
    "dev/nvidia0": "",
    "dev/nvidia-uvm": "",
    "dev/nvidia-uvm-tools": "",
}
ANSWERS = {
    "ldconfig -p": LDCONFIG,
    "modinfo": MODINFO.format(version=VERSION),
    "systemctl is-active": Outcome(3, "inactive\n", ""),
    "systemctl show": "LoadState=loaded\nUser=ollama\nEnvironment=CUDA_PROFILE=1\n",
}
USER = pwd.getpwuid(os.geteuid()).pw_name
OTHER = next(entry.pw_name for entry in pwd.getpwall() if entry.pw_name != USER)


class Children:
    """Plays the two children; every other program answers from the table."""

    def __init__(self, programs):
        self.programs = programs
        self.hangs = ""
        self.settings = {}

    def __call__(self, argv, timeout_s):
        """Answer one command."""
        if argv[0] != "python":
            return self.programs(argv, timeout_s)
        settings = json.loads(argv[5])
        if "cuInit" in argv[4]:
            self.settings["cuda"] = settings
            gpu = {"index": 0, "uuid": "GPU-1", "ok": True, "message": "", "milliseconds": 1.0}
            out = f"{json.dumps({'gpu': gpu})}\n{json.dumps({'done': True})}\n"
            return Outcome(0, out, "")
        self.settings["nodes"] = settings
        lines = []
        for path in settings["paths"]:
            lines.append({"opening": path})
            if self.hangs and path.endswith(self.hangs):
                return Outcome(None, "".join(f"{json.dumps(line)}\n" for line in lines), "")
            lines.append({"opened": path, "ok": True})
        return Outcome(0, "".join(f"{json.dumps(line)}\n" for line in lines), "")


@pytest.fixture
def logged(tmp_path):
    made = Journal(tmp_path / "bin")
    made.log(NOISE)
    return made


@pytest.fixture
def look(tmp_path, logged):
    def observed(files=None, answers=None, hangs="", **wanted):
        files = HEALTHY if files is None else files
        host = planted(tmp_path / "root", files, ANSWERS if answers is None else answers)
        observed.run = Children(host.run)
        observed.run.hangs = hangs
        host = dataclasses.replace(host, run=observed.run)
        options = {"units": ("ollama.service",), "journalctl": logged.program, **wanted}
        return observe(host, Wanted(python="python", **options))

    return observed


def errors(found):
    return {error["what"]: error["message"] for error in found["errors"]}


def test_a_healthy_host(look, logged):
    logged.log(XID_79)
    found = look()
    assert set(found) == PARTS
    assert found["errors"] == []
    assert found["module"] == {"loaded": True, "loaded_version": VERSION, "flavour": "open"}
    assert found["library"]["version"] == VERSION
    assert found["kernels"][0]["module_version"] == VERSION
    assert found["next_kernel"]["release"] == RELEASE
    assert found["pci"] == [{"address": "0000:01:00.0", "device_id": "2782", "driver": "nvidia"}]
    assert [node["openable"] for node in found["nodes"]] == [True] * 4
    assert found["secure_boot"] == {
        "enabled": False,
        "signer": "DKMS module signing key",
        "refused": False,
    }
    assert found["persistence_daemon"] == "active"
    assert found["toolkit"] == found["dcgm"] == {"installed": False}
    assert found["environment"][0]["name"] == "CUDA_PROFILE"
    assert found["cuda"]["state"] == "ok"
    assert found["xids"]["entries"][0]["xid"] == 79


def test_a_host_of_which_nothing_is_known(tmp_path, logged):
    logged.behave(fail=[1, "No journal files were opened due to insufficient permissions."])
    host = planted(tmp_path / "root", {"etc": None})
    found = observe(
        host, Wanted(python="python", units=("ollama.service",), journalctl=logged.program)
    )
    assert set(found) == {"library", "toolkit", "dcgm", "nodes", "cuda", "errors"}
    assert found["library"] == {}
    assert found["nodes"] == []
    assert (found["cuda"]["state"], found["cuda"]["gpus"]) == ("not_tried", [])
    named = errors(found)
    assert set(named) == {
        "module",
        "kernels",
        "pci",
        "secure_boot",
        "persistence_daemon",
        "environment",
        "xids",
    }
    assert "insufficient permissions" in named["xids"]


def test_everything_hangs(tmp_path, logged):
    logged.behave(hang_after=0)
    host = planted(tmp_path / "root", HEALTHY)
    host = dataclasses.replace(host, run=lambda argv, _s: Outcome(None, "", ""), timeout_s=0.5)
    found = observe(host, Wanted(python="python", units=("a.service",), journalctl=logged.program))
    assert found["module"]["loaded_version"] == VERSION
    assert found["pci"][0]["driver"] == "nvidia"
    assert found["cuda"]["state"] == "timeout"
    assert {"nodes", "environment", "xids", "kernels", "toolkit", "dcgm"} <= set(errors(found))
    assert not [node for node in found["nodes"] if "openable" in node]


def test_a_node_that_hangs_keeps_cuda_from_being_tried(look):
    found = look(hangs="/nvidia0")
    assert [node["openable"] for node in found["nodes"]] == [True, True, True, False]
    assert found["cuda"]["state"] == "not_tried"
    assert found["cuda"]["message"] == "opening /dev/nvidia0 did not end"


def test_nodes_of_a_driver_that_hangs_are_listed_and_left_alone(look):
    found = look(open_nodes=False, service_user="hx-nobody")
    assert found["errors"] == []
    assert "nodes" not in look.run.settings
    assert ["mode" in node for node in found["nodes"]] == [True] * 4
    assert not [node for node in found["nodes"] if "openable" in node]


def test_missing_nodes_of_a_driver_that_has_a_gpu(look):
    files = {name: content for name, content in HEALTHY.items() if "uvm" not in name}
    openable = {node["path"]: node["openable"] for node in look(files)["nodes"]}
    assert openable == {
        "/dev/nvidiactl": True,
        "/dev/nvidia-uvm": False,
        "/dev/nvidia-uvm-tools": False,
        "/dev/nvidia0": True,
    }


def test_nouveau_has_no_nodes_to_miss(look):
    files = {name: content for name, content in HEALTHY.items() if not name.startswith("dev/")}
    files[f"{PCI}/driver"] = Link("../../../bus/pci/drivers/nouveau")
    found = look({**files, "dev/null": ""})
    assert found["pci"][0]["driver"] == "nouveau"
    assert found["nodes"] == []


def test_children_become_the_service(look):
    show = f"LoadState=loaded\nUser={USER}\nNoNewPrivileges=yes\nSupplementaryGroups=4242\n"
    look(answers={**ANSWERS, "systemctl show": show}, service_user=USER)
    account = look.run.settings["nodes"]["account"]
    assert account["uid"] == os.geteuid()
    assert 4242 in account["groups"]
    assert look.run.settings["cuda"]["no_new_privileges"] is True


def test_another_users_unit_limits_nobody(look):
    show = "LoadState=loaded\nUser=hx-other\nNoNewPrivileges=yes\nSupplementaryGroups=4242\n"
    look(answers={**ANSWERS, "systemctl show": show}, service_user=USER)
    assert 4242 not in look.run.settings["nodes"]["account"]["groups"]
    assert look.run.settings["cuda"]["no_new_privileges"] is False


def test_a_service_user_that_is_not_there(look):
    found = look(service_user="hx-nobody")
    assert errors(found) == {"nodes": "this host has no user hx-nobody"}
    assert found["cuda"] == {
        "state": "not_tried",
        "message": "this host has no user hx-nobody",
        "gpus": [],
    }
    assert not [node for node in found["nodes"] if "openable" in node]


def test_further_accounts_try_for_themselves(look):
    found = look(service_user=USER, more_users=(USER, "hx-nobody", OTHER, OTHER))
    missing, tried = found["accounts"]
    assert missing == {
        "user": "hx-nobody",
        "known": False,
        "message": "this host has no user hx-nobody",
    }
    assert (tried["user"], tried["known"], tried["message"]) == (OTHER, True, "")
    assert [node["openable"] for node in tried["nodes"]] == [True] * 4
    assert tried["cuda"]["state"] == found["cuda"]["state"] == "ok"
    uid = pwd.getpwnam(OTHER).pw_uid
    assert look.run.settings["nodes"]["account"]["uid"] == uid
    assert look.run.settings["cuda"]["account"]["uid"] == uid
    assert found["errors"] == []


def test_a_further_account_has_the_groups_and_limits_of_its_own_unit(look):
    show = f"LoadState=loaded\nUser={USER}\nNoNewPrivileges=yes\nSupplementaryGroups=4242\n"
    found = look(answers={**ANSWERS, "systemctl show": show}, more_users=(USER,))
    assert found["accounts"][0]["user"] == USER
    assert 4242 in look.run.settings["nodes"]["account"]["groups"]
    assert look.run.settings["cuda"]["no_new_privileges"] is True


def test_a_further_account_whose_groups_are_not_there_is_not_tried(look):
    show = f"LoadState=loaded\nUser={USER}\nSupplementaryGroups=hx-nothing\n"
    (entry,) = look(answers={**ANSWERS, "systemctl show": show}, more_users=(USER,))["accounts"]
    assert entry["known"]
    assert entry["message"] == entry["cuda"]["message"] == "this host has no group hx-nothing"
    assert not [node for node in entry["nodes"] if "openable" in node]


def test_after_a_node_that_hangs_no_further_account_tries(look):
    (entry,) = look(hangs="/nvidia0", more_users=(USER,))["accounts"]
    assert not [node for node in entry["nodes"] if "openable" in node]
    assert entry["message"] == "not tried: opening /dev/nvidia0 did not end"
    assert entry["cuda"]["state"] == "not_tried"


def test_cuda_is_left_alone_when_nobody_asks(look):
    found = look(cuda=False)
    assert found["cuda"]["state"] == "not_tried"
    assert "cuda" not in look.run.settings


def test_without_units_nothing_is_asked(look):
    found = look(units=())
    assert found["environment"] == []
    assert not [call for call in look.run.programs.calls if "show" in call]
