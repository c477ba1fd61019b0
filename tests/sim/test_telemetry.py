# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collector as the role installs it, with its real reader, against simulated GPUs."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from gpu_machine import ROOT, SIM, build

ROLE = ROOT / "roles" / "telemetry"
HEALTHY = ("rtx-4070-ti-x2", "rtx-5060-ti-x2", "rtx-5070-ti-x1", "h200-x1")
PATIENCE_S = 60.0


def unable(why):
    """Skip what can't be done here; fail for root, as which CI runs: that one must test it all."""
    if os.geteuid() == 0:
        pytest.fail(f"root can do everything that is tested here, but {why}")
    pytest.skip(why)


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        unable("gcc is missing, which builds the simulated NVML")
    return build(tmp_path_factory.mktemp("sim_gpu"))


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """Lay the programs out as the role does; returns the one that is run."""
    folder = tmp_path_factory.mktemp("lib")
    for entry in yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__telemetry_programs"]:
        source = entry["src"].replace("{{ role_path }}", str(ROLE))
        shutil.copy(ROLE / "files" / source, folder / entry["dest"])
    return folder / "gpu_telemetry.py"


class Collector:
    """The collector of a machine whose GPUs can change."""

    def __init__(self, program, libraries, folder):
        self.program = program
        self.data = folder / "data"
        self.data.mkdir()
        self.profile = folder / "profile.conf"
        activity = folder / "activity"
        activity.mkdir()
        self.env = {
            **os.environ,
            "LD_LIBRARY_PATH": str(libraries),
            "SIM_NVML_PROFILE": str(self.profile),
            "SIM_GPU_ACTIVITY_DIR": str(activity),
        }
        self.use("rtx-4070-ti-x2")

    def use(self, profile, more="", text=None):
        """Let these be the GPUs, for sessions that begin from now on."""
        text = text or (SIM / "profiles" / f"{profile}.conf").read_text()
        temporary = self.profile.with_suffix(".new")
        temporary.write_text(f"{more}\n{text}")
        temporary.replace(self.profile)

    def argv(self, **more):
        given = {
            "csv": self.data / "nvidia-smi-ping.csv",
            "textfile": self.data / "gpu.prom",
            "timeout": 30,
            **more,
        }
        options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        return [sys.executable, "-B", str(self.program), *options]

    def take(self, **more):
        """Take one sample; returns the finished process."""
        return subprocess.run(
            self.argv(**more), env=self.env, capture_output=True, text=True, check=False
        )

    def rows(self):
        path = self.data / "nvidia-smi-ping.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def metrics(self):
        path = self.data / "gpu.prom"
        text = path.read_text() if path.exists() else ""
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")

    def events(self):
        path = self.data / "nvidia-smi-ping.events"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split(" ", 1)[1] for line in lines]


@pytest.fixture
def collector(program, libraries, tmp_path):
    return Collector(program, libraries, tmp_path)


def wait_for(condition):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


@pytest.mark.parametrize("profile", HEALTHY)
def test_a_healthy_machine(collector, profile):
    collector.use(profile)
    done = collector.take()
    assert done.returncode == 0, done.stderr
    found = collector.metrics()
    rows = collector.rows()
    assert len(rows) == (2 if profile.endswith("x2") else 1)
    assert found["hx_infra_gpu_count"] == f"{len(rows)}.0"
    for row in rows:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["timestamp"])
        uuid = row["uuid"].lower().removeprefix("gpu-")
        assert float(found[f'nvidia_smi_temperature_gpu{{uuid="{uuid}"}}']) == float(
            row["temperature.gpu"]
        )
        assert float(found[f'nvidia_smi_memory_total_bytes{{uuid="{uuid}"}}']) == (
            int(row["memory.total"]) * 1024 * 1024
        )
        missing = {name for name, value in row.items() if value == ""}
        assert missing == ({"fan.speed"} if profile == "h200-x1" else set())
        assert any(name.startswith("nvidia_smi_ecc_") for name in found) is (profile == "h200-x1")


def test_numbers_are_those_of_nvidia_smi(collector, libraries):
    assert collector.take().returncode == 0
    row = collector.rows()[0]
    # The columns are nvidia-smi's own names; temperatures, loads and clocks at rest don't move.
    same = [name for name in row if name not in ("timestamp", "clocks_event_reasons.active")]
    said = subprocess.run(
        [libraries / "nvidia-smi", f"--query-gpu={','.join(same)}", "--format=csv,noheader,nounits",
         "-i", "0"],
        env=collector.env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    assert dict(zip(same, said.split(", "))) == {name: row[name] for name in same}


def test_cards_that_answer_hardly_anything(collector):
    collector.use("fault-not-supported")
    assert collector.take().returncode == 0
    for row in collector.rows():
        assert row["uuid"]
        assert "" in row.values()
    assert collector.metrics()["hx_infra_gpu_collect_success"] == "1.0"


NO_GPU = "driver_version = 575.64.03\ncuda_version = 12.9\n[gpu 0]\npresent = no\n"


@pytest.mark.parametrize(
    ("profile", "text", "state", "code"),
    [
        ("fault-driver-missing", None, "driver_not_loaded", 9),
        ("fault-library-mismatch", None, "version_mismatch", 18),
        ("", NO_GPU, "no_gpu", None),
        ("rtx-5070-ti-x1", "lost", "gpu_lost", None),
    ],
)
def test_a_machine_whose_gpus_cannot_be_read(collector, profile, text, state, code):
    if text == "lost":
        text = (SIM / "profiles" / f"{profile}.conf").read_text() + "lost_after = 0\n"
    collector.use(profile, text=text)
    done = collector.take()
    assert done.returncode == 1, done.stdout
    assert state in done.stderr
    found = collector.metrics()
    assert found["hx_infra_gpu_collect_success"] == "0.0"
    assert found[f'hx_infra_gpu_collect_state{{state="{state}"}}'] == "1.0"
    assert found.get("hx_infra_gpu_nvml_return_code") == (f"{code}.0" if code else None)
    assert not any(name.startswith("nvidia_smi_temperature") for name in found)
    assert collector.events()[-1].startswith(f"error {state}: ")
    assert collector.rows() == []


def test_a_card_that_is_lost_in_the_middle_of_a_sample(collector):
    collector.use("fault-gpu-lost")
    assert collector.take().returncode == 0
    assert [row["index"] for row in collector.rows()] == ["0"]
    assert collector.metrics()['hx_infra_gpu_state_ok{index="1"}'] == "0.0"
    assert re.fullmatch(r"error GPU 1 \(GPU-4070\S+\) is lost", collector.events()[-1])


def test_a_driver_that_hangs(collector):
    collector.use("fault-hang")
    done = collector.take(timeout=3)
    assert done.returncode == 1
    assert "timeout: NVML did not answer within 3 s while GPU 1 was read" in done.stderr
    assert collector.rows() == []


def test_eight_collectors_at_once(collector):
    for _turn in range(3):
        running = [
            subprocess.Popen(collector.argv(), env=collector.env, stdout=subprocess.DEVNULL)
            for _number in range(8)
        ]
        assert [child.wait(120) for child in running] == [0] * 8
    rows = collector.rows()
    assert len(rows) == 3 * 8 * 2
    assert all(None not in row and all(row.values()) for row in rows)
    assert [event.split()[0] for event in collector.events()] == ["start"]


@pytest.fixture
def small_disk(collector):
    argv = ["mount", "-t", "tmpfs", "-o", "size=32k", "small", str(collector.data)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        unable(f"no small disk can be mounted: {done.stderr.strip()}")
    yield collector.data
    subprocess.run(["umount", str(collector.data)], check=True)


def test_a_disk_that_is_full(collector, small_disk, tmp_path):
    textfile = tmp_path / "gpu.prom"
    more = {"textfile": textfile, "reader": tmp_path / "reader.py"}
    # The real reader's lines, without its start: a disk takes many samples to fill.
    said = subprocess.run(
        [sys.executable, str(collector.program.with_name("gpu_nvml.py"))],
        env=collector.env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    more["reader"].write_text(f"import sys\nsys.stdout.write({said!r})\n")
    (small_disk / "ballast").write_bytes(b"x" * 8192)
    written = 0
    while True:
        status = collector.take(**more).returncode
        if 'collect_state{state="not_written"} 1.0' in textfile.read_text():
            break
        written += 1  # the small state file can be the first that finds no place
        assert status in (0, 2)
        assert written < 200
    assert status == 2
    (path,) = small_disk.glob("nvidia-smi-ping-*.csv")
    assert path.read_bytes().endswith(b"\n")
    assert len(collector.rows()) == 2 * written
    (small_disk / "ballast").unlink()
    assert collector.take(**more).returncode == 0
    rows = collector.rows()
    assert len(rows) == 2 * (written + 1)
    assert all(None not in row and all(row.values()) for row in rows)
    assert 'collect_state{state="ok"} 1.0' in textfile.read_text()


JOURNAL = """#!{python}
import json, sys
entry = {{
    "__CURSOR": "s=1;i=1", "_BOOT_ID": "0123456789abcdef0123456789abcdef",
    "__REALTIME_TIMESTAMP": "1795168800000000", "__MONOTONIC_TIMESTAMP": "1000000",
    "_SOURCE_MONOTONIC_TIMESTAMP": "1000000",
    "MESSAGE": "NVRM: Xid (PCI:0000:02:00): 79, pid='<unknown>', GPU has fallen off the bus.",
}}
if "--version" not in sys.argv:
    print(json.dumps(entry))
"""


def test_an_xid_of_the_journal_reaches_metrics_and_history(collector, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "journalctl").write_text(JOURNAL.format(python=sys.executable))
    (tools / "journalctl").chmod(0o755)
    collector.env["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    history = collector.data / "xid-history.jsonl"
    for _turn in range(2):
        done = collector.take(xids=history)
        assert done.returncode == 0, done.stderr
    found = collector.metrics()
    assert found["hx_infra_gpu_xid_read_success"] == "1.0"
    assert found['hx_infra_gpu_xid_total{pci_bus_id="00000000:02:00.0",xid="79"}'] == "1.0"
    uuid = collector.rows()[1]["uuid"].lower().removeprefix("gpu-")
    assert found[f'nvidia_smi_xid_errors_total{{uuid="{uuid}",xid="79"}}'] == "1.0"
    assert json.loads(history.read_text())["xid"] == 79


@pytest.fixture
def stream(collector):
    """Start the long-running form; it is ended at the end."""
    started = []

    def start(**more):
        argv = [*collector.argv(**{"interval": 0.5, **more}), "--stream"]
        started.append(subprocess.Popen(argv, env=collector.env))
        return started[-1]

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
            child.wait()


def more_rows(collector, count):
    have = len(collector.rows())
    wait_for(lambda: len(collector.rows()) >= have + count)


def restarts(collector, reason):
    return collector.metrics().get(f'hx_infra_gpu_reader_restarts_total{{reason="{reason}"}}')


def test_the_long_running_form_keeps_one_session(collector, stream):
    child = stream()
    more_rows(collector, 8)
    collector.use("fault-driver-missing")  # only a new session would see that
    more_rows(collector, 4)
    assert {restarts(collector, reason) for reason in ("late", "ended", "gpu_lost")} == {"0.0"}
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    assert collector.events() == [
        "start service started, one sample every 0.5 s",
        "stop the collector was stopped",
    ]
    times = sorted({row["timestamp"] for row in collector.rows()})
    assert len(times) > 1


def test_the_long_running_form_outlives_a_driver_that_hangs(collector, stream):
    collector.use("fault-hang")
    child = stream(timeout=2)
    wait_for(lambda: restarts(collector, "late") not in (None, "0.0"))
    collector.use("rtx-4070-ti-x2")
    more_rows(collector, 4)
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    kinds = [event.split()[0] for event in collector.events()]
    assert kinds == ["start", "error", "recovered", "stop"]


def test_the_long_running_form_goes_on_with_the_other_card(collector, stream):
    lost = (SIM / "profiles" / "fault-gpu-lost.conf").read_text()
    collector.use("", text=re.sub(r"lost_after = \d+", "lost_after = 150", lost))
    child = stream()
    wait_for(lambda: restarts(collector, "gpu_lost") not in (None, "0.0"))
    more_rows(collector, 4)
    collector.use("rtx-4070-ti-x2")
    wait_for(lambda: "recovered" in " ".join(collector.events()))
    more_rows(collector, 4)
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    assert collector.metrics()["hx_infra_gpu_collect_failures_total"] == "0.0"
    told = [event for event in collector.events() if "GPU 1" in event]
    assert told[0].startswith("error GPU 1 (")
    assert told[-1].endswith("answers, it was lost")
    by_index = [row["index"] for row in collector.rows()]
    assert by_index.count("0") > by_index.count("1") > 0
