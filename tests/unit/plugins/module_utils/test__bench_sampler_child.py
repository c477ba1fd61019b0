# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_sampler_child import (
    Host,
    UnavailableError,
    add_processes,
    busy_percent,
    ollama_figures,
    open_gpu,
    smi_gpus,
    vllm_figures,
)

SMI = """0, 87, 9216, 12282, 71, 214.55, 0x0000000000000004
1, [N/A], 1, 12282, 34, [Not Supported], 0x0000000000000001
Unable to determine the device handle
"""
VLLM = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a}b c"} 3.0
vllm:num_requests_running{engine="1",model_name="a}b c"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a}b c"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 7.0
vllm:kv_cache_usage_perc{engine="0",model_name="a}b c"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a}b c"} 0.5
vllm:generation_tokens_total{engine="0",model_name="a}b c"} 1.5e+06
vllm:generation_tokens_created{engine="0",model_name="a}b c"} 1.79e+09
vllm:num_preemptions_total{engine="0",model_name="a}b c"} 0.0
"""


def test_nvidia_smi_in_base_units_without_what_is_no_number():
    busy, idle = smi_gpus(SMI)
    assert busy == {
        "index": 0,
        "util_percent": 87.0,
        "memory_used_bytes": 9216 * 2**20,
        "memory_total_bytes": 12282 * 2**20,
        "temperature_c": 71.0,
        "power_w": 214.55,
        "throttle": ["sw_power_cap"],
    }
    assert (idle["util_percent"], idle["power_w"], idle["throttle"]) == (None, None, [])


def test_nvidia_smis_processes_by_gpu():
    gpus = smi_gpus(
        "0, 87, 9216, 12282, 71, 214.55, 0x0000000000000004, GPU-a\n"
        "1, 0, 1, 12282, 34, 9.1, 0x0000000000000001, GPU-b\n"
    )
    apps = """GPU-a, 812, /usr/local/bin/ollama, 8800
GPU-a, 900, /opt/a, b, [N/A]
GPU-x, 901, elsewhere, 1
GPU-a, 902, [Not Found], 16
No running processes found
"""
    add_processes(gpus, apps)
    busy, idle = gpus
    assert busy["processes"] == [
        {"pid": 812, "type": "C", "name": "/usr/local/bin/ollama", "memory_bytes": 8800 * 2**20},
        {"pid": 900, "type": "C", "name": "/opt/a,b"},
        {"pid": 902, "type": "C", "memory_bytes": 16 * 2**20},
    ]
    assert idle["processes"] == []
    assert (busy["uuid"], busy["util_percent"]) == ("GPU-a", 87.0)


def test_vllm_over_its_engines():
    assert vllm_figures(VLLM.encode()) == {
        "running": 5,
        "waiting": 1,
        "kv_cache_percent": 50.0,
        "generation_tokens_total": 1_500_000,
        "preemptions_total": 0,
    }


def test_vllm_before_its_metrics_were_renamed():
    text = VLLM.replace("kv_cache_usage_perc", "gpu_cache_usage_perc")
    assert vllm_figures(text.encode())["kv_cache_percent"] == 50.0


def test_metrics_of_something_else():
    with pytest.raises(OSError, match="no metric of vLLM"):
        vllm_figures(b"haproxy_up 1\n")


def test_ollamas_models():
    models = [
        {"name": "b:7b", "size": 8, "size_vram": 6},
        {"name": "a:1b", "size": 2, "size_vram": None},
    ]
    assert ollama_figures(json.dumps({"models": models}).encode()) == {
        "models": ["a:1b", "b:7b"],
        "size_bytes": 10,
        "size_vram_bytes": 6,
    }
    assert ollama_figures(b'{"models": null}')["models"] == []


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"models": 3}', b'{"object": "list"}'])
def test_not_ollama(body):
    with pytest.raises(OSError, match="not what Ollama answers"):
        ollama_figures(body)


def write_proc(folder, stat="cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1\n"):
    (folder / "stat").write_text(stat)
    (folder / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n")
    (folder / "loadavg").write_text("1.25 1.00 0.90 2/300 4711\n")


def test_the_host_from_its_own_files(tmp_path):
    write_proc(tmp_path)
    host = Host(str(tmp_path))
    write_proc(tmp_path, "cpu  150 0 120 720 110 0 0 0 0 0\n")
    assert host.read() == {
        "cpu_percent": 70.0,
        "memory_used_bytes": 600 * 1024,
        "memory_total_bytes": 1000 * 1024,
        "load1": 1.25,
    }


def test_files_that_are_missing_leave_figures_out(tmp_path):
    with pytest.raises(UnavailableError, match="stat can't be read"):
        Host(str(tmp_path))
    (tmp_path / "stat").write_text("cpu  1 1 1 1 1 1 1 1\n")
    host = Host(str(tmp_path))
    (tmp_path / "stat").unlink()
    assert set(host.read().values()) == {None}


def test_no_time_passed():
    assert busy_percent([1] * 8, [1] * 8) is None


def test_no_gpu_reader_is_a_reason_not_an_error():
    with pytest.raises(UnavailableError) as raised:
        open_gpu({"nvml": False, "why": "/opt/venv/bin/python: no such file", "smi": ""})
    assert str(raised.value) == "/opt/venv/bin/python: no such file; nvidia-smi is not installed"


def test_an_nvidia_smi_that_cannot_run():
    with pytest.raises(UnavailableError, match="No such file"):
        open_gpu({"nvml": False, "why": "none", "smi": "/nonexistent/nvidia-smi"})
