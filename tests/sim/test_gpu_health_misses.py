# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each check in both directions: what the simulated drivers or the host say, and the outcome.

Cards are read from the simulated NVML and nvidia-smi, CUDA is tried on the simulated libcuda, and
the host is a tree that the real reader walks; only the programs of a host answer from a table.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import pytest
from gpu_machine import ROOT, SIM, SOURCES, Simulated, build

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health import Inventory, judge
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import CHECKS
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import sentence
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report as report_view
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_files as report_files
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_record as records
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_results as results

sys.path.append(str(ROOT / "tests" / "unit" / "plugins" / "module_utils"))

from gpu_host_samples import Link
from gpu_host_tree import KERNEL, NEXT_KERNEL, cdi, dcgm, module_of, pci, read_host
from xid_samples import BOOT_1, BOOT_2, XID_79

GEFORCE, H200, T4 = "rtx-4070-ti-x2", "h200-x1", "t4-x1"
HOUR_S = 3600
HARMLESS = {"N/A", "PASS", "INFO"}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A simulated machine with NVML, nvidia-smi and CUDA, for all tests of this file."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    libraries = build(tmp_path_factory.mktemp("sim_gpu"))
    subprocess.run(["sh", str(SIM.parent / "sim_cuda" / "build.sh"), str(libraries)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIM_CUDA_GPUS", "2")
        yield Simulated(libraries, patch, tmp_path_factory.mktemp("machine"))


def changed(profile, machine="", card=""):
    """Return a profile's text with settings of the machine and of its last card changed."""
    text = (SIM / "profiles" / f"{profile}.conf").read_text()
    settings, _mark, cards = text.partition("[gpu]\n")
    return f"{settings}{machine}\n[gpu]\n{cards}\n{card}\n"


@pytest.fixture(scope="module")
def healthy(simulated):
    """Return a function that reads a profile as it is, once."""
    read: dict[Any, Any] = {}

    def look(profile, source="nvml"):
        key = (profile, source)
        if key not in read:
            read[key] = simulated(profile, source)
        return read[key]

    return look


@pytest.fixture(scope="module")
def healthy_host(healthy, tmp_path_factory):
    """Return a function that reads the healthy host of a profile, once."""
    read: dict[str, Any] = {}

    def look(profile):
        if profile not in read:
            folder = tmp_path_factory.mktemp(f"host-{profile}")
            # The simulated CUDA has the two cards of one profile only.
            read[profile] = read_host(folder, healthy(profile), cuda=profile == GEFORCE)
        return read[profile]

    return look


def declared(facts):
    """Declare what a healthy machine has, and nothing less."""
    driver, gpus = facts["driver"], facts["gpus"]
    return {
        "count": len(gpus),
        "name": gpus[0]["name"],
        "names": [gpu["name"] for gpu in gpus],
        "uuids": [gpu["uuid"] for gpu in gpus],
        "driver_min": driver["version"],
        "driver_pin": driver["version"],
        "cuda_min": driver["cuda_version"],
    }


def judged(facts, host, normal, *, before=None, **inventory):
    """Judge readings against what is declared of the healthy machine, an hour after a reading."""
    now = time.time()
    options = {"expected": declared(normal), "containers": True, **inventory}
    return judge(
        facts, host, Inventory(**options), now, {**(before or normal), "time": now - HOUR_S}
    )


def statuses(report):
    return {(health.check, health.gpu): health.status for health in report.checks}


def sick(report):
    """Return what is not harmless, and not so because of something else that is told."""
    return {
        (health.check, health.gpu)
        for health in report.checks
        if health.status not in HARMLESS and not health.because
    }


def said(report, check, gpu):
    """Return the sentence of a check, as a run's report and its message have it."""
    (subject,) = {h.subject for h in report.checks if (h.check, h.gpu) == (check, gpu)}
    (verdict,) = [v for v in report.verdicts if (v.check, v.subject) == (check, subject)]
    return sentence(verdict, "llm-01")


# ---------------------------------------------------------------- healthy


# What a healthy machine does not answer with PASS, and why that is right.
NOT_PASSED = {
    GEFORCE: {
        **{check.name: "N/A" for check in CHECKS if check.geforce != "yes"},
        "gpu_pcie_generation": "INFO",  # idle, so not judged
    },
    H200: {"gpu_retired_pages": "N/A", "gpu_cuda": "INFO"},
    T4: {
        "gpu_remapped_rows": "N/A",
        "gpu_mig": "N/A",
        "gpu_sram": "N/A",
        "gpu_unrepairable_memory": "N/A",
        "gpu_temperature_margin": "N/A",
        "gpu_memory_temperature": "N/A",
        "gpu_bar1": "INFO",  # a small one
        "gpu_cuda": "INFO",
        "gpu_pcie_width": "WARN",  # 8 of 16 lanes, a provider's choice
    },
}


@pytest.mark.parametrize("profile", [GEFORCE, H200, T4])
def test_a_healthy_machine_passes_what_it_has(healthy, healthy_host, profile):
    facts = healthy(profile)
    report = judged(facts, healthy_host(profile), facts)
    found = {check: status for (check, _gpu), status in statuses(report).items()}
    assert found == {check.name: NOT_PASSED[profile].get(check.name, "PASS") for check in CHECKS}


def test_every_check_passes_somewhere():
    for check in CHECKS:
        assert any(check.name not in without for without in NOT_PASSED.values()), check.name


# ---------------------------------------------------------------- sick cards


@dataclass(frozen=True)
class Card:
    """A miss that the driver's readings decide.

    Attributes:
        check: the check that misses.
        status: its status.
        words: a piece of its sentence.
        card: settings of the profile's last card.
        machine: settings of the machine.
        profile: the machine that is healthy without these settings.
        gpu: the card that the check names; None for a check of the host.
        before: settings of the last card in the reading an hour ago.
        also: what else is told of such a machine: (check, gpu).
        policy: the site's own limits.
        sources: who tells it.
    """

    check: str
    status: str
    words: str
    card: str = ""
    machine: str = ""
    profile: str = GEFORCE
    gpu: int | None = None
    before: str = ""
    also: tuple[tuple[str, int | None], ...] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = SOURCES


OTHER_UUID = "GPU-4070a0a0-51a0-4000-8000-00000000000f"
CARDS = [
    # the driver and the declaration
    Card(
        "gpu_driver_version", "CRITICAL", "is 570.211.01, wanted 575.64.03 (the declared minimum",
        machine="driver_version = 570.211.01",
        also=(("gpu_driver_pin", None), ("gpu_container_toolkit", None)),
    ),
    Card(
        "gpu_driver_pin", "WARN", "is 575.64.05, wanted 575.64.03 (the declared version",
        machine="driver_version = 575.64.05", also=(("gpu_container_toolkit", None),),
    ),
    Card(
        "gpu_cuda_version", "CRITICAL", "is 12.8, wanted 12.9 (the declared minimum",
        machine="cuda_version = 12.8",
    ),
    Card(
        "gpu_names", "CRITICAL", "missing: NVIDIA GeForce RTX 4070 Ti; not declared: NVIDIA GeForce"
        " RTX 4070 Ti SUPER",
        "name = NVIDIA GeForce RTX 4070 Ti SUPER", also=(("gpu_name", 1),),
    ),
    Card(
        "gpu_name", "CRITICAL", "is NVIDIA GeForce RTX 4060 Ti, wanted NVIDIA GeForce RTX 4070 Ti",
        "name = NVIDIA GeForce RTX 4060 Ti", gpu=1, also=(("gpu_names", None),),
    ),
    Card(
        "gpu_uuids", "CRITICAL", f"not declared: {OTHER_UUID}", f"uuid = {OTHER_UUID}",
        also=(("gpu_cuda", 1),),
    ),
    # heat and power
    # nvidia-smi shows such a card's margins in place of its thresholds
    *(
        Card(
            "gpu_temperature_margin", "CRITICAL", "is -3 °C, wanted -2 °C (at or below the margin",
            "temperature_idle_c = 90", profile=H200, gpu=0, sources=(source,),
            also=(*threshold, ("gpu_hw_slowdown", 0)),
        )
        for source, threshold in (("nvml", [("gpu_temperature", 0)]), ("nvidia-smi", []))
    ),
    *(
        Card(
            "gpu_temperature_margin", "WARN", "is -1 °C, wanted 0 °C (no distance to the card's",
            "temperature_idle_c = 88", profile=H200, gpu=0, sources=(source,), also=threshold,
        )
        for source, threshold in (("nvml", (("gpu_temperature", 0),)), ("nvidia-smi", ()))
    ),
    Card(
        "gpu_memory_temperature", "WARN", "is 97 °C, wanted 89 °C (the card's threshold",
        "temperature_memory_c = 97", profile=H200, gpu=0, sources=("nvml",),
    ),
    Card(
        "gpu_sw_thermal", "WARN", "is 60 minutes, wanted 30 minutes (active in this reading and",
        "clocks_event_reasons = 0x20", gpu=1, before="clocks_event_reasons = 0x20",
    ),
    Card(
        "gpu_sw_thermal", "INFO", "active now; how cards stay within their limits under load",
        "clocks_event_reasons = 0x20", gpu=1,
    ),
    Card(
        "gpu_power_draw", "UNKNOWN", "find out why it can't be read",
        "error.nvmlDeviceGetPowerUsage = unknown", gpu=1, sources=("nvml",),
    ),
    # the PCI Express link
    Card(
        "gpu_pcie_slot", "INFO", "is 4 generation, wanted 5 generation (generation that the card",
        "pcie_gen_gpu_max = 5", gpu=1,
    ),
    Card(
        "gpu_pcie_replays", "WARN", "is 10 per minute, wanted 3 per minute (replays in the last",
        "pcie_replays = 600", gpu=1,
    ),
    # memory and its errors
    Card(
        "gpu_memory", "WARN", "held while no process is listed", "memory_used_mib = 2000", gpu=1,
    ),
    Card("gpu_bar1", "WARN", "free of 17179869184 bytes of BAR1", "bar1_used_mib = 15900", gpu=1),
    Card(
        "gpu_ecc_corrected", "WARN", "is 60000000, wanted 50000000 (corrected errors since the",
        "ecc_corrected_volatile = 60000000", profile=H200, gpu=0,
    ),
    Card(
        "gpu_ecc_mode", "WARN", "is enabled, wanted disabled (ECC mode changes at the next reset",
        "ecc_pending = no", profile=H200, gpu=0,
    ),
    Card(
        "gpu_ecc_mode", "WARN", "is disabled, wanted enabled (the policy's ECC mode",
        "ecc_current = no\necc_pending = no", profile=H200, gpu=0,
        policy={"gpu_ecc_mode": {"limit": "enabled"}},
    ),
    Card(
        "gpu_unrepairable_memory", "CRITICAL", "is True, wanted False", "unrepairable_memory = yes",
        profile=H200, gpu=0,
    ),
    # how it is set up
    Card(
        "gpu_compute_mode", "CRITICAL", "is prohibited, wanted default (no program may compute",
        "compute_mode = 2", gpu=1,
    ),
    Card(
        "gpu_compute_mode", "WARN", "is exclusive_process, wanted default (the policy's compute",
        "compute_mode = 3", gpu=1,
    ),
    # the reading as a whole
    Card(
        "gpu_readings", "UNKNOWN", "vbios_version: ", "error.nvmlDeviceGetVbiosVersion = unknown",
        gpu=1, sources=("nvml",),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("miss", "source"),
    [
        pytest.param(miss, source, id=f"{miss.check}-{miss.status}-{source}")
        for miss in CARDS
        for source in miss.sources
    ],
)
def test_a_sick_card(simulated, healthy, healthy_host, miss, source):
    normal, host = healthy(miss.profile, source), healthy_host(miss.profile)
    assert statuses(judged(normal, host, normal))[miss.check, miss.gpu] == "PASS"
    earlier = simulated(changed(miss.profile, card=miss.before), source) if miss.before else normal
    facts = simulated(changed(miss.profile, miss.machine, miss.card), source)
    report = judged(facts, host, normal, before=earlier, policy=miss.policy)
    assert statuses(report)[miss.check, miss.gpu] == miss.status
    assert miss.words in said(report, miss.check, miss.gpu)
    alarming = {(miss.check, miss.gpu)} if miss.status not in HARMLESS else set()
    assert sick(report) == alarming | set(miss.also)


# ---------------------------------------------------------------- cards that tell nothing

# What is known of a card whatever its driver tells: from the host, or from identity and memory.
XIDS = {"gpu_xid", "gpu_xid_repeated"}
TOLD = XIDS | {"gpu_state", "gpu_readings", "gpu_name", "gpu_memory", "gpu_cuda"}


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_not_supported_is_no_fault(simulated, healthy, healthy_host, source):
    facts = simulated("fault-not-supported", source)
    report = judged(facts, healthy_host(GEFORCE), healthy(GEFORCE))
    mine = {health.check: health.status for health in report.checks if health.gpu == 0}
    assert {check for check, status in mine.items() if status != "N/A"} == TOLD
    assert not [entry for entry in sick(report) if entry[1] == 0]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("profile", "gpu", "cause"),
    [
        ("fault-gpu-lost", 1, "gpu_state"),
        ("fault-library-mismatch", None, "gpu_driver"),
        ("fault-driver-missing", None, "gpu_driver"),
    ],
)
def test_what_cannot_be_judged_is_unknown_and_says_why(
    simulated, healthy, healthy_host, source, profile, gpu, cause
):
    report = judged(simulated(profile, source), healthy_host(GEFORCE), healthy(GEFORCE))
    assert statuses(report)[cause, gpu] == "CRITICAL"
    about_cards = {check.name for check in CHECKS if check.about == "gpu"} - XIDS - {cause}
    found = {
        health.check: (health.status, health.because)
        for health in report.checks
        if health.gpu == gpu and health.check in about_cards
    }
    assert found == dict.fromkeys(about_cards, ("UNKNOWN", cause))


# ---------------------------------------------------------------- sick hosts


@dataclass(frozen=True)
class Around:
    """A miss that the host around healthy cards decides.

    Attributes:
        check, status, words, gpu: as in ``Card``.
        files, gone, answers, log: what differs from the healthy host, see ``read_host``.
        cuda: settings of the simulated CUDA.
        profile: the machine; a name of ``tests/lab/sim_gpu/profiles``.
        also: as in ``Card``.
    """

    check: str
    status: str
    words: str
    files: Mapping[str, Any] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    answers: Mapping[str, Any] = field(default_factory=dict)
    log: tuple[tuple[str, str], ...] = ()
    cuda: Mapping[str, str] = field(default_factory=dict)
    profile: str = GEFORCE
    gpu: int | None = None
    also: tuple[tuple[str, int | None], ...] = ()


NOT_LOADED = ("sys/module/nvidia/version", "dev/nvidia0", "dev/nvidia1")
XID_79_EARLIER = ((XID_79, BOOT_1), (XID_79, BOOT_2))
HOSTS = [
    Around(
        "gpu_host", "UNKNOWN", "modinfo is not installed",
        answers={"modinfo": Outcome(127, "", "modinfo is not installed")},
    ),
    Around(
        "gpu_pci_count", "CRITICAL", "is 2, wanted 3 (the driver does not see 0000:03:00.0",
        files=pci("0000:03:00.0"),
    ),
    Around(
        "gpu_device_nodes", "CRITICAL", "/dev/nvidia1: is not there", gone=("dev/nvidia1",),
    ),
    Around(
        "gpu_device_nodes", "WARN", "the driver's helper makes this node at need",
        gone=("dev/nvidia-uvm",),
    ),
    Around(
        "gpu_library", "WARN", "is 575.99.01, wanted 575.64.03 (/opt/driver/libnvidia-ml.so.575.99",
        files={
            "opt/driver/libnvidia-ml.so.1": Link("libnvidia-ml.so.575.99.01"),
            "opt/driver/libnvidia-ml.so.575.99.01": "",
            **module_of(KERNEL, "575.99.01"),
        },
    ),
    Around(
        "gpu_next_kernel", "WARN", "the module nvidia is not there for the kernel that boots next",
        files={f"lib/modules/{NEXT_KERNEL}/modules.dep": ""},
    ),
    Around(
        "gpu_next_kernel", "WARN", "the kernel that boots next has module 570.1, the library is",
        files=module_of(NEXT_KERNEL, "570.1"),
    ),
    Around(
        "gpu_nouveau", "CRITICAL", "is 0000:01:00.0", profile="fault-driver-missing",
        files=pci("0000:01:00.0", "nouveau"), gone=NOT_LOADED, also=(("gpu_driver", None),),
    ),
    Around(
        "gpu_secure_boot", "CRITICAL", "the kernel refused the module's key; the module is signed",
        profile="fault-driver-missing", gone=NOT_LOADED, also=(("gpu_driver", None),),
        answers={
            "journalctl --boot": "modprobe: ERROR: could not insert 'nvidia': Key was rejected by "
            "service\n",
        },
    ),
    Around(
        "gpu_cuda_environment", "WARN", "is ollama.service: CUDA_PROFILE",
        answers={"systemctl show": "LoadState=loaded\nEnvironment=CUDA_PROFILE=1\n"},
    ),
    Around(
        "gpu_container_toolkit", "CRITICAL", f"lacks {OTHER_UUID[:-1]}1",
        files={"etc/cdi/nvidia.json": cdi("575.64.03", 1)},
    ),
    Around(
        "gpu_container_toolkit", "CRITICAL", "is for driver 535.1, the driver is 575.64.03",
        files={"etc/cdi/nvidia.json": cdi("535.1", 2)},
    ),
    Around(
        "gpu_dcgm", "CRITICAL", "software of GPU 1: fail, Pending page retirements.",
        answers={
            "dcgmi diag": Outcome(226, dcgm({
                "entity_group": "GPU", "entity_id": 1, "status": "Fail",
                "warnings": [{"error_id": 95, "warning": "Pending page retirements."}],
            }), ""),
        },
    ),
    Around(
        "gpu_cuda", "CRITICAL", "cuMemAlloc_v2: CUDA_ERROR_LAUNCH_FAILED (719)", gpu=1,
        cuda={"FAIL": "cuMemAlloc_v2@1=719"},
    ),
    Around(
        "gpu_cuda", "CRITICAL", "1 of 1048576 bytes came back wrong", gpu=1,
        cuda={"STUCK_BIT": "1:70000:3"},
    ),
    Around(
        "gpu_cuda", "CRITICAL", "CUDA does not list this GPU", gpu=1, cuda={"GPUS": "1"},
    ),
    Around(
        "gpu_xid", "CRITICAL", "Xid 79 GPU has fallen off the bus, once", gpu=0,
        log=((XID_79, BOOT_2),),
    ),
    Around(
        "gpu_xid_repeated", "CRITICAL", "is 2 boots, wanted 2 boots", gpu=0,
        log=XID_79_EARLIER, also=(("gpu_xid", 0),),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    "miss", [pytest.param(miss, id=f"{miss.check}-{miss.status}") for miss in HOSTS]
)
def test_a_sick_host(simulated, healthy, healthy_host, tmp_path, monkeypatch, miss):
    normal = healthy(GEFORCE)
    assert statuses(judged(normal, healthy_host(GEFORCE), normal))[miss.check, miss.gpu] == "PASS"
    for name, value in miss.cuda.items():
        monkeypatch.setenv(f"SIM_CUDA_{name}", value)
    facts = normal if miss.profile == GEFORCE else simulated(miss.profile, "nvml")
    host = read_host(
        tmp_path, normal, files=miss.files, gone=miss.gone, answers=miss.answers, log=miss.log,
        cuda=facts["state"] == "ok",
    )  # fmt: skip
    report = judged(facts, host, normal)
    assert statuses(report)[miss.check, miss.gpu] == miss.status
    assert miss.words in said(report, miss.check, miss.gpu)
    assert sick(report) == {(miss.check, miss.gpu), *miss.also}


# ---------------------------------------------------------------- accepted, in the run's report


@pytest.mark.parametrize("template", ["report.html.j2", "report.md.j2"])
def test_the_report_of_a_run_shows_what_is_accepted_and_why(
    simulated, healthy, healthy_host, template
):
    normal = healthy(GEFORCE)
    facts = simulated("fault-over-temperature", "nvml")
    accept = [{"check": "gpu_temperature", "gpu": 1, "reason": "fan 7731 is ordered"}]
    found = judged(facts, healthy_host(GEFORCE), normal, accept=accept).as_dict()
    assert (found["status"], found["verdict"]) == ("WARN", "WARN")
    begin = datetime.now(timezone.utc)
    record = records.open_record(
        begin,
        host="llm-01",
        mode="real",
        controller={"ansible_core": "2.18.9", "limit": "", "tags": []},
    )
    registered = {"__gpu_validation_result_health": {"changed": False, **found}}
    verdicts = results.verdicts_of_role("gpu_validation", registered)
    record = records.end_phase(record, "prepare", begin, verdicts=verdicts)
    record = records.close(record, begin)
    assert (record["verdict"], record["failure"]) == ("WARN", None)
    path = ROOT / "roles" / "run_report" / "templates" / template
    rows = report_files.render(str(path), report_view.view(record)).splitlines()
    (row,) = [row for row in rows if "accepted: " in row]
    assert "WARN" in row
    assert "gpu temperature" in row
    assert "97 °C" in row
    assert "accepted: fan 7731 is ordered" in row


# ---------------------------------------------------------------- every check

# Checks whose misses another test brings about with the simulated drivers.
ELSEWHERE = {
    "gpu_driver": "test_gpu_health.py::test_faults",
    "gpu_count": "test_gpu_health.py::test_a_count_that_is_not_declared",
    "gpu_state": "test_gpu_health.py::test_faults",
    "gpu_recovery_action": "test_gpu_health.py::test_faults",
    "gpu_inforom": "test_gpu_health.py::test_a_corrupt_inforom",
    "gpu_temperature": "test_gpu_health.py::test_faults",
    "gpu_hw_slowdown": "test_gpu_health.py::test_faults",
    "gpu_throttle_time": "test_gpu_health.py::test_a_counter_that_grows",
    "gpu_power_limit": "test_gpu_health.py::test_the_power_cap_of_a_policy",
    "gpu_pcie_width": "test_gpu_health.py::test_faults",
    "gpu_pcie_generation": "test_gpu_health.py::test_a_slow_link_under_load",
    "gpu_ecc": "test_gpu_health.py::test_faults",
    "gpu_sram": "test_gpu_health.py::test_faults",
    "gpu_retired_pages": "test_gpu_health.py::test_faults",
    "gpu_remapped_rows": "test_gpu_health.py::test_faults",
    "gpu_persistence": "test_gpu_health.py::test_data_centre_cards",
    "gpu_mig": "test_gpu_health.py::test_faults",
    "gpu_foreign_processes": "test_gpu_health.py::test_programs",
    "gpu_graphics_processes": "test_gpu_health.py::test_programs",
}


def test_every_check_has_a_miss_here_or_in_a_test_that_exists():
    here = {miss.check for miss in (*CARDS, *HOSTS)}
    assert not here & set(ELSEWHERE)
    assert sorted(here | set(ELSEWHERE)) == sorted(check.name for check in CHECKS)


@pytest.mark.parametrize("check", sorted(ELSEWHERE))
def test_a_miss_elsewhere_names_its_check(check):
    file, _mark, name = ELSEWHERE[check].partition("::")
    text = (ROOT / "tests" / "sim" / file).read_text()
    tree = ast.parse(text)
    (test,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
    tables = {n.id for n in ast.walk(test) if isinstance(n, ast.Name)}
    parts = [test] + [
        node
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id in tables for target in node.targets)
    ]
    texts = {n.value for part in parts for n in ast.walk(part) if isinstance(n, ast.Constant)}
    assert check in texts
