# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``bench/telemetry``: what a sample of all GPUs costs, next to the shell loop that it replaces.

The loop is the one that operators have today: ``nvidia-smi --query-gpu=...`` into ``awk`` into a
file. It only writes its CSV lines; the collector also writes textfiles and state, durably. Both
run on the simulated GPU, whose calls cost nothing, so these are the costs of the programs alone;
with ``--real`` on the card and the driver of this machine. Prints figures, asserts nothing.

    telemetry.py [--real] [ROUNDS]
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "telemetry"
SIM = ROOT / "tests" / "lab" / "sim_gpu"
RUNS = 20  # samples of a round
STREAM_INTERVAL_S = 0.1
PATIENCE_S = 60.0
COLUMNS = (
    "timestamp,index,name,uuid,pci.bus_id,temperature.gpu,utilization.gpu,memory.used,memory.total"
)
LOOP = f"""
for number in $(seq {RUNS}); do
  nvidia-smi --query-gpu={COLUMNS} --format=csv,noheader,nounits |
    awk -F', ' -v OFS=, '{{ $1 = $1; print }}' >>"$1"
done
"""


def installed(folder):
    """Lay the collector's programs out as the role does; return the one that is run."""
    for entry in yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__telemetry_programs"]:
        source = entry["src"].replace("{{ role_path }}", str(ROLE))
        shutil.copy(ROLE / "files" / source, folder / entry["dest"])
    return folder / "gpu_telemetry.py"


def measured(argv, env):
    """Run a program; return its wall-clock and CPU seconds, those of its children included."""
    begin = time.perf_counter()
    child = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
    _pid, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{argv} failed with status {child.returncode}")
    return time.perf_counter() - begin, used.ru_utime + used.ru_stime


def cpu_of(pids):
    """Return the CPU seconds that processes have used, to the nanosecond."""
    found = (Path(f"/proc/{pid}/schedstat").read_text().split()[0] for pid in pids)
    return sum(int(nanoseconds) for nanoseconds in found) / 1e9


def memory_of(pids):
    """Return the memory of processes in MB; pages that several share count in parts."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1000


def wait_for_rows(path, count, child):
    """Wait until a file has so many lines; end the program when they never come."""
    end = time.monotonic() + PATIENCE_S
    while rows(path) < count:
        if child.poll() is not None or time.monotonic() > end:
            sys.exit(f"{path.name} has {rows(path)} lines, wanted {count}: the GPUs can't be read")
        time.sleep(0.05)


def rows(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


def latency(csv):
    """Wait for the next sample; return the seconds from when it is due until it is written."""
    due = (time.time() // STREAM_INTERVAL_S + 2) * STREAM_INTERVAL_S
    time.sleep(due - time.time() - 0.005)
    size = csv.stat().st_size
    while csv.stat().st_size == size and time.time() < due + 1:
        pass
    return time.time() - due


def stream(argv, csv, env):
    """Let the service take samples.

    Returns:
        CPU seconds of a sample, seconds from when it is due until its lines are written, and the
        memory of both processes in MB.
    """
    argv = [*argv, "--stream", "--interval", str(STREAM_INTERVAL_S)]
    have = rows(csv)  # those of single samples, taken before
    child = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
    try:
        wait_for_rows(csv, have + 20, child)
        listed = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        pids = [child.pid, *listed]
        before, have = cpu_of(pids), rows(csv)
        time.sleep(RUNS * 5 * STREAM_INTERVAL_S)
        used, came = cpu_of(pids) - before, rows(csv) - have
        latencies = [latency(csv) for _sample in range(RUNS)]
        gpus = len({line.split(",")[3] for line in csv.read_text().splitlines()[1:]})
        return used / (came / gpus), statistics.median(latencies), memory_of(pids)
    finally:
        child.terminate()
        child.wait()


@contextlib.contextmanager
def machine(real):
    """Give the environment in which the GPUs are: simulated ones, or those of this machine."""
    with tempfile.TemporaryDirectory(prefix="bench-telemetry-") as name:
        folder = Path(name)
        env = dict(os.environ)
        if not real:
            subprocess.run(["sh", str(SIM / "build.sh"), str(folder / "gpu")], check=True)
            (folder / "activity").mkdir()
            env["LD_LIBRARY_PATH"] = str(folder / "gpu")
            env["PATH"] = f"{folder / 'gpu'}{os.pathsep}{env['PATH']}"
            env["SIM_NVML_PROFILE"] = str(SIM / "profiles" / "rtx-4070-ti-x2.conf")
            env["SIM_GPU_ACTIVITY_DIR"] = str(folder / "activity")
        yield folder, env


def main(rounds, show, real=False):
    """Measure and print."""
    loop, one, with_xids, streamed = ([], []), ([], []), ([], []), ([], [], [])
    with machine(real) as (folder, env):
        (folder / "lib").mkdir()
        program = [sys.executable, "-B", str(installed(folder / "lib")), "--timeout=60"]
        for turn in range(rounds):
            data = folder / f"data-{turn}"
            data.mkdir()
            csv = data / "nvidia-smi-ping.csv"
            wall, cpu = measured(["sh", "-c", LOOP, "sh", str(data / "loop.csv")], env)
            if rows(data / "loop.csv") < RUNS:  # awk ends well without any input
                sys.exit("nvidia-smi has not listed a GPU each time")
            loop[0].append(wall / RUNS * 1000)
            loop[1].append(cpu / RUNS * 1000)
            argv = [*program, f"--csv={csv}", f"--textfile={data / 'gpu.prom'}"]
            ways = [(one, argv)]
            if shutil.which("journalctl"):
                ways.append((with_xids, [*argv, f"--xids={data / 'xid-history.jsonl'}"]))
            for found, line in ways:
                samples = [measured(line, env) for _sample in range(RUNS)]
                found[0].append(statistics.median(wall for wall, _cpu in samples) * 1000)
                found[1].append(statistics.median(cpu for _wall, cpu in samples) * 1000)
            cpu, wall, memory = stream(argv, csv, env)
            streamed[0].append(wall * 1000)
            streamed[1].append(cpu * 1000)
            streamed[2].append(memory)
    where = "this machine's GPUs" if real else "simulated GPUs"
    print(f"one sample of {where}, {RUNS} per round, {os.cpu_count()} cores")
    for name, found in (
        ("shell loop, nvidia-smi and awk", loop),
        ("collector, one-shot", one),
        ("collector, one-shot, with Xids", with_xids),
        ("collector, long-running", streamed),
    ):
        if found[0]:
            note = "from when it is due" if found is streamed else ""
            show(f"{name}: wall", found[0], "ms", note)
            show(f"{name}: CPU", found[1], "ms")
    show("collector, long-running: memory, PSS", streamed[2], "MB")
    a_day = statistics.median(streamed[1]) * 8640 / 1000
    print(f"a day at 10 s, long-running: {a_day:.0f} s of CPU, {a_day / 864:.3f} % of a core")


def _show(name, samples, unit, note=""):
    middle = statistics.median(samples)
    spread = f"{min(samples):.2f} .. {max(samples):.2f}"
    print(f"{name:44} {middle:8.2f} {unit:3} ({spread}, n={len(samples)}) {note}")


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != "--real"]
    main(int(given[0]) if given else 3, _show, real="--real" in sys.argv)
