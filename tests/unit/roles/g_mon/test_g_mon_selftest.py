# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The self-test: every step in both directions."""

from __future__ import annotations

import os
import tempfile
import time

import pytest
from g_mon import selftest, units
from g_mon.selftest import FAIL, PASS, WARN
from g_mon_host import COLUMNS, SERVICE, TIMER, line

GPUS = [
    {"driver": {"version": "575.64.03"}, "count": 2},
    {"gpu": {"index": 0, "state": "ok"}},
    {"gpu": {"index": 1, "state": "ok"}},
    {"done": True},
]


@pytest.fixture
def bench(host):
    """A healthy host, tested without root."""
    host.series()
    host.reader_prints(*GPUS)
    return selftest.Bench(host.settings)


def one(steps, name):
    found = [step for step in steps if step.name == name]
    assert len(found) == 1, found
    return found[0]


def test_a_healthy_host(bench, monkeypatch):
    monkeypatch.setattr(selftest, "venv", lambda _bench: iter(()))
    monkeypatch.setattr(selftest, "user", lambda _bench: iter(()))
    found = list(selftest.steps(bench))
    assert [(step.name, step.status) for step in found] == [
        ("data directory", PASS),
        ("metrics directory", PASS),
        ("driver", PASS),
        ("sample", PASS),
        ("CSV", PASS),
        ("metrics", PASS),
        ("schedule", PASS),
    ]
    answer = selftest.answer(bench.settings, found)
    assert (answer["ok"], answer["exit"], answer["failures"], answer["warnings"]) == (
        True, 0, [], [],
    )  # fmt: skip
    assert answer["steps"][0]["name"] == "data directory"


def test_an_answer_with_failures_and_warnings(host):
    steps = [selftest.Step("a", WARN, "old"), selftest.Step("b", PASS, "fine")]
    assert selftest.answer(host.settings, steps)["exit"] == 1
    answer = selftest.answer(host.settings, [*steps, selftest.Step("c", FAIL, "gone")])
    assert (answer["exit"], answer["ok"]) == (2, False)
    assert (answer["failures"], answer["warnings"]) == (["c: gone"], ["a: old"])


# ---------------------------------------------------------------- environment and binding


def environment(host, versions, error=None, packages=("rich==15.0.0",)):
    """Let the environment's Python be one that has these versions."""
    python = host.folder / "python"
    found = {"versions": versions, "python": "3.11.2", **({"error": error} if error else {})}
    python.write_text(f"#!/bin/sh\ncat <<'END'\n{selftest.json.dumps(found)}\nEND\n")
    python.chmod(0o755)
    host.save(python=str(python), packages=list(packages))
    return list(selftest.venv(selftest.Bench(host.settings)))


def test_environment(host):
    steps = environment(host, {"rich": "15.0.0", "nvidia-ml-py": "13.615.71"})
    assert [step.status for step in steps] == [PASS, PASS]
    assert steps[1].reason == "nvidia-ml-py 13.615.71"


def test_environment_that_lacks_a_package(host):
    step = one(environment(host, {"nvidia-ml-py": "1"}), "environment")
    assert step.status == FAIL
    assert "lacks rich: remove it, run the role telemetry again" in step.reason


def test_environment_with_another_version(host):
    step = one(environment(host, {"rich": "14.0.0", "nvidia-ml-py": "1"}), "environment")
    assert step.status == WARN
    assert "rich 14.0.0 (wanted 15.0.0)" in step.reason


@pytest.mark.parametrize(
    ("versions", "error", "status", "said"),
    [
        ({}, "ModuleNotFoundError: No module named 'pynvml'", FAIL, "No module named"),
        ({}, None, FAIL, "nvidia-ml-py is missing"),
        ({"nvidia-ml-py": "1", "pynvml": "13"}, None, WARN, "pip uninstall pynvml"),
    ],
)
def test_binding(host, versions, error, status, said):
    step = one(environment(host, versions, error, packages=()), "binding")
    assert step.status == status
    assert said in step.reason


def test_the_real_environment_is_asked(host):
    host.save(packages=["pytest==0.0.1", "no-such-package==1"])
    step = one(selftest.venv(selftest.Bench(host.settings)), "environment")
    assert step.status == FAIL
    assert "no-such-package" in step.reason
    host.save(packages=[f"pytest=={pytest.__version__}"])
    step = one(selftest.venv(selftest.Bench(host.settings)), "environment")
    assert step.status == PASS


def test_no_environment(host):
    host.save(python=str(host.folder / "gone" / "python"))
    found = list(selftest.steps(selftest.Bench(host.settings)))
    step = one(found, "environment")
    assert step.status == FAIL
    assert "can't be run" in step.reason
    assert one(found, "schedule").status == PASS  # one failure hides no other finding


# ---------------------------------------------------------------- user and directories


class Account:
    pw_name, pw_uid, pw_gid, pw_shell = "hxmon", 990, 990, "/usr/sbin/nologin"


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({}, PASS, "no shell"),
        ({"pw_shell": "/bin/bash"}, WARN, "/bin/bash"),
        ({"pw_uid": 0}, FAIL, "is root"),
    ],
)
def test_user(bench, monkeypatch, changes, status, said):
    account = type("Changed", (Account,), changes)()
    monkeypatch.setattr(selftest.pwd, "getpwnam", lambda _name: account)
    step = one(selftest.user(bench), "user")
    assert step.status == status
    assert said in step.reason


def test_no_user(host):
    host.save(user="nobody-has-this-name")
    bench = selftest.Bench(host.settings)
    assert one(selftest.user(bench), "user").status == FAIL
    assert [step.status for step in selftest.directories(bench)] == [FAIL, FAIL]


@pytest.mark.parametrize(
    ("mode", "status"), [(0o700, FAIL), (0o755, FAIL), (0o772, FAIL), (0o777, PASS)]
)
def test_directories_of_others_are_judged_by_their_mode(bench, monkeypatch, mode, status):
    account = type("Stranger", (Account,), {"pw_uid": 64000, "pw_gid": 64000})()
    monkeypatch.setattr(selftest.pwd, "getpwnam", lambda _name: account)
    monkeypatch.setattr(selftest.os, "getgrouplist", lambda _name, gid: [gid])
    bench.settings.data_dir.chmod(mode)
    step = one(selftest.directories(bench), "data directory")
    assert step.status == status
    assert "by its owner and mode" in step.reason or f"{mode:04o}" in step.reason


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize(("mode", "status"), [(0o755, FAIL), (0o777, PASS)])
def test_root_tries_directories_as_the_user(host, mode, status):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        os.chmod(folder, mode)
        host.save(user="nobody", python="/usr/bin/python3", data_dir=folder)
        found = selftest.directories(selftest.Bench(host.settings, root=True))
        step = one(found, "data directory")
    assert step.status == status
    assert "by its owner" not in step.reason


def test_no_directory(bench, host):
    host.textfile.unlink()
    host.textfile.parent.rmdir()
    step = one(selftest.directories(bench), "metrics directory")
    assert step.status == FAIL
    assert "isn't there" in step.reason


def test_a_full_disk(bench, monkeypatch):
    monkeypatch.setattr(selftest, "LEAST_FREE_BYTES", 2**70)
    assert one(selftest.directories(bench), "data directory").status == WARN


# ---------------------------------------------------------------- driver


def test_driver(bench):
    step = one(selftest.driver(bench), "driver")
    assert step.status == PASS
    assert step.reason.startswith("2 GPUs read in ")


@pytest.mark.parametrize(
    ("lines", "tail", "said"),
    [
        ([{"error": {"state": "driver_not_loaded", "message": "Driver Not Loaded"}}],
         "raise SystemExit(1)\n", "driver_not_loaded: Driver Not Loaded"),
        ([GPUS[0], {"gpu": {"index": 0, "state": "ok"}}, {"gpu": {"index": 1, "state": "lost"}}],
         "", "GPU 1 is lost"),
        ([{"driver": {}, "count": 0}, {"done": True}], "", "the driver sees no GPU"),
        (["text"], "", "the reader printed"),
        ([], "raise RuntimeError('broken')\n", "RuntimeError: broken"),
    ],
)  # fmt: skip
def test_driver_that_does_not_answer_well(bench, host, lines, tail, said):
    host.reader_prints(*lines, tail=tail)
    step = one(selftest.driver(bench), "driver")
    assert step.status == FAIL
    assert said in step.reason


def test_a_card_that_the_driver_lists_no_more(bench, host):
    uuids = [f"GPU-{number}" for number in range(2)]
    host.reader_prints(*({"gpu": {"index": at, "state": "ok", "uuid": uuids[at]}} for at in (0, 1)))
    host.cards_are(True, False)
    assert one(selftest.driver(bench), "driver").status == PASS  # it is back since
    host.cards_are(True, True, False)
    step = one(selftest.driver(bench), "driver")
    assert step.status == FAIL
    assert "GPU 2 (GPU-2) isn't in the newest sample" in step.reason


def test_driver_that_hangs(host):
    pid = host.folder / "pid"
    host.reader_prints(tail=f"import os,time\nopen({str(pid)!r},'w').write(str(os.getpid()))\n"
                            "time.sleep(60)\n")  # fmt: skip
    host.save(timeout_seconds=4)
    step = one(selftest.driver(selftest.Bench(host.settings)), "driver")
    assert step == ("driver", FAIL, "the GPUs can't be read: no answer within 4 s")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_process_that_hangs_is_not_joined_by_another(bench, host):
    class Stuck:
        pid = 4711

        def poll(self):
            return None

    bench.stuck = Stuck()
    assert "process 4711 hangs" in one(selftest.driver(bench), "driver").reason
    bench.stuck = None
    host.metrics_are(success=0, state="stuck")
    assert "of the collector hangs" in one(selftest.driver(bench), "driver").reason


# ---------------------------------------------------------------- a sample through everything


def sample(host, **systemd):
    host.systemd(**systemd)
    bench = selftest.Bench(host.settings, root=True, sleep=lambda _seconds: None)
    return one(selftest.sample(bench, units.find(host.settings)), "sample")


def test_sample(bench, host):
    row = line("TIME", 0) + "\n" + line("TIME", 1) + "\n"
    step = sample(host, row=row)
    assert step.status == PASS
    assert step.reason.startswith("2 GPUs written to nvidia-smi-ping-")
    assert host.calls("start") == [["start", SERVICE]]


def test_the_first_sample_of_a_host(host):
    host.day(host.now).write_text(COLUMNS + "\n")
    host.stable.symlink_to(host.day(host.now).name)
    assert sample(host, row=line("TIME") + "\n").status == PASS


def test_a_sample_that_writes_nothing(bench, host):
    step = sample(host)
    assert step.status == FAIL
    assert "the newest row is of" in step.reason


def test_a_row_of_this_second_that_was_there_before(host):
    host.write(host.now, line(host.now + 30))
    assert sample(host).status == FAIL


def test_a_sample_that_writes_an_old_time(bench, host):
    assert sample(host, row=line(host.now - 7200) + "\n").status == FAIL


def test_a_sample_that_fails(bench, host):
    host.metrics_are(success=0, state="timeout")
    host.events.write_text("2026-11-20T12:00:00Z error timeout: NVML did not answer within 20 s\n")
    step = sample(host, refuse={"start": "Job for gpu-telemetry.service failed."})
    assert step.status == FAIL
    assert "NVML did not answer within 20 s" in step.reason
    assert "Job for gpu-telemetry.service failed." in step.reason


def test_without_root_no_sample_is_taken(bench, host):
    step = one(selftest.sample(bench, units.find(host.settings)), "sample")
    assert step.status == PASS
    assert "sudo g-mon selftest" in step.reason
    assert host.calls("start") == []


def test_a_long_running_collector_is_waited_for(bench, host):
    host.units_are("service")
    waits = []

    def wait(_seconds):
        waits.append(1)
        if len(waits) == 2:
            host.write(time.time(), line(time.time()))

    bench = selftest.Bench(host.settings, root=True, sleep=wait)
    step = one(selftest.sample(bench, units.find(host.settings)), "sample")
    assert (step.status, len(waits)) == (PASS, 2)


def test_a_long_running_collector_that_takes_no_samples(bench, host):
    host.units_are("service")
    at = [time.time()]

    def wait(_seconds):
        at[0] += 100

    bench = selftest.Bench(host.settings, root=True, sleep=wait, clock=lambda: at[0])
    step = one(selftest.sample(bench, units.find(host.settings)), "sample")
    assert step.status == FAIL
    assert "no new sample within 7 min 35 s" in step.reason
    host.units_are("service", active=False)
    step = one(selftest.sample(bench, units.find(host.settings)), "sample")
    assert "doesn't run" in step.reason


# ---------------------------------------------------------------- data, metrics, schedule


def table(host):
    return one(selftest.table(selftest.Bench(host.settings)), "CSV")


def test_table(bench, host):
    assert table(host).reason.endswith("13 columns, the last line is whole")


def test_no_data(host):
    assert table(host).status == FAIL


def test_half_a_line(bench, host):
    with host.stable.open("a") as file:
        file.write("2026-11-20T12:0")
    step = table(host)
    assert step.status == WARN
    assert "2026-11-20T12:0" in step.reason


def test_another_header(bench, host):
    host.stable.unlink()
    host.stable.write_text("time,gpu\n")
    assert "another header" in table(host).reason


def test_a_stable_name_that_leads_nowhere(bench, host):
    host.stable.unlink()
    host.stable.symlink_to("gone.csv")
    assert table(host).status == FAIL


def test_a_clock_in_the_future(host):
    host.sample(age=-3600)
    step = table(host)
    assert step.status == WARN
    assert "in the future" in step.reason


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({}, PASS, "old"),
        ({"age": 901}, WARN, "15 min"),
        ({"success": 0, "state": "timeout"}, FAIL, "timeout"),
        ({"success": "x"}, FAIL, "failed"),
        ({"success": 0, "state": "stopped"}, PASS, "old"),
        ({"mode": 0o640}, WARN, "0640"),
    ],
)
def test_metrics(host, changes, status, said):
    host.metrics_are(**changes)
    step = one(selftest.textfile(selftest.Bench(host.settings)), "metrics")
    assert step.status == status
    assert said in step.reason


def test_no_metrics(host):
    host.textfile.unlink()
    step = one(selftest.textfile(selftest.Bench(host.settings)), "metrics")
    assert (step.status, step.reason) == (FAIL, f"{host.textfile} isn't there")


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({}, PASS, "next sample in"),
        ({"mode": "service"}, PASS, f"{SERVICE} is active"),
        ({"active": False}, FAIL, "sudo g-mon start"),
        ({"enabled": False}, WARN, "sudo g-mon enable"),
        ({"mode": "none"}, FAIL, "not-found"),
    ],
)
def test_schedule(host, given, status, said):
    host.units_are(**given)
    bench = selftest.Bench(host.settings)
    step = one(selftest.schedule(bench, units.find(host.settings)), "schedule")
    assert step.status == status
    assert said in step.reason


def test_a_timer_that_has_no_next_time(host):
    found = units.find(host.settings)
    found.timer["NextElapseUSecRealtime"] = "n/a"
    step = one(selftest.schedule(selftest.Bench(host.settings), found), "schedule")
    assert (step.status, step.reason) == (
        FAIL, f"{TIMER} is active and has no next time: sudo g-mon restart",
    )  # fmt: skip


def test_no_systemd(bench, host, monkeypatch):
    monkeypatch.setenv("PATH", str(host.data_dir))
    found = list(selftest.steps(bench))
    assert "isn't run by systemd" in one(found, "sample").reason
    assert one(found, "schedule").status == FAIL
    assert one(found, "CSV").status == PASS
