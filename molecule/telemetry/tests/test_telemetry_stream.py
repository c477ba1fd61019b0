# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collector as a service that keeps running, and the way there and back."""

from __future__ import annotations

import pytest
from telemetry_host import wait_for

# Its own shell has the pattern in its command line, too.
READERS = "pgrep -f 'gpu_nvml[.]py'"
STREAM = ("-e", "telemetry_interval=10")
TIMER = "/etc/systemd/system/gpu-telemetry.timer"


@pytest.fixture(scope="module", autouse=True)
def stream(host, converge):
    """Switch to the long-running form for these tests, and back."""
    planned = converge("--check", *STREAM)
    made = converge(*STREAM)
    assert planned["changed"] == made["changed"] > 0
    yield host
    assert converge()["changed"] > 0
    assert host.show("gpu-telemetry.timer", "ActiveState") == "active"
    assert host.show("gpu-telemetry.service", "Type") == "oneshot"
    assert host.show("gpu-telemetry.service", "UnitFileState") == "static"
    assert host.metric("hx_infra_gpu_collect_success") == 1


def test_only_the_service_is_there(llm_02, stream):
    service = llm_02.service("gpu-telemetry.service")
    assert service.is_enabled
    assert service.is_running
    assert stream.show("gpu-telemetry.service", "Type") == "notify"
    assert not llm_02.file(TIMER).exists
    assert stream.show("gpu-telemetry.timer", "LoadState") == "not-found"
    assert not llm_02.file("/etc/systemd/system/timers.target.wants/gpu-telemetry.timer").exists


def test_a_second_run_changes_nothing_and_interrupts_nothing(stream, converge):
    pid = stream.show("gpu-telemetry.service", "MainPID")
    assert converge(*STREAM)["changed"] == 0
    assert stream.show("gpu-telemetry.service", "MainPID") == pid


def test_samples_come_with_one_session(stream):
    before = stream.rows()
    wait_for(lambda: len(stream.rows()) >= len(before) + 6)
    times = sorted({row["timestamp"] for row in stream.rows()[-6:]})
    assert all(int(time[-3:-1]) % 10 == 0 for time in times)
    for reason in ("late", "ended", "gpu_lost"):
        assert stream.metric(f'hx_infra_gpu_reader_restarts_total{{reason="{reason}"}}') == 0
    assert stream.show("gpu-telemetry.service", "StatusText").startswith("2 of 2 GPUs read at ")
    wait_for(lambda: stream.ask("hx_infra_gpu_collect_interval_seconds == 10"))


def test_sandbox(stream):
    assert stream.exposure() < 1.0
    assert stream.metric("hx_infra_gpu_xid_read_success") == 1


def test_a_driver_that_hangs_is_seen_and_outlived(stream, gpus):
    gpus("fault-hang")
    reader = stream.output(READERS).split()[0]
    stream.output(f"kill -KILL {reader}")  # the next session has the sick driver
    wait_for(lambda: 'state="timeout"' in stream.output("cat /var/lib/hxmon/textfile/gpu*y.prom"))
    assert stream.metric("hx_infra_gpu_collect_success") == 0
    assert "timeout: NVML did not answer" in stream.show("gpu-telemetry.service", "StatusText")
    assert stream.show("gpu-telemetry.service", "ActiveState") == "active"
    gpus("rtx-5060-ti-x2")
    wait_for(lambda: stream.metric("hx_infra_gpu_collect_success") == 1, seconds=150)
    # The events are written after the metrics.
    wait_for(lambda: stream.events()[-1].startswith("recovered samples are taken again"), 10)
    assert stream.metric('hx_infra_gpu_reader_restarts_total{reason="late"}') >= 1
    assert stream.show("gpu-telemetry.service", "NRestarts") == "0"


def test_stopping_is_told_and_leaves_nothing(stream):
    stream.output("systemctl stop gpu-telemetry.service")
    assert stream.events()[-1] == "stop the collector was stopped"
    assert stream.metric('hx_infra_gpu_collect_state{state="stopped"}') == 1
    assert stream.run(READERS).rc != 0
    assert stream.show("gpu-telemetry.service", "Result") == "success"
    stream.output("systemctl start gpu-telemetry.service")
    assert stream.events()[-1].startswith("start service started")
    assert stream.metric("hx_infra_gpu_collect_success") == 1
