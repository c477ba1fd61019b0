# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the readings of simulated machines mean: the verdicts, the module, and the role."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_machine import PROFILES, ROOT, SOURCES, Simulated, build

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health import Inventory, judge

GEFORCE = [name for name in PROFILES if name.startswith("rtx-")]
HARMLESS = {"N/A", "PASS", "INFO"}
# A host whose driver is not this kernel's, as where the tests run; CUDA is tried elsewhere.
HOST = {
    "module": {"loaded": False},
    "library": {},
    "pci": [],
    "nodes": [],
    "environment": [],
    "persistence_daemon": "inactive",
    "cuda": {"state": "not_tried", "message": "it was not asked for", "gpus": []},
    "xids": {"entries": [], "message": ""},
    "errors": [],
}
DECLARED = {"count": 2, "name": "RTX 4070 Ti", "driver_min": "575.64.03", "cuda_min": "12.9"}


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    return build(tmp_path_factory.mktemp("sim_gpu"))


@pytest.fixture
def simulated(libraries, monkeypatch, tmp_path):
    return Simulated(libraries, monkeypatch, tmp_path)


def judged(facts, expected=None, earlier=None, **inventory):
    given = Inventory(expected=expected or {}, **inventory)
    return judge(facts, HOST, given, time.time(), earlier)


def sick(report):
    """Return what is not harmless: check, index of the GPU, status, action."""
    return {
        (health.check, health.gpu, health.status, health.action)
        for health in report.checks
        if health.status not in HARMLESS and not health.because
    }


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("profile", GEFORCE)
def test_a_healthy_geforce_is_not_yellow(simulated, profile, source):
    report = judged(simulated(profile, source))
    assert {health.status for health in report.checks} <= HARMLESS
    assert report.message("llm-01") == ""
    assert {verdict.status for verdict in report.verdicts} == {"PASS"}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("h200-x1", set()),
        ("h100-x1", set()),
        ("l40s-x1", {("gpu_persistence", 0, "WARN", "fix_config")}),
        ("t4-x1", {("gpu_pcie_width", 0, "WARN", "service")}),  # 8 lanes, a provider's choice
    ],
)
def test_data_centre_cards(simulated, profile, source, expected):
    assert sick(judged(simulated(profile, source))) == expected


@pytest.mark.parametrize("source", SOURCES)
def test_an_h200_has_all_that_a_geforce_lacks(simulated, source):
    checks = {health.check: health for health in judged(simulated("h200-x1", source)).checks}
    for name in ("gpu_ecc", "gpu_remapped_rows", "gpu_mig", "gpu_sram", "gpu_temperature_margin"):
        assert checks[name].status == "PASS", name


FAULTS = [
    ("fault-over-temperature", "gpu_temperature", 1, "CRITICAL", "service"),
    ("fault-hw-slowdown", "gpu_hw_slowdown", 1, "WARN", "service"),
    ("fault-pcie-x4", "gpu_pcie_width", 1, "CRITICAL", "service"),
    ("fault-recovery-reset", "gpu_recovery_action", 1, "CRITICAL", "reset_gpu"),
    ("fault-xid-recovery", "gpu_recovery_action", 1, "CRITICAL", "reboot"),
    ("fault-ecc-uncorrected", "gpu_ecc", 0, "CRITICAL", "reset_gpu"),
    ("fault-ecc-uncorrected", "gpu_sram", 0, "WARN", "service"),
    ("fault-row-remap-pending", "gpu_remapped_rows", 0, "CRITICAL", "reset_gpu"),
    ("fault-row-remap-failed", "gpu_remapped_rows", 0, "CRITICAL", "service"),
    ("fault-mig-pending", "gpu_mig", 0, "WARN", "reset_gpu"),
    ("fault-retired-pages-pending", "gpu_retired_pages", 0, "CRITICAL", "reset_gpu"),
    ("fault-gpu-lost", "gpu_state", 1, "CRITICAL", "reboot"),
    ("fault-hang", "gpu_driver", None, "CRITICAL", "reboot"),
    ("fault-driver-missing", "gpu_driver", None, "CRITICAL", "fix_config"),
    ("fault-library-mismatch", "gpu_driver", None, "CRITICAL", "reboot"),
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("profile", "check", "gpu", "status", "action"), FAULTS)
def test_faults(simulated, source, profile, check, gpu, status, action):
    report = judged(simulated(profile, source, timeout_s=2.0 if "hang" in profile else 20.0))
    assert (check, gpu, status, action) in sick(report)
    if gpu == 1 and profile != "fault-gpu-lost":
        assert not [entry for entry in sick(report) if entry[1] == 0]
    said = report.message("llm-01")
    assert (check in said) == (status == "CRITICAL")


def test_a_corrupt_inforom(simulated):
    report = judged(simulated("fault-inforom-corrupt", "nvml"))
    assert sick(report) == {("gpu_inforom", 1, "CRITICAL", "service")}


@pytest.mark.parametrize("source", SOURCES)
def test_a_count_that_is_not_declared(simulated, source):
    report = judged(simulated("fault-one-gpu-missing", source), DECLARED)
    assert sick(report) == {("gpu_count", None, "CRITICAL", "service")}
    assert "llm-01 GPUs: gpu_count is 1, wanted 2" in report.message("llm-01")


@pytest.mark.parametrize("source", SOURCES)
def test_a_card_that_tells_next_to_nothing(simulated, source):
    report = judged(simulated("fault-not-supported", source))
    assert sick(report) == set()
    cards = {health.check: health.status for health in report.checks if health.gpu == 0}
    told = {check for check, status in cards.items() if status != "N/A"}
    assert {"gpu_state", "gpu_readings", "gpu_memory"} <= told
    assert {"gpu_temperature", "gpu_hw_slowdown", "gpu_pcie_width"}.isdisjoint(told)


def test_one_read_that_fails(simulated):
    profile = "error.nvmlDeviceGetTemperature* = unknown\n[gpu 0]\n"
    report = judged(simulated(profile, "nvml"))
    assert ("gpu_temperature", 0, "UNKNOWN", "fix_config") in sick(report)


@pytest.mark.parametrize("source", SOURCES)
def test_the_power_cap_of_a_policy(simulated, source):
    facts = simulated("fault-power-cap", source)
    assert sick(judged(facts)) == set()
    found = sick(judged(facts, policy={"gpu_power_limit": {"limit": 285}}))
    assert found == {("gpu_power_limit", 1, "WARN", "fix_config")}


@pytest.mark.parametrize("source", SOURCES)
def test_a_counter_that_grows(simulated, source):
    before = {**simulated("rtx-4070-ti-x2", source), "time": time.time() - 3600}
    report = judged(simulated("fault-hw-slowdown", source), earlier=before)
    assert ("gpu_throttle_time", 1, "WARN", "service") in sick(report)
    assert not [entry for entry in sick(report) if entry[1] == 0]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("C", "/usr/local/bin/ollama runner", set()),
        ("C", "/opt/miner", {("gpu_foreign_processes", 0, "CRITICAL", "restart_app")}),
        ("G", "/usr/bin/Xwayland", {("gpu_graphics_processes", 0, "WARN", "fix_config")}),
    ],
)
def test_programs(simulated, source, kind, name, expected):
    entry = f"pid={os.getpid()}\nname={name}\ntype={kind}\ngpu.0.memory=1048576\n"
    (simulated.activity / str(os.getpid())).write_text(entry)
    assert sick(judged(simulated("rtx-4070-ti-x2", source))) == expected


@pytest.mark.parametrize("source", SOURCES)
def test_a_slow_link_under_load(simulated, source):
    profile = "[gpu 0]\npcie_gen_load = 2\n"
    assert sick(judged(simulated(profile, source))) == set()
    entry = (
        f"pid={os.getpid()}\nname=ollama\ngpu.0.util=80\ngpu.0.memory=1048576\n"
        f"busy_until={time.time() + 60}\n"
    )
    (simulated.activity / str(os.getpid())).write_text(entry)
    found = sick(judged(simulated(profile, source)))
    assert found == {("gpu_pcie_generation", 0, "WARN", "service")}


# ---------------------------------------------------------------- the module


def module(**options):
    options = {"python": sys.executable, "host": "llm-01", **options}
    argv = [
        str(Path(sys.executable).with_name("ansible")),
        "localhost",
        "--connection=local",
        "--module-name=hx_infra.llm.gpu_health",
        f"--args={json.dumps(options)}",
        "--extra-vars=ansible_python_interpreter=" + sys.executable,
    ]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return json.loads(ended.stdout[ended.stdout.index("=> {") + 3 :]), ended.stderr


def test_the_module_judges_what_it_reads_itself(simulated):
    simulated.choose("fault-over-temperature")
    found, _said = module(host_facts=HOST, expected=DECLARED, fail=True)
    assert found["msg"].startswith("1 GPU check failed. llm-01 GPU 1 (")
    assert "gpu_temperature is 97 °C, wanted 96 °C" in found["msg"]
    assert "next action: service" in found["msg"]
    assert (found["status"], found["verdict"], found["action"]) == ("CRITICAL", "FAIL", "service")
    assert (found["changed"], found["actions"], found["plan"]) == (False, [], [])
    assert found["source"] == "nvml"


def test_the_module_takes_policy_and_acceptances(simulated):
    facts = simulated("fault-over-temperature", "nvml")
    accept = [
        {"check": "gpu_temperature", "gpu": 1, "reason": "fan is ordered", "until": "2999-12-31"},
        {"check": "gpu_ecc", "gpu": 7, "reason": "gone"},
    ]
    found, said = module(
        gpu_facts=facts,
        host_facts=HOST,
        accept=accept,
        policy={"gpu_hw_slowdown": {"severity": "INFO"}, "gpu_bar1": {"enabled": False}},
        xids={"79": {"severity": "WARN"}},
        fail=True,
    )
    assert "msg" not in found
    assert (found["status"], found["verdict"], found["disabled"]) == ("WARN", "WARN", ["gpu_bar1"])
    assert found["notes"] == [
        "the acceptance of gpu_ecc of GPU 7 is for a GPU that this host does not show"
    ]
    assert "llm-01: the acceptance of gpu_ecc of GPU 7" in " ".join(said.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": {"gpu_temprature": {}}}, "llm-01: The policy of the GPU checks is refused."),
        ({"accept": [{"check": "gpu_ecc"}]}, "accept[0].reason: found nothing, wanted a reason"),
        ({"gpu_facts": {"gpus": []}}, "gpu_facts has the keys gpus; wanted: the result of"),
        ({"host_facts": {"pci": []}}, "host_facts has the keys pci; wanted: the result of"),
        ({"earlier": {"gpus": []}}, "earlier has the keys gpus; wanted: a result of"),
    ],
)
def test_the_module_refuses_what_means_nothing(simulated, options, words):
    simulated.choose("rtx-4070-ti-x2")
    found, _said = module(**options)
    assert words in found["msg"]


def test_the_module_keeps_counters_and_rates_the_next_ones(simulated, tmp_path):
    path = tmp_path / "health-counters.json"
    simulated.choose("rtx-4070-ti-x2")
    options = {"host_facts": HOST, "earlier_file": str(path)}
    found, _said = module(**options)
    assert (found["changed"], found["earlier"]["kept"], found["earlier"]["used"]) == (
        False,
        True,
        False,
    )
    assert found["earlier"]["message"] == f"{path} does not exist yet"

    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "time": kept["time"] - 600}))  # as ten minutes ago
    simulated.choose("fault-pcie-x4")  # the same card with 4096 replays
    found, _said = module(**options)
    (rate,) = [
        check
        for check in found["checks"]
        if check["check"] == "gpu_pcie_replays" and check["status"] == "WARN"
    ]
    assert (rate["gpu"], rate["action"]) == (1, "service")
    assert 300 < rate["value"] < 420
    assert found["earlier"] == {"used": True, "kept": False, "message": ""}


def test_a_host_that_nobody_read_is_told(simulated):
    simulated.choose("rtx-4070-ti-x2")
    found, _said = module(fail=True)
    assert "msg" not in found
    assert (found["status"], found["verdict"]) == ("UNKNOWN", "WARN")


# ---------------------------------------------------------------- the role

PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - import_role: {name: hx_infra.llm.gpu_validation}
    - debug:
        msg: >-
          switched off: {{ __gpu_validation_result_health.disabled }};
          CUDA: {{ __gpu_validation_host.cuda.message }}
"""


def play(folder, *arguments, **variables):
    path = folder / "play.yml"
    path.write_text(PLAY)
    given = {
        "ansible_python_interpreter": sys.executable,
        "gpu_validation_python": sys.executable,
        "gpu_validation_cuda": False,
        **variables,
    }
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    argv = [program, "-i", "localhost,", str(path), "-e", json.dumps(given), *arguments]
    ended = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, " ".join((ended.stdout + ended.stderr).split())


def test_the_role_passes_a_healthy_host(simulated, tmp_path):
    simulated.choose("rtx-4070-ti-x2")
    policy = {"gpu_bar1": {"enabled": False}}
    counters = tmp_path / "health-counters.json"
    rc, said = play(
        tmp_path,
        "--check",
        gpu_validation_expected=DECLARED,
        gpu_validation_policy=policy,
        gpu_validation_service_user="nobody-of-that-name",
        gpu_validation_earlier_file=str(counters),
    )
    assert rc == 0, said
    assert "changed=0" in said
    assert not counters.exists()  # a dry run writes nothing
    assert "switched off: ['gpu_bar1']" in said
    assert "CUDA: it was not asked for" in said


def test_the_role_takes_texts_and_the_programs_of_a_second_engine(simulated, tmp_path):
    simulated.choose("rtx-4070-ti-x2")
    (simulated.activity / str(os.getpid())).write_text(
        f"pid={os.getpid()}\nname=VLLM::EngineCore\ngpu.0.memory=1048576\n"
    )
    texts = {
        "gpu_validation_cuda": "false",  # as -e name=value hands it over
        "gpu_validation_timeout": "20",
        "gpu_validation_history_days": "7",
        "gpu_validation_containers": "no",
        "gpu_validation_expected": {"count": "2", "temperature_max_c": "90"},
        "gpu_validation_earlier_file": str(tmp_path / "health-counters.json"),
    }
    rc, said = play(tmp_path, **texts)
    assert rc != 0
    assert "gpu_foreign_processes is VLLM::EngineCore" in said
    assert (tmp_path / "health-counters.json").exists()  # a run that stops keeps its counters too
    rc, said = play(tmp_path, gpu_validation_more_processes=["VLLM::*"], **texts)
    assert rc == 0, said
    assert "changed=0" in said
    assert "CUDA: it was not asked for" in said


def test_the_role_stops_a_sick_one_and_says_why_one_is_accepted(simulated, tmp_path):
    simulated.choose("fault-over-temperature")
    rc, said = play(tmp_path, gpu_validation_service_user="root")
    assert rc != 0
    assert "localhost GPU 1 (" in said
    assert "gpu_temperature is 97 °C, wanted 96 °C" in said
    # a date without quotes is a date to YAML
    inventory = tmp_path / "accept.yml"
    inventory.write_text(
        "gpu_validation_accept: [{check: gpu_temperature, reason: a fan, until: 2020-01-31}]\n"
    )
    rc, said = play(tmp_path, "-e", f"@{inventory}")
    assert rc != 0
    assert "its acceptance ended on 2020-01-31: a fan" in said
