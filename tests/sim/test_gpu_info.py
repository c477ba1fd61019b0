# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GPU facts of simulated machines, healthy and faulty, and the module that returns them."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_machine import MIB, NVML_ONLY, PROFILES, ROOT, SOURCES, THRESHOLDS, Simulated, build

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_facts import STATES, read_gpus
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_nvml import program
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome, run_killable

# Those for which one of the sources has no facts about both GPUs.
UNEVEN = {"fault-driver-missing", "fault-library-mismatch", "fault-gpu-lost", "fault-hang"}


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    return build(tmp_path_factory.mktemp("sim_gpu"))


@pytest.fixture
def simulated(libraries, monkeypatch, tmp_path):
    return Simulated(libraries, monkeypatch, tmp_path)


# ---------------------------------------------------------------- real cards, both sources


@pytest.mark.parametrize("profile", [name for name in PROFILES if name not in UNEVEN])
def test_both_sources_tell_the_same(simulated, profile):
    nvml, smi = (simulated(profile, source) for source in SOURCES)
    assert len(nvml["gpus"]) == len(smi["gpus"]) > 0
    for one, other in zip(nvml["gpus"], smi["gpus"]):
        untold = set(NVML_ONLY)
        if "temperature_margin_c" in other:
            untold |= THRESHOLDS
        if int(nvml["driver"]["version"].split(".")[0]) < 580:
            untold |= {"unrepairable_memory"}
        both = {key: value for key, value in one.items() if key not in untold}
        assert both == {key: value for key, value in other.items() if key not in untold}
        assert not set(other) - set(one)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "profile", ["rtx-2080-super-x1", "rtx-4080-super-x1", "rtx-4070-ti-x2", "rtx-5060-ti-x2"]
)
def test_geforce_has_none_of_a_data_centre_cards_readings(simulated, source, profile):
    for gpu in simulated(profile, source)["gpus"]:
        words = ("ecc_", "retired_", "remapped_", "mig_", "sram_", "unrepairable_")
        assert not [key for key in gpu if key.startswith(words)]
        assert not {"serial", "temperature_memory_c", "temperature_margin_c"} & set(gpu)
        assert gpu["temperature_tlimit_supported"] is False
        assert gpu["recovery_action"] == 0
        assert len(gpu["throttle_ns"]) == 4
        assert gpu["temperature_slowdown_c"] > 90


@pytest.mark.parametrize("source", SOURCES)
def test_turing_cards(simulated, source):
    geforce = simulated("rtx-2080-super-x1", source)
    assert geforce["driver"]["version"] == "610.57.04"
    assert geforce["driver"]["cuda_version"] == "13.3"
    (gpu,) = geforce["gpus"]
    assert gpu["power_draw_watts"] == 39  # that generation gives no average
    assert gpu["power_default_limit_watts"] == 250
    assert gpu["throttle_ns"]["sw_power_cap"] == 15814235622000
    assert (gpu["pcie_link_gen_current"], gpu["pcie_link_gen_max"]) == (1, 3)
    (t4,) = simulated("t4-x1", source)["gpus"]
    assert (t4["retired_pages_double_bit"], t4["retired_pages_pending"]) == (0, False)
    assert not [key for key in t4 if key.startswith(("remapped_", "mig_"))]
    assert (t4["pcie_link_width_current"], t4["pcie_link_width_max"]) == (8, 16)
    assert t4["ecc_errors_uncorrected"] == 0


@pytest.mark.parametrize("source", SOURCES)
def test_data_centre_cards(simulated, source):
    (l40s,) = simulated("l40s-x1", source)["gpus"]
    assert l40s["utilization_gpu_ratio"] == 1  # without persistence it says so while idle
    assert l40s["processes"] == []
    assert (l40s["temperature_margin_c"], l40s["temperature_slowdown_margin_c"]) == (24, -2)
    assert not {"fan_speed_ratio", "mig_mode", "temperature_memory_c"} & set(l40s)
    (h100,) = simulated("h100-x1", source)["gpus"]
    assert (h100["temperature_margin_c"], h100["temperature_memory_c"]) == (46, 48)
    assert (h100["mig_mode"], h100["unrepairable_memory"]) == (False, False)
    assert h100["remapped_rows_failure"] is False


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("profile", "index", "wanted"),
    [
        ("fault-ecc-uncorrected", 0, {"ecc_errors_uncorrected": 3, "recovery_action": 1}),
        ("fault-ecc-uncorrected", 0, {"sram_threshold_exceeded": True}),
        ("fault-row-remap-pending", 0, {"remapped_rows_pending": True}),
        ("fault-row-remap-failed", 0, {"remapped_rows_failure": True, "unrepairable_memory": True}),
        ("fault-retired-pages-pending", 0, {"retired_pages_pending": True}),
        ("fault-recovery-reset", 1, {"recovery_action": 1}),
        ("fault-xid-recovery", 1, {"recovery_action": 2}),
        ("fault-pcie-x4", 1, {"pcie_link_width_current": 4, "pcie_link_width_max": 16}),
        ("fault-power-cap", 1, {"power_limit_watts": 150, "power_default_limit_watts": 285}),
        ("fault-mig-pending", 0, {"mig_mode": False, "mig_mode_pending": True}),
        ("fault-over-temperature", 1, {"temperature_c": 97, "temperature_slowdown_c": 96}),
        (
            "fault-hw-slowdown",
            1,
            {
                "clocks_event_reasons": [
                    "gpu_idle", "hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown",
                ]
            },
        ),
    ],
)  # fmt: skip
def test_sick_cards(simulated, source, profile, index, wanted):
    gpu = simulated(profile, source)["gpus"][index]
    assert {key: gpu.get(key) for key in wanted} == wanted
    assert gpu["state"] == "ok"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("profile", "state"),
    [
        ("fault-driver-missing", "driver_not_loaded"),
        ("fault-library-mismatch", "version_mismatch"),
    ],
)
def test_driver_faults_have_a_name(simulated, source, profile, state):
    facts = simulated(profile, source)
    assert facts["state"] == state
    assert facts["state"] in STATES
    assert facts["gpus"] == []
    assert facts["errors"][0]["state"] == state


@pytest.mark.parametrize("source", SOURCES)
def test_a_gpu_that_is_lost_in_the_middle(simulated, source):
    facts = simulated("fault-gpu-lost", source)
    assert facts["state"] == "ok"
    good, lost = facts["gpus"]
    assert (good["state"], lost["state"]) == ("ok", "lost")
    assert lost["uuid"] == "GPU-4070a0a0-51a0-4000-8000-000000000001"  # read before
    assert "persistence_mode" in good
    assert "compute_mode" not in lost
    assert "lost" in lost["errors"][-1]["message"].lower()


@pytest.mark.parametrize("source", SOURCES)
def test_a_gpu_that_was_lost_before(simulated, source):
    facts = simulated("[gpu 0]\n[gpu 1]\nlost_after = 0\n", source)
    (lost,) = [gpu for gpu in facts["gpus"] if gpu["state"] == "lost"]
    assert lost["index"] == 1


def test_a_driver_that_goes_away_in_the_middle(simulated):
    profile = "[gpu 0]\n[gpu 1]\nerror.nvmlDeviceGetPowerUsage = driver_not_loaded\n"
    facts = simulated(profile, "nvml")
    assert facts["state"] == "driver_not_loaded"
    assert [gpu["index"] for gpu in facts["gpus"]] == [0]


@pytest.mark.parametrize("source", SOURCES)
def test_one_gpu_missing(simulated, source):
    assert len(simulated("fault-one-gpu-missing", source)["gpus"]) == 1


@pytest.mark.parametrize(
    ("source", "timeout_s", "words"),
    [
        ("nvml", 5.0, "while reading GPU 1"),  # time enough to start and to read GPU 0
        ("nvidia-smi", 1.0, "nvidia-smi did not answer within 1 s"),
    ],
)
def test_a_call_that_hangs_is_killed_at_the_deadline(simulated, source, timeout_s, words):
    facts = simulated("fault-hang", source, timeout_s)
    assert facts["state"] == "timeout"
    assert words in facts["errors"][0]["message"]
    assert [gpu["index"] for gpu in facts["gpus"]] == ([0] if source == "nvml" else [])


def test_a_driver_that_hangs_at_once(simulated):
    facts = simulated("init_delay = forever\n[gpu 0]\n", "nvml", timeout_s=1.0)
    assert facts["state"] == "timeout"
    assert "while reading the driver" in facts["errors"][0]["message"]


# ---------------------------------------------------------------- processes, bindings, the module


@pytest.mark.parametrize("source", SOURCES)
def test_work_of_a_process_is_seen(simulated, source):
    gib = 1024**3
    entry = (
        f"pid={os.getpid()}\nname=/usr/local/bin/ollama runner\ngpu.0.memory={2 * gib}\n"
        f"gpu.0.util=87\nbusy_until={time.time() + 60}\n"
    )
    (simulated.activity / str(os.getpid())).write_text(entry)
    busy, idle = simulated("rtx-4070-ti-x2", source)["gpus"]
    assert busy["utilization_gpu_ratio"] == 0.87
    assert busy["memory_used_bytes"] >= 2 * gib
    assert busy["processes"] == [
        {
            "pid": os.getpid(),
            "type": "C",
            "name": "/usr/local/bin/ollama runner",
            "memory_bytes": 2 * gib,
        }
    ]
    assert idle["utilization_gpu_ratio"] == 0
    assert idle["processes"] == []


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["C", "G", "C+G"])
def test_kinds_of_processes(simulated, source, kind):
    entry = f"pid={os.getpid()}\nname=/usr/bin/Xwayland\ntype={kind}\ngpu.0.memory={MIB}\n"
    (simulated.activity / str(os.getpid())).write_text(entry)
    processes = simulated("rtx-4070-ti-x2", source)["gpus"][0]["processes"]
    assert [process["type"] for process in processes] == [kind]


def test_an_older_binding_lacks_functions(simulated):
    gone = (
        "nvmlMemory_v2 nvmlDeviceGetTemperatureV nvmlDeviceGetMarginTemperature "
        "nvmlDeviceGetCurrentClocksEventReasons c_nvmlEccSramErrorStatus_v1_t "
        "nvmlDeviceGetUnrepairableMemoryFlag_v1 nvmlDeviceGetFieldValues nvmlDeviceGetArchitecture"
    )
    prelude = f"import pynvml\nfor name in {gone!r}.split():\n    delattr(pynvml, name)\n"

    def run(argv, timeout_s):
        text = argv[4]
        assert text == program()
        argv = [argv[0], "-I", "-B", "-c", f"{prelude}exec({text!r})", *argv[5:]]
        return run_killable(argv, timeout_s)

    facts = simulated("h200-x1", "nvml", run=run)
    assert (facts["state"], facts["errors"]) == ("ok", [])
    (gpu,) = facts["gpus"]
    assert (gpu["state"], gpu["errors"]) == ("ok", [])
    assert (gpu["temperature_c"], gpu["memory_used_bytes"]) == (37, 616 * MIB)
    assert gpu["clocks_event_reasons"] == ["gpu_idle"]
    lost = {"temperature_margin_c", "sram_threshold_exceeded", "unrepairable_memory", "throttle_ns"}
    assert not lost & set(gpu)


def test_missing_binding_falls_back(simulated):
    def without(argv, timeout_s):
        if argv[0] == sys.executable:
            error = {"state": "no_binding", "message": "No module named 'pynvml'"}
            return Outcome(3, json.dumps({"error": error}) + "\n", "")
        return run_killable(argv, timeout_s)

    facts = simulated("rtx-4070-ti-x2", "auto", run=without)
    assert (facts["source"], facts["state"]) == ("nvidia-smi", "ok")
    assert facts["errors"][0]["state"] == "no_binding"


def test_an_interpreter_without_the_binding_says_so(simulated):
    bare = "/usr/bin/python3"
    if not Path(bare).exists():
        pytest.skip("no second interpreter")
    simulated.choose("rtx-4070-ti-x2")
    facts = read_gpus("nvml", bare, None, 20, run_killable)
    if facts["state"] == "ok":
        pytest.skip("the system's interpreter has the binding")
    assert facts["state"] == "no_binding"
    assert bare in facts["errors"][0]["message"]


def module(arguments):
    argv = [
        str(Path(sys.executable).with_name("ansible")),
        "localhost",
        "--connection=local",
        "--module-name=hx_infra.llm.gpu_info",
        f"--args={json.dumps(arguments)}",
        "--extra-vars=ansible_python_interpreter=" + sys.executable,
    ]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return json.loads(ended.stdout[ended.stdout.index("=> {") + 3 :]), ended.stderr


def test_the_module(simulated):
    simulated.choose("rtx-4080-super-x1")
    (simulated.activity / str(os.getpid())).write_text(
        f"pid={os.getpid()}\nname=ollama\ngpu.0.memory={MIB}\n"
    )
    info, warned = module({"python": sys.executable})
    assert (info["changed"], info["state"], info["source"]) == (False, "ok", "nvml")
    assert info["actions"] == info["plan"] == info["errors"] == info["notes"] == []
    assert info["driver"]["package"]["name"] == "nvidia-ml-py"
    assert info["gpus"][0]["power_max_limit_watts"] == 400
    (process,) = info["gpus"][0]["processes"]
    assert process["user"] == pwd.getpwuid(os.geteuid()).pw_name
    assert "gone" not in process
    assert "pynvml" not in warned


def test_the_module_warns_of_the_deprecated_package(simulated, tmp_path):
    (tmp_path / "packages" / "pynvml-13.0.1.dist-info").mkdir(parents=True)
    python = tmp_path / "python"
    start = (
        f"import sys; sys.path.append({str(tmp_path / 'packages')!r}); text = sys.argv.pop(1); "
        'exec(compile(text, "reader", "exec"), {"__name__": "__main__"})'
    )
    start = start.replace("'", '"')
    python.write_text(f"#!/bin/sh\nshift 3\nexec {sys.executable} -I -B -c '{start}' \"$@\"\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    simulated.choose("rtx-4080-super-x1")
    info, warned = module({"python": str(python)})
    assert (info["state"], info["source"]) == ("ok", "nvml")
    assert info["driver"]["package"]["name"] == "nvidia-ml-py"
    (note,) = info["notes"]
    assert note["what"] == "package"
    assert "pynvml 13.0.1" in note["message"]
    assert "deprecated package pynvml" in " ".join(warned.split())
