# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from gpu_health_samples import (
    DRIVER,
    card,
    dead,
    facts,
    host,
    node,
    nodes,
    of_host,
    outcome,
    report,
)

KERNEL = {"release": "6.1.0-41-amd64", "running": False, "default": True, "has_module": True}
DEVICE = {"address": "0000:01:00.0", "device_id": "2782", "driver": "nvidia"}
NOUVEAU = {**DEVICE, "driver": "nouveau"}
OLD_LIBRARY = {"version": "570.1", "path": "/usr/lib/libnvidia-ml.so.570.1"}


def without(*names):
    return [entry for entry in nodes() if entry["path"].rsplit("/", 1)[1] not in names]


def changed(name, **fields):
    return [*without(name), {**node(name), **fields}]


NO_CUDA = {"state": "failed", "message": "CUDA_ERROR_UNKNOWN (999)", "gpus": []}
SHUT = {"mode": "0660", "group": "video", "openable": False, "message": "Permission denied"}


@pytest.mark.parametrize(
    ("check", "parts", "status"),
    [
        ("gpu_pci_count", {}, "PASS"),
        ("gpu_pci_count", {"pci": [DEVICE, {"address": "0000:02:00.0"}]}, "CRITICAL"),
        ("gpu_pci_count", {"pci": [DEVICE, {**DEVICE, "driver": "vfio-pci"}]}, "PASS"),
        ("gpu_pci_count", {"pci": []}, "INFO"),
        ("gpu_pci_count", {"pci": None}, "UNKNOWN"),
        ("gpu_device_nodes", {}, "PASS"),
        ("gpu_device_nodes", {"nodes": without("nvidia-uvm")}, "WARN"),
        ("gpu_device_nodes", {"nodes": without("nvidia-uvm"), "cuda": NO_CUDA}, "CRITICAL"),
        ("gpu_device_nodes", {"nodes": without("nvidia-uvm"), "cuda": None}, "CRITICAL"),
        ("gpu_device_nodes", {"nodes": without("nvidia-uvm", "nvidiactl")}, "CRITICAL"),
        ("gpu_device_nodes", {"nodes": changed("nvidia-uvm", **SHUT)}, "CRITICAL"),
        ("gpu_device_nodes", {"nodes": without("nvidia0")}, "CRITICAL"),
        ("gpu_device_nodes", {"nodes": changed("nvidia0", **SHUT)}, "CRITICAL"),
        ("gpu_device_nodes", {"nodes": without("nvidia-uvm-tools")}, "PASS"),
        ("gpu_device_nodes", {"nodes": changed("nvidia-uvm-tools", **SHUT)}, "WARN"),
        ("gpu_device_nodes", {"nodes": []}, "CRITICAL"),
        ("gpu_device_nodes", {"nodes": None}, "UNKNOWN"),
        ("gpu_library", {}, "PASS"),
        ("gpu_library", {"library": OLD_LIBRARY}, "WARN"),
        ("gpu_library", {"library": {}}, "UNKNOWN"),
        ("gpu_library", {"library": None}, "UNKNOWN"),
        ("gpu_library", {"module": None}, "UNKNOWN"),
        ("gpu_library", {"module": {"loaded": True}}, "UNKNOWN"),
        ("gpu_next_kernel", {}, "PASS"),
        ("gpu_next_kernel", {"kernels": [KERNEL]}, "PASS"),
        ("gpu_next_kernel", {"kernels": [{**KERNEL, "has_module": False}]}, "WARN"),
        ("gpu_next_kernel", {"kernels": [{**KERNEL, "module_version": "570.1"}]}, "WARN"),
        ("gpu_next_kernel", {"kernels": [{**KERNEL, "default": False}]}, "UNKNOWN"),
        ("gpu_next_kernel", {"kernels": None}, "UNKNOWN"),
        ("gpu_nouveau", {}, "PASS"),
        ("gpu_nouveau", {"pci": [NOUVEAU]}, "CRITICAL"),
        ("gpu_nouveau", {"pci": []}, "N/A"),
        ("gpu_nouveau", {"pci": None}, "UNKNOWN"),
        ("gpu_secure_boot", {}, "PASS"),
        ("gpu_secure_boot", {"secure_boot": {"enabled": True, "refused": False}}, "PASS"),
        ("gpu_secure_boot", {"secure_boot": {"enabled": True, "refused": True}}, "CRITICAL"),
        ("gpu_secure_boot", {"secure_boot": {"refused": True}}, "CRITICAL"),
        ("gpu_secure_boot", {"secure_boot": {"enabled": False}}, "PASS"),
        ("gpu_secure_boot", {"secure_boot": {"enabled": True}}, "UNKNOWN"),
        ("gpu_secure_boot", {"secure_boot": {"refused": False}}, "PASS"),  # it is loaded
        ("gpu_secure_boot", {"secure_boot": {"refused": False}, "module": None}, "UNKNOWN"),
        ("gpu_secure_boot", {"secure_boot": None}, "UNKNOWN"),
        ("gpu_cuda_environment", {}, "PASS"),
        ("gpu_cuda_environment", {"environment": None}, "UNKNOWN"),
        ("gpu_host", {}, "PASS"),
        ("gpu_host", {"errors": [{"what": "weather", "message": "no window"}]}, "UNKNOWN"),
    ],
)
def test_a_host(check, parts, status):
    assert of_host(check, **parts).status == status


def test_a_part_that_cannot_be_read_says_why():
    errors = [{"what": "kernels", "message": "/lib/modules is empty"}]
    found = report(None, host(kernels=None, errors=errors))
    assert outcome(found, "gpu_next_kernel").evidence == "/lib/modules is empty"
    assert outcome(found, "gpu_host").status == "PASS"  # it is said once


def test_what_is_there_and_has_errors_all_the_same_is_told_by_the_host():
    errors = [{"what": "kernels", "message": "modinfo is not installed"}]
    found = report(None, host(errors=errors))
    assert outcome(found, "gpu_next_kernel").status == "PASS"
    assert outcome(found, "gpu_host").value == ["kernels: modinfo is not installed"]


def test_a_card_that_the_driver_does_not_see_is_named():
    health = of_host("gpu_pci_count", pci=[DEVICE, {**DEVICE, "address": "0000:02:00.0"}])
    assert (health.value, health.limit) == (1, 2)
    assert "0000:02:00.0" in health.evidence
    assert "0000:01:00.0" not in health.evidence


def test_nodes_that_do_not_open_are_named_with_their_rights():
    health = of_host("gpu_device_nodes", nodes=changed("nvidia0", **SHUT))
    assert health.value == ["/dev/nvidia0: Permission denied (0660 root:video)"]
    gone = {"path": "/dev/nvidia-uvm", "openable": False, "message": "is not there"}
    health = of_host("gpu_device_nodes", nodes=[*without("nvidia-uvm"), gone])
    assert health.value == ["/dev/nvidia-uvm: is not there"]
    assert "modprobe nvidia_uvm" in health.remedy
    assert "CUDA works all the same" in health.evidence


def test_a_node_for_every_card_is_wanted_also_without_its_number():
    cards = [card(index, minor_number=None) for index in range(2)]
    assert outcome(report(facts(*cards), host(2)), "gpu_device_nodes").status == "PASS"
    found = report(facts(*cards), host(2, nodes=nodes(1)))
    assert outcome(found, "gpu_device_nodes").value == ["/dev/nvidia<N> (number 1): is not there"]


def test_nodes_that_nobody_tried_are_judged_by_their_mode():
    def untried(mode):
        found = []
        for entry in nodes():
            found.append({**entry, "mode": mode})
            del found[-1]["openable"]
        errors = [{"what": "nodes", "message": "this host has no user ollama"}]
        return of_host("gpu_device_nodes", nodes=found, errors=errors)

    assert untried("0666").status == "PASS"
    assert untried("0660").status == "UNKNOWN"
    assert untried("0660").evidence == "this host has no user ollama"


def test_a_mismatch_at_the_next_start_asks_for_a_reboot():
    health = of_host("gpu_library", library=OLD_LIBRARY)
    assert (health.value, health.limit, health.action) == ("570.1", DRIVER, "reboot")


def test_a_kernel_without_the_module_says_what_is_odd():
    kernel = {**KERNEL, "has_module": False, "message": "depmod has not run"}
    health = of_host("gpu_next_kernel", kernels=[kernel])
    assert health.value == "6.1.0-41-amd64"
    assert "depmod has not run" in health.evidence


def test_a_variable_that_changes_cuda_is_named_with_its_unit():
    bad = {"unit": "ollama.service", "name": "CUDA_PROFILE", "value": "1"}
    health = of_host("gpu_cuda_environment", environment=[bad])
    assert (health.status, health.value) == ("WARN", ["ollama.service: CUDA_PROFILE"])
    policy = {"gpu_cuda_environment": {"limit": ["COMPUTE_PROFILE"]}}
    found = report(None, host(environment=[bad]), policy=policy)
    assert outcome(found, "gpu_cuda_environment").status == "PASS"


def test_a_variable_that_a_site_does_not_want_is_found_by_its_name():
    token = {"unit": "ollama.service", "name": "CUDA_LAUNCH_BLOCKING", "source": "Environment="}
    assert of_host("gpu_cuda_environment", environment=[token]).status == "PASS"
    policy = {"gpu_cuda_environment": {"limit": ["CUDA_LAUNCH_*"]}}
    health = outcome(report(None, host(environment=[token]), policy=policy), "gpu_cuda_environment")
    assert (health.status, health.value) == ("WARN", ["ollama.service: CUDA_LAUNCH_BLOCKING"])


@pytest.mark.parametrize(
    ("toolkit", "status", "words"),
    [
        ({}, "PASS", "lists every GPU"),
        ({"cdi_gpus": ["0", "all"]}, "PASS", "lists every GPU"),
        ({"cdi_gpus": ["gpu0", "all"]}, "PASS", "lists every GPU"),
        ({"installed": False, "version": None}, "CRITICAL", "nvidia-ctk is not installed"),
        ({"cdi_gpus": ["GPU-9", "all"]}, "CRITICAL", "lacks GPU-0-0000"),
        ({"driver_version": "570.1"}, "CRITICAL", f"is for driver 570.1, the driver is {DRIVER}"),
        ({"char_links": False}, "WARN", "/dev/char has no links"),
        ({"cdi_file": None}, "INFO", "no CDI specification"),
    ],
)
def test_the_toolkit_is_judged_where_containers_are_used(toolkit, status, words):
    around = host()
    around["toolkit"] = {**around["toolkit"], **toolkit}
    health = outcome(report(None, around, containers=True), "gpu_container_toolkit")
    assert health.status == status
    assert words in health.evidence
    assert outcome(report(None, around), "gpu_container_toolkit").status == "N/A"


def test_a_toolkit_that_cannot_be_read_is_unknown():
    found = report(None, host(toolkit=None), containers=True)
    assert outcome(found, "gpu_container_toolkit").status == "UNKNOWN"


KERNELS_OWN = (
    "gpu_pci_count",
    "gpu_device_nodes",
    "gpu_library",
    "gpu_next_kernel",
    "gpu_nouveau",
    "gpu_secure_boot",
)


def test_what_is_loaded_was_let_in_also_without_the_firmwares_variables():
    errors = [{"what": "secure_boot", "message": "/sys/firmware/efi/efivars is not mounted"}]
    health = of_host("gpu_secure_boot", secure_boot={"refused": False}, errors=errors)
    assert (health.status, health.value) == ("PASS", "unknown")
    assert health.evidence == "the module is loaded"


def test_a_driver_of_another_kernel_is_not_held_against_this_one():
    errors = [{"what": what, "message": "not there"} for what in ("kernels", "xids", "secure_boot")]
    elsewhere = host(
        module={"loaded": False}, kernels=None, nodes=[], pci=[], xids=None, errors=errors
    )
    found = report(None, elsewhere)
    for check in (*KERNELS_OWN, "gpu_xid", "gpu_xid_repeated"):
        assert outcome(found, check).status == "N/A", check
    assert {verdict.status for verdict in found.verdicts} == {"PASS"}


def test_a_module_that_is_not_loaded_is_the_drivers_fault():
    found = report(dead("driver_not_loaded"), host(module={"loaded": False}, nodes=[]))
    assert outcome(found, "gpu_library").because == "gpu_driver"
    assert outcome(found, "gpu_device_nodes").because == "gpu_driver"


def test_what_explains_a_dead_driver_is_judged_all_the_same():
    around = host(pci=[NOUVEAU], module={"loaded": False})
    message = report(dead("driver_not_loaded"), around).message("llm-01")
    assert "gpu_driver is driver_not_loaded" in message
    assert "gpu_nouveau is 0000:01:00.0" in message
