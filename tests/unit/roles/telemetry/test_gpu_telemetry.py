# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One sample, taken by the program as a timer runs it; its reader is a stand-in."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import time

import gpu_files
import gpu_reader
import gpu_telemetry as collector
import pytest
from gpu_reader import Block, Sample
from gpu_record import HEADER, csv_rows
from telemetry_parts import (
    DRIVER,
    FIELDS,
    GPU,
    LOST,
    OTHER,
    SAMPLE,
    csv_lines,
    events,
    options,
    printing,
    reader,
    starts,
    wait_for,
)

FIRST_NINE = (
    "timestamp,index,name,uuid,pci.bus_id,temperature.gpu,utilization.gpu,memory.used,memory.total"
)


@pytest.fixture
def take(tmp_path):
    """Take a sample with a reader that prints lines; returns the exit status."""

    def run(*lines, tail="", **more):
        path = reader(tmp_path, printing(*lines, tail=tail))
        return collector.main(options(tmp_path, path, **more))

    return run


def metrics(tmp_path):
    return (tmp_path / "gpu.prom").read_text()


def state(tmp_path):
    return json.loads((tmp_path / "nvidia-smi-ping.state").read_text())


def test_a_sample(tmp_path, take):
    assert take(*SAMPLE) == 0
    header, row = csv_lines(tmp_path)
    assert header == (
        f"{FIRST_NINE},power.draw,enforced.power.limit,clocks.sm,clocks.mem,"
        "clocks_event_reasons.active,pcie.link.gen.current,pcie.link.width.current,fan.speed"
    )
    stamp, rest = row.split(",", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp)
    assert rest == FIELDS
    assert events(tmp_path) == ["start first collection, one is due every 300 s"]
    assert oct((tmp_path / "gpu.prom").stat().st_mode & 0o777) == "0o644"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gpu.prom",
        f"nvidia-smi-ping-{stamp[:10]}.csv",
        "nvidia-smi-ping.csv",
        "nvidia-smi-ping.events",
        "nvidia-smi-ping.lock",
        "nvidia-smi-ping.state",
        "reader.py",
        "reader.py.starts",
    ]


def test_a_second_sample_adds_a_line_and_no_event(tmp_path, take):
    assert take(*SAMPLE) == 0
    assert take(*SAMPLE) == 0
    assert len(csv_lines(tmp_path)) == 3
    assert len(events(tmp_path)) == 1


def rows(*gpus):
    return csv_rows(Sample(DRIVER, list(gpus), 1_795_169_100.0, 0.1))


def test_the_time_is_that_of_the_sample():
    assert rows(GPU) == f"2026-11-20T10:05:00Z,{FIELDS}\n"


@pytest.mark.parametrize("field", ["power_draw_watts", "clocks_event_reasons", "name"])
def test_an_unknown_value_is_an_empty_field(field):
    known = rows(GPU).strip().split(",")
    row = rows({key: value for key, value in GPU.items() if key != field}).strip().split(",")
    assert len(row) == len(known) == len(HEADER.split(","))
    assert [one for one, other in zip(row, known) if one != other] == [""]
    assert rows({**GPU, field: None}).strip().split(",") == row


def test_a_card_at_rest_has_zeros_not_empty_fields():
    rest = {"utilization_gpu_ratio": 0.0, "power_draw_watts": 0, "clocks_event_reasons": []}
    fields = rows({**GPU, **rest}).split(",")
    assert (fields[6], fields[9], fields[13]) == ("0", "0.00", "0x0000000000000000")


def test_an_odd_name_stays_one_field_of_one_line():
    assert rows({**GPU, "name": 'a,"b"\nc'}).count("\n") == 1
    assert '"a,""b"" c"' in rows({**GPU, "name": 'a,"b"\nc'})


@pytest.mark.parametrize(
    ("lines", "tail", "found", "code"),
    [
        ([{"error": {"state": "driver_not_loaded", "code": 9, "message": "Driver Not Loaded"}}],
         "raise SystemExit(1)\n", "driver_not_loaded", 9),
        ([{"driver": {}, "count": 0}, {"done": True}], "", "no_gpu", None),
        ([{"driver": DRIVER, "count": 1}, {"gpu": LOST}, {"done": True}], "", "gpu_lost", None),
        ([{"driver": DRIVER, "count": 1}], "os.abort()\n", "error", None),
        ([{"driver": DRIVER, "count": 1}, {"gpu": GPU}], "", "error", None),
        (["text"], "", "error", None),
        ([], "", "error", None),
        ([], "raise SystemExit('no such thing')", "error", None),
    ],
)  # fmt: skip
def test_a_failed_collection_is_seen_once_and_its_end_too(tmp_path, take, lines, tail, found, code):
    assert take(*SAMPLE) == 0
    last_success = state(tmp_path)["last_success"]
    before = csv_lines(tmp_path)
    for failures in (1, 2):
        assert take(*lines, tail=tail) == 1
        said = metrics(tmp_path)
        assert "hx_infra_gpu_collect_success 0.0" in said
        assert f'hx_infra_gpu_collect_state{{state="{found}"}} 1.0' in said
        assert f"hx_infra_gpu_collect_failures_total {failures:.1f}" in said
        assert f"hx_infra_gpu_last_success_timestamp_seconds {last_success!r}" in said
        assert "nvidia_smi_temperature_gpu" not in said
        assert ("nvml_return_code " in said) is (code is not None)
        assert csv_lines(tmp_path) == before
    _start, error = events(tmp_path)
    assert error.startswith(f"error {found}: ")
    assert take(*SAMPLE) == 0
    assert re.fullmatch(
        rf"recovered samples are taken again after \d+ s, it was {found}", events(tmp_path)[2]
    )
    assert "hx_infra_gpu_collect_success 1.0" in metrics(tmp_path)


def test_what_a_reader_says_at_its_end_is_told(tmp_path, take, capfd):
    assert take(tail="raise SystemExit('no such thing')") == 1
    assert "error: the reader ended with status 1: no such thing" in capfd.readouterr().err
    assert "ended with status 1: no such thing" in events(tmp_path)[-1]


def test_another_failure_is_another_event(tmp_path, take):
    assert take("text") == 1
    assert take({"driver": {}, "count": 0}, {"done": True}) == 1
    assert [event.split(":")[0] for event in events(tmp_path)[1:]] == [
        "error error",
        "error no_gpu",
    ]


def test_a_driver_that_hangs_is_named_with_the_card(tmp_path, take):
    hang = "time.sleep(60)\n"
    assert take(SAMPLE[0], {"reading": 1}, tail=hang, timeout=3) == 1
    assert "timeout: NVML did not answer within 3 s while GPU 1 was read" in events(tmp_path)[1]
    assert not (tmp_path / "nvidia-smi-ping.csv").exists()


def test_a_child_that_cannot_be_killed_is_not_joined_by_another(tmp_path, take, monkeypatch):
    def spare(child):
        return gpu_reader.Left(child.pid, gpu_reader.start_of(child.pid))

    monkeypatch.setattr(gpu_reader, "kill", spare)
    assert take(tail="time.sleep(60)\n", timeout=0.3) == 1
    left = state(tmp_path)["left"]
    assert (
        f"timeout: NVML did not answer within 0.3 s; process {left[0]} can't be killed"
        in (events(tmp_path)[1])
    )
    wait_for(lambda: starts(tmp_path / "reader.py"))  # it may be slower than its deadline
    for _turn in range(2):
        assert take(*SAMPLE) == 1
        assert starts(tmp_path / "reader.py") == 1
    assert 'collect_state{state="stuck"}' in metrics(tmp_path)
    assert events(tmp_path)[2].startswith(f"error stuck: process {left[0]} hangs in the driver")
    os.kill(left[0], signal.SIGKILL)
    os.waitpid(left[0], 0)
    assert take(*SAMPLE) == 0
    assert state(tmp_path)["left"] is None


def test_a_number_that_another_process_has_now_is_nobody_that_is_waited_for():
    mine = gpu_reader.start_of(os.getpid())
    assert gpu_reader.Left(os.getpid(), mine).is_there()
    assert not gpu_reader.Left(os.getpid(), str(int(mine) - 1)).is_there()
    assert not gpu_reader.Left(2**22 + 1, mine).is_there()


def test_a_child_of_an_earlier_run_that_the_sandbox_hides_is_still_there(monkeypatch):
    child = gpu_reader.start([sys.executable, "-c", "import time; time.sleep(60)"])
    left = gpu_reader.Left(child.pid, gpu_reader.start_of(child.pid))
    monkeypatch.setattr(gpu_reader, "start_of", lambda _pid: None)
    assert left.is_there()
    with pytest.raises(gpu_reader.CollectError, match=f"process {child.pid} hangs in the driver"):
        gpu_reader.refuse(left)
    child.kill()
    child.communicate()
    assert not left.is_there()
    monkeypatch.setattr(gpu_reader.os, "kill", not_ours)
    assert not left.is_there()


def not_ours(_pid, _number):
    raise PermissionError(1, "Operation not permitted")


def test_a_child_that_said_what_is_wrong_and_cannot_be_killed_is_remembered(
    tmp_path, take, monkeypatch
):
    def spare(child):
        return gpu_reader.Left(child.pid, gpu_reader.start_of(child.pid))

    monkeypatch.setattr(gpu_reader, "kill", spare)
    lost = {"error": {"state": "gpu_lost", "code": 15, "message": "GPU is lost"}}
    assert take(lost, tail="time.sleep(60)\n", timeout=3) == 1
    assert events(tmp_path)[1] == "error gpu_lost: GPU is lost"
    pid, _start = state(tmp_path)["left"]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_card_is_lost_and_comes_back(tmp_path, take):
    both = [SAMPLE[0], {"gpu": GPU}, {"gpu": OTHER}, {"done": True}]
    assert take(*both) == 0
    for _turn in range(2):
        assert take(SAMPLE[0], {"gpu": GPU}, {"gpu": LOST}, {"done": True}) == 0
    said = metrics(tmp_path)
    assert 'hx_infra_gpu_state_ok{index="1"} 0.0' in said
    assert 'uuid="1b"' not in said
    assert "hx_infra_gpu_collect_success 1.0" in said
    assert take(*both) == 0
    assert events(tmp_path)[1:] == [
        "error GPU 1 (GPU-1B) is lost",
        "recovered GPU 1 (GPU-1B) answers, it was lost",
    ]
    assert [line.split(",")[1] for line in csv_lines(tmp_path)[1:]] == [
        "0",
        "1",
        "0",
        "0",
        "0",
        "1",
    ]


def test_a_card_that_the_driver_lists_no_more(tmp_path, take):
    both = [SAMPLE[0], {"gpu": GPU}, {"gpu": OTHER}, {"done": True}]
    for lines in (both, SAMPLE, SAMPLE, both):
        assert take(*lines) == 0
    assert events(tmp_path)[1:] == [
        "error the driver lists 1 GPUs, before it listed 2",
        "recovered the driver lists 2 GPUs, before it listed 1",
    ]


def present(tmp_path):
    """Return which of the GPUs that are known answer."""
    pattern = r'^hx_infra_gpu_present\{gpu_uuid="([^"]+)",pci_bus_id="[0:1-2.]+"\} (\S+)$'
    return {uuid: value == "1.0" for uuid, value in re.findall(pattern, metrics(tmp_path), re.M)}


BOTH = [SAMPLE[0], {"gpu": GPU}, {"gpu": OTHER}, {"done": True}]


@pytest.mark.parametrize(
    "gone",
    [
        [{"gpu": GPU}, {"gpu": LOST}],
        [{"gpu": GPU}],
        [{"gpu": {**GPU, "index": 1}}, {"gpu": {"index": 0, "state": "lost", "errors": []}}],
        [{"gpu": {**GPU, "index": 0, "pci_bus_id": OTHER["pci_bus_id"]}}],  # after a reboot
    ],
)
def test_a_card_that_answered_once_is_missed_until_it_is_back(tmp_path, take, gone):
    assert take(*BOTH) == 0
    assert present(tmp_path) == {"GPU-0A": True, "GPU-1B": True}
    seen = state(tmp_path)["cards"]["1b"]["seen"]
    for _turn in range(3):
        assert take(SAMPLE[0], *gone, {"done": True}) == 0
        assert present(tmp_path) == {"GPU-0A": True, "GPU-1B": False}
    assert take({"driver": {}, "count": 0}, {"done": True}) == 1
    assert present(tmp_path) == {}  # nobody knows
    assert take(SAMPLE[0], *gone, {"done": True}) == 0
    assert present(tmp_path) == {"GPU-0A": True, "GPU-1B": False}
    assert state(tmp_path)["cards"]["1b"]["seen"] == seen
    assert take(*BOTH) == 0
    assert present(tmp_path) == {"GPU-0A": True, "GPU-1B": True}


def test_a_card_that_an_earlier_version_has_seen_is_missed_too(tmp_path, take):
    path = tmp_path / "nvidia-smi-ping.state"
    path.write_text(json.dumps({"uuids": {GPU["pci_bus_id"]: "0a", OTHER["pci_bus_id"]: "1b"}}))
    assert take(*SAMPLE) == 0
    assert present(tmp_path) == {"GPU-0A": True, "GPU-1b": False}


def test_a_card_that_was_taken_out_is_forgotten(tmp_path, take, capsys):
    for lines in (BOTH, SAMPLE):
        assert take(*lines) == 0
    for uuid, why in (("GPU-0A", "answers"), ("GPU-9", "isn't known")):
        assert take(forget=uuid) == 1
        wanted = "wanted: a GPU that is missing (GPU-1B)"
        assert capsys.readouterr().err == f"{uuid} {why}, {wanted}\n"
    rows = csv_lines(tmp_path)
    assert take(forget="gpu-1b") == 0
    assert capsys.readouterr().out == "GPU-1B at 00000000:02:00.0 is missed no more\n"
    assert csv_lines(tmp_path) == rows
    assert events(tmp_path)[-1] == "forget GPU-1B at 00000000:02:00.0 is missed no more"
    assert take(*SAMPLE) == 0
    assert present(tmp_path) == {"GPU-0A": True}
    for lines in (BOTH, SAMPLE):  # put in again, it is missed again
        assert take(*lines) == 0
    assert present(tmp_path) == {"GPU-0A": True, "GPU-1B": False}


def test_a_gap_is_told(tmp_path, take, monkeypatch):
    assert take(*SAMPLE) == 0
    path = tmp_path / "nvidia-smi-ping.state"
    for ago, told in ((890, False), (2000, True)):
        path.write_text(json.dumps({**state(tmp_path), "last_run": time.time() - ago}))
        assert take(*SAMPLE) == 0
        assert any("start nothing was collected for" in event for event in events(tmp_path)) is told


def test_old_events_go_when_a_day_begins(tmp_path, take):
    assert take(*SAMPLE) == 0
    log = tmp_path / "nvidia-smi-ping.events"
    log.write_text("2020-01-01T00:00:00Z error old: x\n" + log.read_text())
    assert take(*SAMPLE) == 0
    assert len(events(tmp_path)) == 2
    path = tmp_path / "nvidia-smi-ping.state"
    path.write_text(json.dumps({**state(tmp_path), "trimmed": "2020-01-01"}))
    assert take(*SAMPLE) == 0
    assert events(tmp_path) == ["start first collection, one is due every 300 s"]


def test_an_older_loops_file_is_taken_over(tmp_path, take):
    old = tmp_path / "nvidia-smi-ping.csv"
    old.write_text(f"{FIRST_NINE}\n1,2,3\n")
    assert take(*SAMPLE) == 0
    (aside,) = tmp_path.glob("*.until-*.csv")
    assert aside.read_text() == f"{FIRST_NINE}\n1,2,3\n"
    assert events(tmp_path)[1] == (
        f"repair nvidia-smi-ping.csv was another collector's file and is now {aside.name}"
    )
    assert len(csv_lines(tmp_path)) == 2


def test_a_disk_that_is_full_is_seen_and_its_end_too(tmp_path, take, monkeypatch, capsys):
    assert take(*SAMPLE) == 0
    append = gpu_files.append

    def full(path, text, first=""):
        if path.suffix == ".csv":
            raise OSError(28, "No space left on device")
        return append(path, text, first)

    monkeypatch.setattr(gpu_files, "append", full)
    for _turn in range(2):
        assert take(*SAMPLE) == 2
        assert 'collect_state{state="not_written"} 1.0' in metrics(tmp_path)
        assert "hx_infra_gpu_collect_success 0.0" in metrics(tmp_path)
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.setattr(gpu_files, "append", append)
    assert take(*SAMPLE) == 0
    _start, error, recovered = events(tmp_path)
    assert error.startswith("error not_written: ")
    assert error.endswith("No space left on device")
    assert recovered.endswith("it was not_written")
    assert len(csv_lines(tmp_path)) == 3


def test_a_textfile_that_cannot_be_written(tmp_path, take, capsys):
    missing = tmp_path / "missing" / "gpu.prom"
    for _turn in range(2):
        assert take(*SAMPLE, textfile=missing) == 2
    assert "missing" in capsys.readouterr().err
    assert [event.split(":")[0] for event in events(tmp_path)] == [
        "start first collection, one is due every 300 s",
        "error not_written",
    ]
    assert len(csv_lines(tmp_path)) == 3


def test_a_second_textfile_that_cannot_be_written_is_told_in_the_first(tmp_path, take):
    assert take(*SAMPLE, dcgm=tmp_path / "missing" / "dcgm.prom") == 2
    assert 'collect_state{state="not_written"} 1.0' in metrics(tmp_path)


def test_the_second_textfile(tmp_path, take):
    assert take(*SAMPLE, dcgm=tmp_path / "dcgm.prom") == 0
    assert 'DCGM_FI_DEV_GPU_TEMP{gpu="0"' in (tmp_path / "dcgm.prom").read_text()
    assert take("text", dcgm=tmp_path / "dcgm.prom") == 1
    assert (tmp_path / "dcgm.prom").read_text() == ""


def test_a_folder_that_is_missing(tmp_path, take, capsys):
    assert take(*SAMPLE, csv=tmp_path / "missing" / "nvidia-smi-ping.csv") == 2
    assert "missing" in capsys.readouterr().err
    assert 'collect_state{state="not_written"} 1.0' in metrics(tmp_path)


def test_a_lock_that_somebody_keeps_is_seen(tmp_path, take, monkeypatch):
    monkeypatch.setattr(gpu_files, "LOCK_SECONDS", 0.05)
    with (tmp_path / "nvidia-smi-ping.lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        (tmp_path / ".gpu.prom.new").write_text("half of what the holder wri")
        assert take(*SAMPLE) == 2
    assert (tmp_path / ".gpu.prom.new").read_text() == "half of what the holder wri"
    assert 'collect_state{state="not_written"} 1.0' in metrics(tmp_path)
    assert not (tmp_path / "nvidia-smi-ping.csv").exists()


def test_a_sample_line_by_line():
    block = Block()
    assert [block.feed(json.dumps(line)) for line in SAMPLE] == [False, False, True]
    sample = block.sample()
    assert (sample.driver, sample.gpus) == (DRIVER, [GPU])
    timed = Block()
    for line in ({"begin": 3, "at": 1234.0}, *SAMPLE):
        timed.feed(json.dumps(line))
    assert timed.sample().time == 1234.0
