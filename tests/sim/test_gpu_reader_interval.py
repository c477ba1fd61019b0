# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The NVML reader as a file of its own, as a collector runs it: again and again in one session."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
from gpu_machine import ROOT, build

READER = ROOT / "plugins" / "module_utils" / "_gpu_nvml_child.py"
INTERVAL_S = 0.25
PATIENCE_S = 30.0


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    return build(tmp_path_factory.mktemp("sim_gpu"))


class Reader:
    """A running reader and what it has printed."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self._rest = b""

    def line(self):
        """Return the next line; None at the end of the output."""
        while b"\n" not in self._rest:
            ready, _writable, _odd = select.select([self.process.stdout], [], [], PATIENCE_S)
            assert ready, f"nothing more came after {self.lines[-3:]}"
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                assert not self._rest
                return None
            self._rest += data
        text, _end, self._rest = self._rest.partition(b"\n")
        self.lines.append(json.loads(text))
        return self.lines[-1]

    def block(self):
        """Return the lines of the next block."""
        lines = [self.line()]
        while lines[-1] is not None and not {"done", "error"} & set(lines[-1]):
            lines.append(self.line())
        return lines

    def end(self):
        """Close its input; return its exit status and what else it printed."""
        self.process.stdin.close()
        rest = []
        while self.line() is not None:
            rest.append(self.lines[-1])
        return self.process.wait(PATIENCE_S), rest


@pytest.fixture
def start(libraries, tmp_path):
    """A function that starts the reader on a machine with this profile."""
    installed = tmp_path / "gpu_nvml.py"
    installed.write_text(READER.read_text())
    log = tmp_path / "calls"
    started = []

    def begin(profile, *arguments):
        path = tmp_path / "profile.conf"
        path.write_text(f"call_log = {log}\n{profile}")
        env = {
            "PATH": os.environ["PATH"],
            "LD_LIBRARY_PATH": str(libraries),
            "SIM_NVML_PROFILE": str(path),
            "SIM_GPU_ACTIVITY_DIR": str(tmp_path),
        }
        process = subprocess.Popen(
            [sys.executable, "-B", str(installed), *arguments],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return Reader(process)

    begin.calls = lambda: log.read_text().splitlines() if log.exists() else []
    yield begin
    for process in started:
        process.kill()
        with process:  # closes its pipes and waits
            pass


def repeatedly(start, profile="[gpu 0]\n[gpu 1]\n"):
    return start(profile, "--set", "sample", "--interval", str(INTERVAL_S))


def test_blocks_in_one_session(start):
    reader = repeatedly(start)
    blocks = [reader.block() for _turn in range(3)]
    status, rest = reader.end()
    assert status == 0
    assert [line for line in rest if "error" in line] == []
    for number, block in enumerate(blocks, 1):
        assert [sorted(line) for line in block] == [
            ["at", "begin"],
            ["count", "driver"],
            ["reading"],
            ["gpu"],
            ["reading"],
            ["gpu"],
            ["done"],
        ]
        assert block[0]["begin"] == number
        assert [line["gpu"]["index"] for line in block if "gpu" in line] == [0, 1]
        assert block[1]["driver"]["version"] == "575.64.03"
    calls = start.calls()
    assert calls.count("nvmlInitWithFlags") == 1
    for symbol in ("nvmlDeviceGetName", "nvmlDeviceGetMaxPcieLinkWidth"):
        assert [calls.count(f"{symbol} {index}") for index in (0, 1)] == [1, 1]
    assert calls.count("nvmlDeviceGetUtilizationRates 1") >= 3


def test_every_block_has_what_is_constant(start):
    reader = repeatedly(start)
    first, second = (
        [line["gpu"] for line in reader.block() if "gpu" in line] for _turn in range(2)
    )
    assert [gpu["uuid"] for gpu in first] == [gpu["uuid"] for gpu in second]
    assert [set(gpu) for gpu in first] == [set(gpu) for gpu in second]
    assert all(gpu["power_max_limit_watts"] == 285 and gpu["errors"] == [] for gpu in second)


def test_blocks_come_at_multiples_on_the_wall_clock(start):
    reader = repeatedly(start)
    begin = time.time()
    times = [reader.block()[0]["at"] for _turn in range(3)]
    reader.end()
    assert [at / INTERVAL_S % 1 for at in times] == [0, 0, 0]
    assert begin - INTERVAL_S <= times[0] < times[1] < times[2] <= time.time()


def test_a_sample_asks_nothing_that_is_slow(start):
    reader = start("[gpu 0]\nboard = datacenter\n", "--set", "sample")
    assert reader.block()[-1] == {"done": True}
    status, _rest = reader.end()
    assert status == 0
    asked = {call.split()[0] for call in start.calls()}
    slow = {
        "nvmlDeviceValidateInforom",
        "nvmlDeviceGetPcieThroughput",
        "nvmlDeviceGetRetiredPages",
        "nvmlDeviceGetSramEccErrorStatus",
        "nvmlDeviceGetViolationStatus",
        "nvmlDeviceGetComputeRunningProcesses_v3",
    }
    assert not asked & slow
    assert "nvmlDeviceGetFieldValues" in asked


def test_the_file_alone_knows_the_sample_only(start):
    refused = start("[gpu 0]\n", "--set", "full")
    assert refused.process.wait(PATIENCE_S) == 2
    reader = start("[gpu 0]\n")
    (gpu,) = [line["gpu"] for line in reader.block() if "gpu" in line]
    assert "temperature_c" in gpu
    assert "processes" not in gpu


@pytest.mark.parametrize("interval", ["0", "-1", "soon"])
def test_an_interval_that_is_none(start, interval):
    assert start("[gpu 0]\n", "--interval", interval).process.wait(PATIENCE_S) == 2


def test_input_that_ended_before(start):
    reader = start("[gpu 0]\n", "--set", "sample", "--interval", "3600")
    assert reader.end() == (0, [])


def test_what_is_written_to_it_does_no_harm(start):
    reader = repeatedly(start, "[gpu 0]\n")
    reader.process.stdin.write(b"hello\n")
    reader.process.stdin.flush()
    assert reader.block()[-1] == {"done": True}
    assert reader.end()[0] == 0


def test_a_signal_ends_it(start):
    reader = start("[gpu 0]\n", "--set", "sample", "--interval", "3600")
    deadline = time.monotonic() + PATIENCE_S
    while "nvmlDeviceGetCount_v2" not in start.calls() and time.monotonic() < deadline:
        time.sleep(0.02)
    reader.process.send_signal(signal.SIGTERM)
    assert reader.process.wait(PATIENCE_S) == -signal.SIGTERM


def test_a_signal_ends_it_while_the_driver_hangs(start):
    profile = "[gpu 0]\n[gpu 1]\ndelay.nvmlDeviceGetPowerUsage = forever after 1\n"
    reader = repeatedly(start, profile)
    assert reader.block()[-1] == {"done": True}
    while reader.line() != {"reading": 1}:
        pass
    ready, _writable, _odd = select.select([reader.process.stdout], [], [], 1.0)
    assert not ready
    reader.process.send_signal(signal.SIGTERM)
    assert reader.process.wait(PATIENCE_S) == -signal.SIGTERM
    assert reader.line() is None


def test_a_lost_gpu_ends_the_session_after_its_block(start):
    reader = repeatedly(start, "[gpu 0]\n[gpu 1]\nlost_after = 80\n[gpu 2]\n")
    block = reader.block()
    while all(line["gpu"]["state"] == "ok" for line in block if "gpu" in line):
        good, block = block, reader.block()
    states = {line["gpu"]["index"]: line["gpu"]["state"] for line in block if "gpu" in line}
    assert states == {0: "ok", 1: "lost", 2: "ok"}
    assert good[-1] == block[-1] == {"done": True}
    error = reader.line()["error"]
    assert (error["state"], error["code"]) == ("gpu_lost", 15)
    assert error["message"].startswith("GPU 1: ")
    assert reader.line() is None
    assert reader.process.wait(PATIENCE_S) == 1


def test_a_gpu_that_needs_a_reset_ends_the_session(start):
    profile = "[gpu 0]\nerror.nvmlDeviceGetPowerUsage = reset_required after 1\n"
    reader = repeatedly(start, profile)
    assert reader.block()[-1] == {"done": True}
    reader.block()
    assert reader.line()["error"]["state"] == "gpu_reset_required"
    assert reader.process.wait(PATIENCE_S) == 1


def test_an_nvml_that_breaks_down_ends_the_session_at_once(start):
    profile = "[gpu 0]\nerror.nvmlDeviceGetPowerUsage = driver_not_loaded after 2\n"
    reader = repeatedly(start, profile)
    ends = [reader.block()[-1] for _turn in range(3)]
    assert ends[:2] == [{"done": True}] * 2
    assert ends[2]["error"]["state"] == "driver_not_loaded"
    assert ends[2]["error"]["code"] == 9
    assert reader.process.wait(PATIENCE_S) == 1


def test_a_reading_that_fails_for_a_while_does_not_end_it(start):
    profile = "[gpu 0]\nerror.nvmlDeviceGetFanSpeed = timeout after 1\n"
    reader = repeatedly(start, profile)
    first, second = (
        next(line["gpu"] for line in reader.block() if "gpu" in line) for _turn in range(2)
    )
    assert (first["errors"], first["fan_speed_ratio"]) == ([], 0)
    assert [error["what"] for error in second["errors"]] == ["fan_speed_ratio"]
    assert "fan_speed_ratio" not in second
    assert reader.block()[-1] == {"done": True}


@pytest.mark.parametrize(
    ("profile", "state", "code"),
    [
        ("init_error = lib_rm_version_mismatch\n[gpu 0]\n", "version_mismatch", 18),
        ("init_error = driver_not_loaded\n[gpu 0]\n", "driver_not_loaded", 9),
    ],
)
def test_a_session_that_cannot_begin(start, profile, state, code):
    reader = repeatedly(start, profile)
    error = reader.line()["error"]
    assert (error["state"], error["code"]) == (state, code)
    assert reader.process.wait(PATIENCE_S) == 1
