# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collector that a timer runs."""

from __future__ import annotations

import re

import pytest
from telemetry_host import LOGS, TEXTFILES, wait_for


@pytest.fixture
def sick(host, gpus):
    """Take the driver away for one test."""
    gpus("fault-driver-missing")
    yield host
    gpus("rtx-5060-ti-x2")
    host.output("systemctl start gpu-telemetry.service")


def test_account_has_no_rights(llm_02):
    user = llm_02.user("hxmon")
    assert user.shell == "/usr/sbin/nologin"
    assert not llm_02.file(user.home).exists
    assert user.groups == ["hxmon"]


def test_the_timer_runs_and_the_service_does_not(llm_02, host):
    timer = llm_02.service("gpu-telemetry.timer")
    assert timer.is_enabled
    assert timer.is_running
    assert host.show("gpu-telemetry.service", "Type") == "oneshot"
    assert "OnCalendar=*-*-* *:00/5:00" in host.show("gpu-telemetry.timer", "TimersCalendar")


def test_what_collected_before_is_stopped_and_its_lines_are_kept(llm_02, host):
    old = llm_02.service("gpu-monitoring.service")
    assert not old.is_running
    assert not old.is_enabled
    (aside,) = host.output(f"cd {LOGS} && ls nvidia-smi-ping.until-*.csv").splitlines()
    lines = host.text(aside).splitlines()
    assert lines[0].startswith("timestamp,index,name,uuid,pci.bus_id,temperature.gpu")
    assert len(lines) > 1
    assert all("GeForce RTX 5060 Ti" in line for line in lines[1:])
    assert any(aside in event for event in host.events())


def test_first_sample_is_there(llm_02, host):
    link = llm_02.file(f"{LOGS}/nvidia-smi-ping.csv")
    assert re.fullmatch(rf"{LOGS}/nvidia-smi-ping-\d{{4}}-\d\d-\d\d\.csv", link.linked_to)
    assert llm_02.file(link.linked_to).user == "hxmon"
    assert host.text("nvidia-smi-ping.csv").startswith(
        "timestamp,index,name,uuid,pci.bus_id,temperature.gpu,utilization.gpu,memory.used,"
        "memory.total,power.draw,"
    )
    assert [row["index"] for row in host.rows()[:2]] == ["0", "1"]
    assert "RTX 5060 Ti" in host.rows()[0]["name"]
    assert any(event.startswith("start first collection") for event in host.events())


def test_a_sample_adds_a_line_per_gpu(host):
    before = len(host.rows())
    host.output("systemctl start gpu-telemetry.service")
    assert len(host.rows()) == before + 2


def test_metrics(llm_02, host):
    assert llm_02.file(f"{TEXTFILES}/gpu_telemetry.prom").mode == 0o644
    assert host.metric("hx_infra_gpu_collect_success") == 1
    assert host.metric("hx_infra_gpu_count") == 2
    assert host.metric("nvidia_smi_temperature_gpu{") > 0
    assert host.metric('DCGM_FI_DEV_GPU_TEMP{gpu="1"', "gpu_telemetry_dcgm.prom") > 0


def test_the_kernels_journal_can_be_searched_from_the_sandbox(llm_02, host):
    assert host.metric("hx_infra_gpu_xid_read_success") == 1
    assert llm_02.file(f"{LOGS}/xid-history.jsonl.state").user == "hxmon"


def test_sandbox(llm_02, host):
    assert host.exposure() < 1.0
    unit = llm_02.file("/etc/systemd/system/gpu-telemetry.service").content_string
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes"):
        assert line in unit


def test_units_are_valid(host):
    said = host.run("systemd-analyze verify /etc/systemd/system/gpu-telemetry.*")
    assert "gpu-telemetry" not in said.stderr


def test_the_node_exporter_reads_it_and_prometheus_scrapes_it(host):
    """The names, labels and values as Prometheus has them, from both textfiles."""
    wait_for(lambda: host.ask("hx_infra_gpu_collect_success == 1"))
    assert [value for _labels, value in host.ask("node_textfile_scrape_error")] == [0]
    uuids = {labels["uuid"] for labels, _value in host.ask("nvidia_smi_temperature_gpu")}
    assert len(uuids) == 2
    join = "nvidia_smi_memory_used_bytes * on(uuid) group_left(name) nvidia_smi_gpu_info"
    joined = host.ask(join)
    assert {labels["uuid"] for labels, _value in joined} == uuids
    assert all("RTX 5060 Ti" in labels["name"] for labels, _value in joined)
    cards = {labels["gpu"]: labels for labels, _value in host.ask("DCGM_FI_DEV_FB_USED")}
    assert sorted(cards) == ["0", "1"]
    assert "RTX 5060 Ti" in cards["0"]["modelName"]
    files = {labels["file"] for labels, _value in host.ask("node_textfile_mtime_seconds")}
    assert {name.rsplit("/", 1)[-1] for name in files} >= {
        "gpu_telemetry.prom",
        "gpu_telemetry_dcgm.prom",
    }


def test_a_missing_driver_is_seen(sick):
    before = sick.rows()
    assert sick.run("systemctl start gpu-telemetry.service").rc != 0
    assert sick.show("gpu-telemetry.service", "Result") == "exit-code"
    assert sick.show("gpu-telemetry.service", "ExecMainStatus") == "1"
    assert sick.metric("hx_infra_gpu_collect_success") == 0
    assert sick.metric("nvidia_smi_temperature_gpu{") is None
    assert sick.events()[-1].startswith("error driver_not_loaded: ")
    assert sick.rows() == before
    wait_for(lambda: sick.ask("hx_infra_gpu_collect_success == 0"))
    wait_for(lambda: not sick.ask("nvidia_smi_temperature_gpu"))


def test_recovery_is_told(host):
    assert host.events()[-1].startswith("recovered samples are taken again")


@pytest.fixture
def left_behind(host):
    """Leave a process behind as an earlier run's reader that could not be killed."""
    host.output("systemd-run --quiet --unit=left-behind --uid=hxmon -p PrivateUsers=yes sleep 300")
    pid = host.show("left-behind.service", "MainPID")
    start = host.output(f"cut -d ' ' -f 22 /proc/{pid}/stat")
    code = (
        f"import json; path = '{LOGS}/nvidia-smi-ping.state'; state = json.load(open(path)); "
        f"state['left'] = [{pid}, '{start}']; json.dump(state, open(path, 'w'))"
    )
    host.output(f'python3 -c "{code}"')
    yield host
    host.run("systemctl stop left-behind.service")


def test_a_reader_that_an_earlier_run_has_left_is_known_in_the_sandbox(left_behind):
    """The unit hides it from its programs, and another reader would hang beside it."""
    assert left_behind.run("systemctl start gpu-telemetry.service").rc != 0
    assert left_behind.metric('hx_infra_gpu_collect_state{state="stuck"}') == 1
    left_behind.output("systemctl stop left-behind.service")
    left_behind.output("systemctl start gpu-telemetry.service")
    assert left_behind.metric("hx_infra_gpu_collect_success") == 1


def test_nothing_is_left_of_earlier_versions(llm_02):
    assert not llm_02.file("/etc/logrotate.d/hx-telemetry").exists


def test_g_mon_is_content(host):
    said = host.run("g-mon status --json")
    assert said.rc == 0, said


@pytest.fixture
def soon(host):
    """Let the timer elapse in some seconds, for nobody wants to wait for five minutes.

    Gives the number of rows and the last run before that.
    """
    before = len(host.rows()), host.show("gpu-telemetry.service", "InvocationID")
    folder = "/run/systemd/system/gpu-telemetry.timer.d"
    text = "[Timer]\\nOnCalendar=*:*:0/10\\nAccuracySec=1s\\nRandomizedDelaySec=0\\n"
    host.output(f"mkdir -p {folder} && printf '{text}' >{folder}/soon.conf")
    host.output("systemctl daemon-reload && systemctl restart gpu-telemetry.timer")
    yield before
    host.output(f"rm -r {folder} && systemctl daemon-reload")
    host.output("systemctl restart gpu-telemetry.timer")


def test_the_timer_fires_and_the_csv_grows(host, soon):
    rows, run = soon
    wait_for(lambda: len(host.rows()) >= rows + 2)
    assert host.show("gpu-telemetry.service", "InvocationID") != run
    assert host.show("gpu-telemetry.timer", "LastTriggerUSec") != "n/a"


def test_a_dry_run_on_the_finished_host_predicts_nothing(converge):
    assert converge("--check")["changed"] == 0
