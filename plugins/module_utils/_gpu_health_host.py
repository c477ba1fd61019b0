# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Rules for what the host tells beside the driver: PCI bus, device nodes, modules, kernels."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_check import (
    LESSER,
    MISSED,
    NA,
    PASS,
    UNKNOWN,
    Case,
    Found,
    finding,
    limit_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    CHECKS,
    HOST,
    INFO,
)

# Parts of gpu_host_info that a check is made of; what else can't be read is said by gpu_host.
PARTS = frozenset(
    [name for check in CHECKS if check.about == HOST for name in check.fields]
    + ["cuda", "xids", "persistence_daemon"]
)
# Nodes that CUDA needs beside one per GPU; the tools' node serves profilers only.
UVM_NODE = "nvidia-uvm"
CONTROL_NODES = ("nvidiactl", UVM_NODE)
TOOLS_NODE = "nvidia-uvm-tools"
GIVEN_AWAY = frozenset({"vfio-pci"})  # a card that a virtual machine owns
# Parts whose checks themselves say what of them can't be known.
SAID_BY_CHECKS = frozenset({"nodes", "secure_boot", "library", "module", "cuda", "xids"})
EVERYBODY = 0o006  # read and write for others: how the driver makes its nodes by default
ELSEWHERE = "the driver that answers is no module of this kernel, as under WSL"


def judge_host(case: Case) -> Found:
    """Judge the host's own readings; without any there is but one outcome that says so."""
    found = _read(case)
    if case.host is None:
        return found
    elsewhere = is_elsewhere(case)
    for name, rule in RULES:
        if elsewhere and name in OF_THE_KERNEL:
            found += finding(case, name, NA, evidence=ELSEWHERE)
        else:
            found += rule(case, case.host)
    return found


def is_elsewhere(case: Case) -> bool:
    """Tell whether the driver answers although this kernel has loaded no module of it."""
    module = (case.host or {}).get("module") or {}
    return case.facts["state"] == "ok" and module.get("loaded") is False


def without_part(case: Case, name: str, host: Mapping[str, Any], *parts: str) -> Found:
    """Return UNKNOWN for a check whose parts of the host's readings are missing."""
    evidence = "; ".join(errors_of(host, *parts))
    evidence = evidence or f"the host's readings have no {' and no '.join(parts)}"
    return finding(case, name, UNKNOWN, evidence=evidence)


def errors_of(host: Mapping[str, Any], *parts: str) -> list[str]:
    """Return why parts of the host's readings are missing or incomplete."""
    return [
        str(error.get("message", "no reason given"))
        for error in host.get("errors") or []
        if _part(str(error.get("what", ""))) in parts
    ]


def short_address(address: Any) -> str:
    """Write a PCI address as the kernel does: four digits of domain, lower case."""
    domain, _colon, rest = str(address).lower().partition(":")
    return f"{domain[-4:].rjust(4, '0')}:{rest}"


def _part(what: str) -> str:
    """Return the part that an error belongs to: ``kernels 6.1.0`` belongs to ``kernels``."""
    word = re.split(r"[ :.]", what, maxsplit=1)[0]
    return word if word in PARTS else what


def _read(case: Case) -> Found:
    if case.host is None:
        return finding(
            case, "gpu_host", UNKNOWN, evidence="hx_infra.llm.gpu_host_info was not read"
        )
    unsaid = [
        f"{error.get('what')}: {error.get('message')}"
        for error in case.host.get("errors") or []
        if not _is_said(case.host, _part(str(error.get("what", ""))))
    ]
    if unsaid:
        return finding(case, "gpu_host", UNKNOWN, unsaid, evidence="parts that can't be read")
    return finding(case, "gpu_host", PASS, [], evidence="parts that can't be read")


def _is_said(host: Mapping[str, Any], part: str) -> bool:
    """Tell whether a check says what can't be read of a part, so that gpu_host need not."""
    return part in SAID_BY_CHECKS or (part in PARTS and host.get(part) is None)


def _pci_count(case: Case, host: Mapping[str, Any]) -> Found:
    devices = host.get("pci")
    if devices is None:
        return without_part(case, "gpu_pci_count", host, "pci")
    if case.facts["state"] not in ("ok", "no_gpu"):
        return []
    taken = [item for item in devices if item.get("driver") in GIVEN_AWAY]
    mine = [short_address(item.get("address")) for item in devices if item not in taken]
    named = {short_address(gpu["pci_bus_id"]) for gpu in case.gpus if gpu.get("pci_bus_id")}
    unseen = [address for address in mine if address not in named]
    have, count = len(mine), len(case.gpus)
    outcome, evidence = PASS, "NVIDIA devices on the PCI bus"
    if have > count:
        outcome, evidence = MISSED, f"the driver does not see {', '.join(unseen)}"
    elif have < count:  # a container may show another bus than the driver's
        outcome = INFO
        evidence = f"the PCI bus that can be seen has {have} of the {count} GPUs that answer"
    if taken:
        evidence += f"; {len(taken)} more given to virtual machines"
    return finding(case, "gpu_pci_count", outcome, count, limit=have, evidence=evidence)


def _device_nodes(case: Case, host: Mapping[str, Any]) -> Found:
    name, nodes = "gpu_device_nodes", host.get("nodes")
    if nodes is None:
        return without_part(case, name, host, "nodes")
    if case.facts["state"] not in ("ok", "no_permission"):
        return []
    there = {posixpath.basename(str(node["path"])): node for node in nodes if _exists(node)}
    wanted = [*CONTROL_NODES, *_card_nodes(case, there)]
    problems = [problem for node in wanted for problem in _node_problem(node, there.get(node))]
    untried = [node for node in wanted if not _is_tried(there.get(node))]
    if not problems and untried:
        evidence = "; ".join(errors_of(host, "nodes")) or "nobody tried to open them"
        return finding(case, name, UNKNOWN, untried, evidence=evidence)
    if problems:
        outcome, evidence = MISSED, f"of {', '.join(wanted)}"
        if _is_made_at_need(host, there, problems):
            outcome = LESSER
            evidence = (
                "CUDA works all the same, as the driver's helper makes this node at need; a unit "
                "with DeviceAllow= that starts before is denied it"
            )
        return finding(case, name, outcome, problems, limit=[], evidence=evidence)
    problems = _node_problem(TOOLS_NODE, there.get(TOOLS_NODE, {}))
    if problems:
        evidence = "only profilers need this one"
        return finding(case, name, LESSER, problems, limit=[], evidence=evidence)
    return finding(case, name, PASS, [], limit=[], evidence=f"of {', '.join(wanted)}")


def _is_made_at_need(
    host: Mapping[str, Any], there: Mapping[str, Any], problems: Sequence[str]
) -> bool:
    """Tell whether all that is wrong is a node that CUDA has made for itself since."""
    works = (host.get("cuda") or {}).get("state") == "ok"
    return works and UVM_NODE not in there and len(problems) == 1


def _exists(node: Mapping[str, Any]) -> bool:
    return node.get("mode") is not None or node.get("openable") is True


def _is_tried(node: Mapping[str, Any] | None) -> bool:
    """Tell whether it is known of a node that it opens; one for everybody needs no trial."""
    if node is None or "openable" in node:
        return True
    try:
        return int(str(node.get("mode")), 8) & EVERYBODY == EVERYBODY
    except ValueError:
        return False


def _card_nodes(case: Case, there: Mapping[str, Any]) -> list[str]:
    minors = [gpu.get("minor_number") for gpu in case.working]
    if all(minor is not None for minor in minors):
        return [f"nvidia{minor}" for minor in minors]
    numbered = sorted(node for node in there if node[len("nvidia") :].isdigit())
    lacking = len(minors) - len(numbered)
    return numbered[: len(minors)] + [f"nvidia<N> (number {n + 1})" for n in range(lacking)]


def _node_problem(name: str, node: Mapping[str, Any] | None) -> list[str]:
    if node is None:
        return [f"/dev/{name}: is not there"]
    if node.get("openable") is not False:
        return []
    owner = ":".join(str(node[key]) for key in ("owner", "group") if node.get(key))
    rights = " ".join(part for part in (str(node.get("mode") or ""), owner) if part)
    said = str(node.get("message") or "can't be opened")
    return [f"/dev/{name}: {said} ({rights})" if rights else f"/dev/{name}: {said}"]


def _library(case: Case, host: Mapping[str, Any]) -> Found:
    name = "gpu_library"
    module = host.get("module") or {}
    if module.get("loaded") is False:
        return []  # gpu_driver says so
    loaded = module.get("loaded_version")
    library = (host.get("library") or {}).get("version")
    if not loaded or not library:
        parts = [part for part, known in (("module", loaded), ("library", library)) if not known]
        return without_part(case, name, host, *parts)
    outcome = PASS if library == loaded else MISSED
    path = (host.get("library") or {}).get("path") or "libnvidia-ml"
    evidence = f"{path}, against the module that is loaded"
    return finding(case, name, outcome, library, limit=loaded, evidence=evidence)


def _next_kernel(case: Case, host: Mapping[str, Any]) -> Found:
    name, kernels = "gpu_next_kernel", host.get("kernels")
    following = [kernel for kernel in kernels or [] if kernel.get("default")]
    if kernels is None:
        return without_part(case, name, host, "kernels")
    if not following:
        said = (host.get("next_kernel") or {}).get("message")
        evidence = said or "it is not known which kernel boots next"
        return finding(case, name, UNKNOWN, evidence=evidence)
    kernel = following[0]
    release, version = kernel.get("release"), kernel.get("module_version")
    library = (host.get("library") or {}).get("version")
    if not kernel.get("has_module"):
        evidence = "the module nvidia is not there for the kernel that boots next"
        evidence += f": {kernel['message']}" if kernel.get("message") else ""
        return finding(case, name, MISSED, release, evidence=evidence)
    if version and library and version != library:
        evidence = f"the kernel that boots next has module {version}, the library is {library}"
        return finding(
            case, name, MISSED, version, limit=library, evidence=evidence,
            remedy="bring module and library to one version before the next reboot",
        )  # fmt: skip
    evidence = f"it has module {version}" if version else "it has the module"
    return finding(case, name, PASS, release, evidence=evidence)


def _nouveau(case: Case, host: Mapping[str, Any]) -> Found:
    devices = host.get("pci")
    if devices is None:
        return without_part(case, "gpu_nouveau", host, "pci")
    if not devices:
        return finding(case, "gpu_nouveau", NA, evidence="no NVIDIA device on the PCI bus")
    held = [str(item.get("address")) for item in devices if item.get("driver") == "nouveau"]
    drivers = sorted({str(item.get("driver") or "none") for item in devices})
    evidence = f"drivers of the NVIDIA devices: {', '.join(drivers)}"
    outcome = MISSED if held else PASS
    return finding(case, "gpu_nouveau", outcome, held, limit=[], evidence=evidence)


def _secure_boot(case: Case, host: Mapping[str, Any]) -> Found:
    name, boot = "gpu_secure_boot", host.get("secure_boot") or {}
    # Where the firmware's variables aren't to be had, as in a container: what is loaded was let in.
    loaded = bool((host.get("module") or {}).get("loaded")) and boot.get("refused") is False
    unknown = boot.get("enabled") is None or (boot["enabled"] and boot.get("refused") is None)
    if unknown and not boot.get("refused") and not loaded:
        return without_part(case, name, host, "secure_boot")
    signer = f"the module is signed by {boot['signer']}" if boot.get("signer") else ""
    state = {None: "unknown", True: "enabled"}.get(boot.get("enabled"), "disabled")
    if boot.get("refused"):
        said = ("the kernel refused the module's key", signer)
        evidence = "; ".join(part for part in said if part)
        return finding(case, name, MISSED, state, evidence=evidence)
    evidence = signer or ("the module is loaded" if loaded else "the kernel refused no key")
    return finding(case, name, PASS, state, evidence=evidence)


def _environment(case: Case, host: Mapping[str, Any]) -> Found:
    name, entries = "gpu_cuda_environment", host.get("environment")
    if entries is None:
        return without_part(case, name, host, "environment")
    patterns: Sequence[str] = limit_of(case, name) or ()
    bad = [
        f"{entry.get('unit')}: {entry.get('name')}"
        for entry in entries
        if any(fnmatchcase(str(entry.get("name")), pattern) for pattern in patterns)
    ]
    outcome = MISSED if bad else PASS
    evidence = f"none of {', '.join(patterns)} is wanted"
    return finding(case, name, outcome, bad, limit=[], evidence=evidence)


def _toolkit(case: Case, host: Mapping[str, Any]) -> Found:
    name, toolkit = "gpu_container_toolkit", host.get("toolkit")
    if not case.containers:
        return finding(case, name, NA, evidence="no container is declared to use the GPUs")
    if toolkit is None:
        return without_part(case, name, host, "toolkit")
    version, problem = toolkit.get("version"), _toolkit_problem(case, toolkit)
    if problem:
        return finding(case, name, MISSED, version, evidence=problem)
    if toolkit.get("char_links") is False:
        evidence = (
            "/dev/char has no links to the GPUs: a daemon-reload takes them from containers "
            "(NVIDIA/nvidia-container-toolkit#48)"
        )
        return finding(case, name, LESSER, version, evidence=evidence)
    file = toolkit.get("cdi_file")
    if not file:
        evidence = "there is no CDI specification; Docker's own runtime does without"
        return finding(case, name, INFO, version, evidence=evidence)
    return finding(case, name, PASS, version, evidence=f"{file} lists every GPU")


def _toolkit_problem(case: Case, toolkit: Mapping[str, Any]) -> str:
    """Say what is missing, or why the CDI specification does not fit; empty for nothing."""
    if not toolkit.get("installed", toolkit.get("version") is not None):
        return "nvidia-ctk is not installed"
    file = toolkit.get("cdi_file")
    if not file:
        return ""
    devices = {str(device) for device in toolkit.get("cdi_gpus") or []}
    lacking = [gpu for gpu in case.working if not _is_listed(gpu, devices)]
    if lacking:
        missing = ", ".join(str(gpu.get("uuid") or gpu["index"]) for gpu in lacking)
        return f"{file} lacks {missing}"
    made, runs = toolkit.get("driver_version"), case.driver.get("version")
    if made and runs and made != runs:
        return f"{file} is for driver {made}, the driver is {runs}"
    return ""


def _dcgm(case: Case, host: Mapping[str, Any]) -> Found:
    name, dcgm, unread = "gpu_dcgm", host.get("dcgm"), errors_of(host, "dcgm")
    if unread:  # its output has no stable schema: no reason to stop a run
        return finding(case, name, LESSER, None, evidence="; ".join(unread))
    if dcgm is None or not dcgm.get("installed"):
        evidence = "nobody asked it" if dcgm is None else "DCGM is not installed"
        return finding(case, name, NA, evidence=evidence)
    if not dcgm.get("running"):
        evidence = "DCGM is installed, its host engine does not run: start nvidia-dcgm.service"
        return finding(case, name, INFO, evidence=evidence)
    problems = dcgm.get("problems") or []
    failed = any(problem.get("status") == "fail" for problem in problems)
    outcome = MISSED if failed else LESSER if problems else PASS
    evidence = f"{dcgm.get('passed', 0)} results of level 1 were fine"
    said = [_dcgm_problem(problem) for problem in problems]
    return finding(case, name, outcome, said, limit=[], evidence=evidence)


def _dcgm_problem(problem: Mapping[str, Any]) -> str:
    gpus = ", ".join(problem.get("gpus") or [])
    where = f" of GPU {gpus}" if gpus else ""
    message = problem.get("message") or "no reason given"
    return f"{problem.get('test')}{where}: {problem.get('status')}, {message}"


def _is_listed(gpu: Mapping[str, Any], devices: set[str]) -> bool:
    """Tell whether a specification names a GPU, in one of the toolkit's three ways of naming."""
    names = {str(gpu.get("uuid")), str(gpu["index"]), f"gpu{gpu['index']}"}
    return bool(names & devices)


RULES = (
    ("gpu_pci_count", _pci_count),
    ("gpu_device_nodes", _device_nodes),
    ("gpu_library", _library),
    ("gpu_next_kernel", _next_kernel),
    ("gpu_nouveau", _nouveau),
    ("gpu_secure_boot", _secure_boot),
    ("gpu_cuda_environment", _environment),
    ("gpu_container_toolkit", _toolkit),
    ("gpu_dcgm", _dcgm),
)
# What says nothing of a driver that is not this kernel's.
OF_THE_KERNEL = frozenset(
    {
        "gpu_pci_count",
        "gpu_device_nodes",
        "gpu_library",
        "gpu_next_kernel",
        "gpu_nouveau",
        "gpu_secure_boot",
    }
)
