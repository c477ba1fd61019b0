# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Simulated machines with GPUs for the tests of what reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_facts import read_gpus
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable

ROOT = Path(__file__).resolve().parents[2]
SIM = ROOT / "tests" / "lab" / "sim_gpu"
PROFILES = sorted(path.stem for path in (SIM / "profiles").glob("*.conf"))
SOURCES = ("nvml", "nvidia-smi")
MIB, MHZ = 1024 * 1024, 1_000_000
# What nvidia-smi's report has no element for, or none that says so.
NVML_ONLY = {"compute_capability", "energy_joules", "power_violation_ns", "inforom_valid"}
# nvidia-smi shows distances in place of thresholds where the card has both.
THRESHOLDS = {
    "temperature_shutdown_c",
    "temperature_slowdown_c",
    "temperature_max_c",
    "temperature_memory_max_c",
}

# Every child starts with this; `answer(f, ...)` is a value, or the number of the NVML error.
PRELUDE = """
import json, os, sys, time
from pynvml import *
def answer(function, *args):
    try:
        return function(*args)
    except NVMLError as error:
        return {"error": error.value}
def show(**values):
    print(json.dumps(values))
"""


def build(directory: Path) -> Path:
    """Build the simulated NVML and nvidia-smi into a directory."""
    subprocess.run(["sh", str(SIM / "build.sh"), str(directory)], check=True)
    return directory


class Simulated:
    """A simulated machine: call it with a profile, by name or as a text, to read its GPUs."""

    def __init__(self, libraries: Path, monkeypatch: Any, folder: Path) -> None:
        self.smi = str(libraries / "nvidia-smi")
        self.activity = folder / "activity"
        self.activity.mkdir()
        self._folder, self._monkeypatch = folder, monkeypatch
        monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
        monkeypatch.setenv("SIM_GPU_ACTIVITY_DIR", str(self.activity))
        monkeypatch.setenv("PATH", f"{libraries}{os.pathsep}{os.environ['PATH']}")

    def choose(self, profile: str) -> None:
        """Let this be the machine for everything that is started from now on."""
        path = SIM / "profiles" / f"{profile}.conf"
        if "[gpu" in profile:  # a text
            path = self._folder / "profile.conf"
            path.write_text(profile)
        self._monkeypatch.setenv("SIM_NVML_PROFILE", str(path))

    def __call__(
        self,
        profile: str,
        source: str,
        timeout_s: float = 20.0,
        run: Callable[..., Any] = run_killable,
    ) -> dict[str, Any]:
        """Read the machine's GPUs."""
        self.choose(profile)
        return read_gpus(source, sys.executable, self.smi, timeout_s, run)


class Machine:
    """A simulated machine: runs Python with nvidia-ml-py, or nvidia-smi, against one profile.

    Each check runs in a child: the binding keeps a loaded library until its process ends.
    """

    def __init__(self, built, activity_dir):
        self.built = built
        self.activity_dir = activity_dir
        self.profile = SIM / "profiles" / "rtx-4070-ti-x2.conf"

    @property
    def env(self):
        return {
            "PATH": os.environ["PATH"],
            "LD_LIBRARY_PATH": str(self.built),
            "SIM_NVML_PROFILE": str(self.profile),
            "SIM_GPU_ACTIVITY_DIR": str(self.activity_dir),
        }

    def use(self, name):
        self.profile = SIM / "profiles" / f"{name}.conf"
        return self

    def run_python(self, code, timeout=20):
        argv = [sys.executable, "-c", PRELUDE + textwrap.dedent(code)]
        return subprocess.run(
            argv, env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )

    def python(self, code):
        """Run code after nvmlInit; return what it showed."""
        done = self.run_python("nvmlInit()\n" + textwrap.dedent(code))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def init_error(self):
        done = self.run_python("show(rc=answer(nvmlInit))")
        assert done.returncode == 0, done.stderr
        rc = json.loads(done.stdout)["rc"]
        return (rc["error"] if rc else 0), done.stderr

    def smi(self, *args, timeout=20):
        return subprocess.run(
            [self.built / "nvidia-smi", *args],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def query(self, fields, *args):
        done = self.smi(f"--query-gpu={fields}", "--format=csv,noheader", *args)
        assert done.returncode == 0, done.stdout
        return [line.split(", ") for line in done.stdout.splitlines()]

    def write_profile(self, tmp_path, text):
        self.profile = tmp_path / "profile.conf"
        self.profile.write_text(textwrap.dedent(text))
        return self

    def announce(self, pid, memory=(), util=(), busy_for=60.0, name="/usr/local/bin/ollama runner"):
        """Write the activity file that the simulated engine writes."""
        lines = [f"pid={pid}", f"name={name}", f"busy_until={time.time() + busy_for:.3f}"]
        lines += [f"gpu.{index}.memory={value}" for index, value in enumerate(memory)]
        lines += [f"gpu.{index}.util={value}" for index, value in enumerate(util)]
        temporary = self.activity_dir / f".{pid}.tmp"
        temporary.write_text("\n".join(lines) + "\n")
        temporary.rename(self.activity_dir / str(pid))
