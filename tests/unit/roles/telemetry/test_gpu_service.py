# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collector as a service, run as a process of its own; its reader is a stand-in."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import gpu_reader
import gpu_service
import pytest
from gpu_record import Paths
from gpu_telemetry import arguments
from telemetry_parts import FILES, csv_lines, events, options, reader, starts, wait_for

GOOD = """
for number in range(10**9):
    block(number, GPU, OTHER)
    rest()
"""


class Running:
    """A service that was started, and what it told systemd."""

    def __init__(self, folder, body, **more):
        self.folder = folder
        self.reader = reader(folder, body)
        self.notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notes.bind(str(folder / "notify"))
        self.told = ""
        threading.Thread(target=self.listen, daemon=True).start()
        # A reader needs a moment to start, and on a machine with other work a long one.
        given = options(folder, self.reader, **{"interval": 0.2, "timeout": 20, **more})
        program = [sys.executable, "-B", str(FILES / "gpu_telemetry.py"), "--stream"]
        self.child = subprocess.Popen(
            [*program, *given],
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def listen(self):
        """Take what it tells, as systemd does at once."""
        while text := self.notes.recv(4096).decode():
            self.told += text + "\n"

    def tells(self, pattern):
        """Wait until systemd was told something."""
        return wait_for(lambda: re.search(pattern, self.told, re.M))

    def metrics(self, pattern):
        """Wait until the textfile has something."""
        path = self.folder / "gpu.prom"
        return wait_for(lambda: path.exists() and re.search(pattern, path.read_text(), re.M))

    def event(self, text):
        """Wait until the events file has something."""
        path = self.folder / "nvidia-smi-ping.events"
        return wait_for(lambda: path.exists() and text in path.read_text())

    def samples(self, count):
        """Wait until so many samples more have come."""
        path = self.folder / "nvidia-smi-ping.csv"
        have = len(csv_lines(self.folder)) if path.exists() else 1
        wait_for(lambda: path.exists() and len(csv_lines(self.folder)) >= have + 2 * count)

    def stop(self, number=signal.SIGTERM):
        """End it; return its exit status."""
        self.child.send_signal(number)
        self.child.communicate(timeout=20)
        return self.child.returncode


@pytest.fixture
def service(tmp_path):
    """Start a service with a reader that does what a text says; killed at the end."""
    started = []

    def start(body, **more):
        started.append(Running(tmp_path, body, **more))
        return started[-1]

    yield start
    for running in started:
        if running.child.poll() is None:
            running.child.kill()
            running.child.communicate()


def test_samples_with_one_session_until_it_is_stopped(tmp_path, service):
    running = service(GOOD)
    running.tells(r"^READY=1$")
    assert "STATUS=2 of 2 GPUs read at " in running.told.split("READY=1")[0]
    assert "WATCHDOG=1" in running.told
    running.samples(3)
    assert starts(running.reader) == 1
    assert running.stop() == 0
    ps = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(running.reader) not in ps.stdout
    assert events(tmp_path) == [
        "start service started, one sample every 0.2 s",
        "stop the collector was stopped",
    ]
    said = (tmp_path / "gpu.prom").read_text()
    assert 'collect_state{state="stopped"} 1.0' in said
    assert "hx_infra_gpu_collect_success 0.0" in said
    assert "nvidia_smi_temperature_gpu" not in said
    assert 'hx_infra_gpu_reader_restarts_total{reason="late"} 0.0' in said


def test_each_start_is_an_event_also_after_a_crash(tmp_path, service):
    running = service(GOOD)
    running.samples(1)
    running.event("start")
    running.child.kill()
    running.child.communicate()
    (tmp_path / "notify").unlink()
    again = service(GOOD)
    again.samples(1)
    assert again.stop() == 0
    assert [event.split()[0] for event in events(tmp_path)] == ["start", "start", "stop"]


def test_a_reader_that_hangs_is_killed_and_started_anew(tmp_path, service):
    running = service(
        """
block(0, GPU, OTHER)
if START == 1:
    say({"begin": 1})
    say({"reading": 1})
    time.sleep(600)
for number in range(10**9):
    rest()
    block(number, GPU, OTHER)
""",
        timeout=3,
    )
    running.event("recovered")
    running.samples(2)
    running.metrics(r'^hx_infra_gpu_reader_restarts_total\{reason="late"\} 1\.0$')
    running.metrics(r"^hx_infra_gpu_collect_failures_total 1\.0$")
    assert running.stop() == 0
    told = events(tmp_path)
    assert told[1] == "error timeout: NVML did not answer within 3 s while GPU 1 was read"
    assert re.fullmatch(r"recovered samples are taken again after \d+ s, it was timeout", told[2])
    assert len(told) == 4
    running.tells(r"^STATUS=failing since .* UTC: timeout: NVML")
    assert starts(running.reader) == 2


def test_a_reader_that_hangs_before_its_first_sample(service):
    running = service("time.sleep(600)", timeout=0.3)
    running.tells(r"^STATUS=failing since .*: timeout: NVML did not answer within 0\.3 s\nREADY=1$")
    running.metrics(r'^hx_infra_gpu_collect_state\{state="timeout"\} 1\.0$')
    assert running.child.poll() is None
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ('say({"error": {"state": "driver_not_loaded", "code": 9, "message": "x"}})\nsys.exit(1)',
         "driver_not_loaded"),
        ("block(0)\nrest()", "no_gpu"),
        ('block(0, LOST)\nsay({"error": {"state": "gpu_lost", "code": 15, "message": "x"}})',
         "gpu_lost"),
        ("print('text', flush=True)\nrest()", "error"),
        ("sys.exit('no such thing')", "error"),
        ('say({"begin": 0})\nos.abort()', "error"),
        ("block(0, GPU, OTHER)\nsys.exit(0)", "error"),
    ],
)  # fmt: skip
def test_failures_are_seen_and_the_service_goes_on(tmp_path, service, body, state):
    once = body.replace("\n", "\n    ")
    running = service(f"if START < 2:\n    {once}\n{GOOD}")
    running.metrics(rf'^hx_infra_gpu_collect_state\{{state="{state}"\}} 1\.0$')
    running.tells(rf"^STATUS=failing since .* UTC: {state}: ")
    running.event("recovered")
    running.samples(2)
    assert running.child.poll() is None
    assert running.stop() == 0
    kinds = [event.split(":")[0].split(" ")[0] for event in events(tmp_path)]
    # a sample between two failures makes two of them
    assert kinds in (
        ["start", "error", "recovered", "stop"],
        ["start", "error", "recovered", "error", "recovered", "stop"],
    )
    assert f"error {state}: " in " ".join(events(tmp_path))


def test_a_lost_card_renews_the_session_and_costs_no_sample_of_the_other(tmp_path, service):
    running = service(
        """
if START < 3:
    rest()
    block(0, GPU, LOST)
    say({"error": {"state": "gpu_lost", "code": 15, "message": "x"}})
    sys.exit(1)
"""
        + GOOD
    )
    running.event("recovered GPU 1")
    running.metrics(r'^hx_infra_gpu_reader_restarts_total\{reason="gpu_lost"\} 2\.0$')
    running.metrics(r"^hx_infra_gpu_collect_failures_total 0\.0$")
    assert running.stop() == 0
    assert events(tmp_path)[1:-1] == [
        "error GPU 1 (GPU-1B) is lost",
        "recovered GPU 1 (GPU-1B) answers, it was lost",
    ]
    assert [line.split(",")[1] for line in csv_lines(tmp_path)[1:5]] == ["0", "0", "0", "1"]


def test_a_reader_that_says_its_driver_once(tmp_path, service):
    running = service(
        """
block(0, GPU, OTHER)
for number in range(1, 10**9):
    rest()
    say({"begin": number})
    say({"gpu": GPU})
    say({"gpu": OTHER})
    say({"done": True})
"""
    )
    running.samples(3)
    assert 'driver_version="575.64.03"' in (tmp_path / "gpu.prom").read_text()
    assert running.stop() == 0


def test_lines_may_come_in_pieces(service):
    running = service(
        """
real = sys.stdout
class Slow:
    def write(self, text):
        for letter in range(0, len(text), 7):
            real.write(text[letter:letter + 7])
            real.flush()
    def flush(self):
        pass
sys.stdout = Slow()
"""
        + GOOD
    )
    running.samples(2)
    running.metrics(r"^hx_infra_gpu_collect_failures_total 0\.0$")
    assert running.stop() == 0


def test_what_cannot_be_written_ends_nothing(tmp_path, service):
    running = service(GOOD)
    running.samples(1)
    csv = tmp_path / os.readlink(tmp_path / "nvidia-smi-ping.csv")
    kept = csv.rename(tmp_path / "kept.csv")
    csv.symlink_to("nowhere")  # it is never written through a link
    running.metrics(r'^hx_infra_gpu_collect_state\{state="not_written"\} 1\.0$')
    running.tells(r"^STATUS=not written: ")
    csv.unlink()
    kept.rename(csv)
    running.event("it was not_written")
    running.samples(2)
    assert running.stop() == 0


def test_the_journal_is_searched_beside_the_samples(tmp_path, service):
    program = tmp_path / "search.py"
    program.write_text(
        "import json, sys\nopen(sys.argv[2] + '.runs', 'a').write('run\\n')\n"
        "open(sys.argv[2], 'w').write(json.dumps({'pci_bus_id': '00000000:01:00.0', 'xid': 79,"
        "'time': '2026-11-20T10:00:00.0Z'}))\n"
    )
    history = tmp_path / "xid-history.jsonl"
    running = service(GOOD, xids=history, xid_program=program, xid_interval=0.5)
    running.metrics(r'^hx_infra_gpu_xid_total\{pci_bus_id="00000000:01:00.0",xid="79"\} 1\.0$')
    wait_for(lambda: len((tmp_path / "xid-history.jsonl.runs").read_text().split()) > 1)
    assert running.stop() == 0


def test_a_search_that_hangs_holds_nothing_up(tmp_path, service):
    program = tmp_path / "search.py"
    program.write_text("import time\ntime.sleep(600)\n")
    running = service(GOOD, xids=tmp_path / "xid-history.jsonl", xid_program=program)
    running.samples(4)
    assert running.stop() == 0


def test_a_child_that_cannot_be_killed_is_not_joined_by_another(tmp_path, monkeypatch):
    """In this process, where killing can be made to fail."""

    def spare(child):
        return gpu_reader.Left(child.pid, gpu_reader.start_of(child.pid))

    monkeypatch.setattr(gpu_reader, "kill", spare)
    monkeypatch.setattr(gpu_service, "PAUSE_SECONDS", 0.0)
    path = reader(tmp_path, "time.sleep(600)\n")
    given = arguments().parse_args(options(tmp_path, path, interval=0.1, timeout=0.3))
    service = gpu_service.Service(given, Paths(given.csv, given.textfile, None, None))

    def turn_until(condition):
        def turned():
            service._turn()
            return condition()

        wait_for(turned)

    turn_until(lambda: service.left is not None)
    left = service.left
    wait_for(lambda: starts(path))  # it may be slower than its deadline
    turn_until(lambda: service.failed > 5)
    assert starts(path) == 1
    assert events(tmp_path)[-1].startswith(f"error stuck: process {left.pid} hangs")
    os.kill(left.pid, signal.SIGKILL)
    os.waitpid(left.pid, 0)
    turn_until(lambda: starts(path) >= 2)
    monkeypatch.undo()
    service._end_stream()


def test_the_pause_doubles_up_to_a_minute(tmp_path, monkeypatch):
    path = reader(tmp_path, "")
    given = arguments().parse_args(options(tmp_path, path))
    service = gpu_service.Service(given, Paths(given.csv, given.textfile, None, None))
    monkeypatch.setattr(gpu_service.time, "monotonic", lambda: 0.0)
    pauses = []
    for _turn in range(9):
        service._failed(gpu_reader.CollectError("error", "x"))
        pauses.append(service.start_at)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert len(events(tmp_path)) == 2


def test_systemd_is_never_waited_for(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert gpu_service.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    assert not gpu_service.notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "deaf"))
        assert gpu_service.notify("READY=1")
        assert not all(gpu_service.notify("STATUS=x") for _turn in range(10_000))
