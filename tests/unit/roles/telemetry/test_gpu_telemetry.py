# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the collector's own environment has it")
FILES = Path(__file__).parents[4] / "roles" / "telemetry" / "files"
sys.path.insert(0, str(FILES))

import gpu_metrics  # noqa: E402
import gpu_telemetry as collector  # noqa: E402
import nightly_result  # noqa: E402

NOW = datetime(2026, 11, 20, 10, 5, 0, tzinfo=timezone.utc)
ROW = "2026-11-20T10:05:00Z,0,GeForce,GPU-0,0000:01:00.0,40,87,3411,12282,201.54,2745,10501\n"
FIRST_NINE = (
    "timestamp,index,name,uuid,pci.bus_id,temperature.gpu,utilization.gpu,memory.used,memory.total"
)
GPU = {
    "index": 0,
    "state": "ok",
    "name": "GeForce",
    "uuid": "GPU-0",
    "pci_bus_id": "0000:01:00.0",
    "temperature_c": 40,
    "utilization_gpu_ratio": 0.87,
    "memory_used_bytes": 3411 * 1024 * 1024,
    "memory_total_bytes": 12282 * 1024 * 1024,
    "power_draw_watts": 201.54,
    "clock_sm_hz": 2_745_000_000,
    "clock_memory_hz": 10_501_000_000,
    "clocks_event_reasons": ["hw_slowdown"],
    "processes": [{"pid": 1, "type": "C"}, {"pid": 2, "type": "G"}],
}
LOST = {"index": 1, "state": "lost", "uuid": "GPU-1", "errors": []}
DRIVER = {"version": "575.64.03", "cuda_version": "12.9"}
SAMPLE = [{"driver": DRIVER, "count": 1}, {"gpu": GPU}, {"done": True}]


@pytest.fixture
def paths(tmp_path):
    return {
        "csv": tmp_path / "nvidia-smi-ping.csv",
        "events": tmp_path / "nvidia-smi-ping.events",
        "textfile": tmp_path / "gpu.prom",
    }


def reader(tmp_path, *lines, tail=""):
    path = tmp_path / "reader.py"
    text = "".join(f"print({json.dumps(line)!r}, flush=True)\n" for line in lines)
    path.write_text(text + tail)
    return path


def run(tmp_path, paths, *lines, tail="", timeout=5):
    arguments = ["--timeout", str(timeout), "--reader", str(reader(tmp_path, *lines, tail=tail))]
    for name, path in paths.items():
        arguments += [f"--{name}", str(path)]
    return collector.main(arguments)


def test_a_sample(tmp_path, paths):
    assert run(tmp_path, paths, *SAMPLE) == 0
    header, row = paths["csv"].read_text().splitlines()
    assert header == FIRST_NINE + ",power.draw,clocks.sm,clocks.mem"
    assert row.split(",", 1)[1] + "\n" == ROW.split(",", 1)[1]
    assert paths["events"].read_text().split(" ", 1)[1] == "start first sample, 1 GPUs\n"
    assert oct(paths["textfile"].stat().st_mode & 0o777) == "0o644"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gpu.prom",
        "nvidia-smi-ping.csv",
        "nvidia-smi-ping.events",
        "nvidia-smi-ping.lock",
        "reader.py",
    ]


def test_a_second_sample_adds_a_line_and_no_event(tmp_path, paths):
    assert run(tmp_path, paths, *SAMPLE) == 0
    assert run(tmp_path, paths, *SAMPLE) == 0
    assert len(paths["csv"].read_text().splitlines()) == 3
    assert len(paths["events"].read_text().splitlines()) == 1


def test_an_unknown_value_is_an_empty_field():
    gpu = {key: value for key, value in GPU.items() if key != "power_draw_watts"}
    assert collector.csv_rows([gpu], NOW) == ROW.replace("201.54", "")


def test_a_gpu_at_rest_has_zeros_not_empty_fields():
    row = collector.csv_rows([{**GPU, "utilization_gpu_ratio": 0.0, "power_draw_watts": 0}], NOW)
    assert row.split(",")[6] == "0"
    assert row.split(",")[9] == "0.00"


@pytest.mark.parametrize(
    ("lines", "tail", "state", "code"),
    [
        ([{"error": {"state": "driver_not_loaded", "code": 9, "message": "Driver Not Loaded"}}],
         "raise SystemExit(1)\n", "driver_not_loaded", 9),
        ([{"driver": {}, "count": 0}, {"done": True}], "", "no_gpu", None),
        ([{"driver": DRIVER, "count": 1}, {"gpu": LOST}, {"done": True}], "", "gpu_lost", None),
        ([{"driver": DRIVER, "count": 1}], "import os; os.abort()\n", "error", None),
        (["text"], "", "error", None),
        ([], "", "error", None),
    ],
)  # fmt: skip
def test_a_failed_collection_is_seen(tmp_path, paths, lines, tail, state, code):
    assert run(tmp_path, paths, *SAMPLE) == 0
    success = gpu_metrics.previous_success(paths["textfile"])[0]
    before = paths["csv"].read_text()
    assert run(tmp_path, paths, *lines, tail=tail) == 1
    metrics = paths["textfile"].read_text()
    assert "hx_infra_gpu_collect_success 0.0" in metrics
    assert f'hx_infra_gpu_collect_state{{state="{state}"}} 1.0' in metrics
    assert "nvidia_smi_" not in metrics
    assert ("nvml_return_code " in metrics) is (code is not None)
    assert gpu_metrics.previous_success(paths["textfile"]) == (success, False)
    assert paths["csv"].read_text() == before
    assert f" error {state}: " in paths["events"].read_text().splitlines()[-1]
    assert run(tmp_path, paths, *SAMPLE) == 0
    assert " recovered " in paths["events"].read_text().splitlines()[-1]


def test_a_driver_that_hangs(tmp_path, paths):
    hang = "import time\ntime.sleep(60)\n"
    assert run(tmp_path, paths, {"reading": 0}, tail=hang, timeout=0.5) == 1
    assert "timeout: NVML did not answer within 0.5 s" in paths["events"].read_text()
    assert not paths["csv"].exists()


def test_one_lost_gpu_of_two(tmp_path, paths):
    assert run(tmp_path, paths, SAMPLE[0], {"gpu": GPU}, {"gpu": LOST}, {"done": True}) == 0
    assert len(paths["csv"].read_text().splitlines()) == 2
    assert "error GPU 1 (GPU-1) is lost" in paths["events"].read_text()
    metrics = paths["textfile"].read_text()
    assert 'hx_infra_gpu_state_ok{index="1"} 0.0' in metrics
    assert 'uuid="1"' not in metrics


def test_metrics():
    sample = {"driver": DRIVER, "gpus": [GPU]}
    text = gpu_metrics.render_metrics(sample, "ok", 0, 1000.5, 0.25).decode()
    for line in (
        'nvidia_smi_temperature_gpu{uuid="0"} 40.0',
        'nvidia_smi_utilization_gpu_ratio{uuid="0"} 0.87',
        'nvidia_smi_power_draw_watts{uuid="0"} 201.54',
        'nvidia_smi_clocks_event_reasons_hw_slowdown{uuid="0"} 1.0',
        'nvidia_smi_clocks_event_reasons_gpu_idle{uuid="0"} 0.0',
        'nvidia_smi_compute_apps{uuid="0"} 1.0',
        "hx_infra_gpu_collect_success 1.0",
        "hx_infra_gpu_last_success_timestamp_seconds 1000.5",
        "hx_infra_gpu_collect_duration_seconds 0.25",
        "hx_infra_gpu_count 1.0",
    ):
        assert line in text.splitlines()
    assert "fan_speed" not in text
    (info,) = [line for line in text.splitlines() if line.startswith("nvidia_smi_gpu_info")]
    assert 'driver_version="575.64.03"' in info
    assert 'pci_bus_id="0000:01:00.0"' in info


@pytest.mark.parametrize("cut", [ROW[:30], ROW[:-1], "x", "1,2\r"])
def test_a_cut_line_is_taken_off_and_kept_in_a_note(paths, cut):
    paths["csv"].write_text(collector.HEADER + ROW + cut)
    (note,) = collector.append_rows(paths["csv"], ROW, NOW)
    assert paths["csv"].read_text() == collector.HEADER + ROW + ROW
    assert repr(cut) in note


@pytest.mark.parametrize("length", [0, 1, 20, len(collector.HEADER) - 1])
def test_a_cut_header(paths, length):
    paths["csv"].write_text(collector.HEADER[:length])
    collector.append_rows(paths["csv"], ROW, NOW)
    assert paths["csv"].read_text() == collector.HEADER + ROW


def test_a_file_with_another_header_is_set_aside(paths):
    old = FIRST_NINE + "\n1,2,3\n"
    paths["csv"].write_text(old)
    (note,) = collector.append_rows(paths["csv"], ROW, NOW)
    aside = paths["csv"].with_name("nvidia-smi-ping.until-20261120T100500Z.csv")
    assert aside.read_text() == old
    assert aside.name in note
    assert paths["csv"].read_text() == collector.HEADER + ROW


def test_a_file_that_is_rotated_gets_a_new_header(paths):
    collector.append_rows(paths["csv"], ROW, NOW)
    paths["csv"].rename(paths["csv"].with_name("nvidia-smi-ping.csv.1"))
    collector.append_rows(paths["csv"], ROW, NOW)
    assert paths["csv"].read_text() == collector.HEADER + ROW


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, paths, monkeypatch):
    collector.append_rows(paths["csv"], ROW, NOW)
    write = os.write
    monkeypatch.setattr(collector.os, "write", lambda handle, data: write(handle, data[:10]))
    with pytest.raises(collector.WriteError, match="only 10 of"):
        collector.append_rows(paths["csv"], ROW, NOW)
    assert paths["csv"].read_text() == collector.HEADER + ROW
    assert run(tmp_path, paths, *SAMPLE) == 2
    assert 'collect_state{state="not_written"} 1.0' in paths["textfile"].read_text()
    assert paths["csv"].read_text() == collector.HEADER + ROW


def test_a_directory_that_cannot_be_written(tmp_path, paths, capsys):
    paths["csv"] = tmp_path / "missing" / "nvidia-smi-ping.csv"
    assert run(tmp_path, paths, *SAMPLE) == 2
    assert "missing" in capsys.readouterr().err


def test_a_lock_that_is_held_is_not_waited_for_without_end(paths, monkeypatch):
    monkeypatch.setattr(collector, "LOCK_SECONDS", 0.05)
    lock = paths["csv"].with_suffix(".lock")
    with lock.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(collector.WriteError, match="is held"), collector.locked(lock):
            pass


def test_writers_at_once_lose_nothing(tmp_path, paths):
    program = (
        f"import sys; sys.path.insert(0, {str(FILES)!r})\n"
        "import gpu_telemetry as c\n"
        "from pathlib import Path\n"
        "from datetime import datetime, timezone\n"
        f"path = Path({str(paths['csv'])!r})\n"
        "for number in range(50):\n"
        "    with c.locked(path.with_suffix('.lock')):\n"
        f"        c.append_rows(path, {ROW!r}, datetime.now(timezone.utc))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program]) for _turn in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    lines = paths["csv"].read_text().splitlines(keepends=True)
    assert lines[0] == collector.HEADER
    assert lines[1:] == [ROW] * 200


@pytest.mark.parametrize(
    ("result", "status", "success", "last"),
    [("success", "0", "1", True), ("exit-code", "1", "0", False), ("signal", "TERM", "0", False)],
)
def test_nightly_result(tmp_path, monkeypatch, capsys, result, status, success, last):
    path = tmp_path / "nightly_smoke.prom"
    monkeypatch.setenv("SERVICE_RESULT", result)
    monkeypatch.setenv("EXIT_STATUS", status)
    assert nightly_result.main(["--textfile", str(path)]) == 0
    lines = path.read_text().splitlines()
    assert f"hx_infra_nightly_smoke_success {success}" in lines
    assert any(line.startswith("hx_infra_nightly_smoke_last_success") for line in lines) is last
    assert (f"hx_infra_nightly_smoke_exit_status {status}" in lines) is status.isdigit()
    assert f"nightly smoke test: {result}, exit status {status}" in capsys.readouterr().out


def test_nightly_result_remembers_the_last_success(tmp_path, monkeypatch):
    path = tmp_path / "nightly_smoke.prom"
    for result, status in (("success", "0"), ("exit-code", "1"), ("exit-code", "1")):
        monkeypatch.setenv("SERVICE_RESULT", result)
        monkeypatch.setenv("EXIT_STATUS", status)
        nightly_result.main(["--textfile", str(path)])
    assert nightly_result.previous_success(path) > 0
    assert "hx_infra_nightly_smoke_success 0" in path.read_text()
