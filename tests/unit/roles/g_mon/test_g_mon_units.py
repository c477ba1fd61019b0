# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start, stop, restart, enable, disable against a simulated systemd, on both kinds of host."""

from __future__ import annotations

import pytest
from g_mon import units
from g_mon.settings import GMonError
from g_mon_host import SERVICE, TIMER, systemd_stamp

MODES = ["timer", "service"]
LEADS = {"timer": TIMER, "service": SERVICE}


def act(host, verb):
    return units.act(verb, host.settings, host.now)


@pytest.mark.parametrize("mode", MODES)
def test_the_unit_that_leads_is_found_out(host, mode):
    host.units_are(mode)
    found = units.find(host.settings)
    assert found.lead == LEADS[mode]
    assert found.long_running is (mode == "service")
    assert found.running
    assert found.starts_at_boot
    assert found.json()["mode"] == mode


def test_what_systemd_knows_of_a_timer(host):
    found = units.find(host.settings)
    assert (found.pid, found.memory) == (None, None)
    assert found.next_sample == host.now + 120
    assert found.since == host.now - 7200
    assert found.scheduled
    known = found.json()
    assert (known["state"], known["substate"], known["last_result"]) == (
        "active", "waiting", "success",
    )  # fmt: skip
    assert known["last_exit_status"] == 0


def test_what_systemd_knows_of_a_service(host):
    host.units_are("service")
    found = units.find(host.settings)
    assert (found.pid, found.memory) == (4711, 12 * 1024 * 1024)
    assert found.next_sample is None
    assert found.json()["last_end"] is None


def test_a_number_that_systemd_does_not_have(host):
    host.units_are("service", MemoryCurrent=str(2**64 - 1))
    assert units.find(host.settings).memory is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Fri 2026-11-20 12:00:00 UTC", 1795176000),
        ("n/a", None),
        ("", None),
        (None, None),
        ("Fri 2026-11-20 12:00:00 CET", None),
    ],
)
def test_times_of_systemctl(text, seconds):
    assert units.parse_stamp(text) == seconds


def test_a_timer_that_counts_from_the_boot_is_scheduled_too(host):
    host.units_are()
    timer = {"NextElapseUSecRealtime": "n/a", "NextElapseUSecMonotonic": "1h 2min"}
    assert units.Collector(host.settings, {}, timer).scheduled
    timer["NextElapseUSecMonotonic"] = "infinity"
    assert not units.Collector(host.settings, {}, timer).scheduled


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("verb", ["start", "restart"])
def test_start(host, mode, verb):
    host.units_are(mode, active=False)
    said = act(host, verb)
    assert said[0] == f"{LEADS[mode]} is running."
    assert host.calls(verb) == [[verb, LEADS[mode]]]
    assert units.find(host.settings).running
    assert ("The next sample is due" in " ".join(said)) is (mode == "timer")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("mode", MODES)
def test_stop(host, mode):
    host.units_are(mode)
    said = act(host, "stop")
    assert said == [
        f"{LEADS[mode]} is stopped.",
        "It starts again at boot: sudo g-mon disable changes that.",
    ]
    # With a timer a sample may be under way.
    wanted = ["stop", TIMER, SERVICE] if mode == "timer" else ["stop", SERVICE]
    assert host.calls("stop") == [wanted]
    assert not units.find(host.settings).running


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("mode", MODES)
def test_enable_and_disable(host, mode):
    host.units_are(mode, enabled=False)
    assert act(host, "enable") == [f"{LEADS[mode]} starts at boot."]
    assert units.find(host.settings).starts_at_boot
    assert act(host, "disable") == [
        f"{LEADS[mode]} doesn't start at boot any more.",
        "It goes on running until then: sudo g-mon stop.",
    ]
    assert not units.find(host.settings).starts_at_boot


@pytest.mark.usefixtures("root")
def test_what_was_so_already_is_said(host):
    assert act(host, "start")[0] == f"{TIMER} was running already."
    host.units_are(active=False, enabled=False)
    assert act(host, "stop") == [f"{TIMER} was not running."]
    assert act(host, "enable")[1] == "It isn't running now: sudo g-mon start."
    host.units_are(enabled=False)
    assert act(host, "start")[-1] == "It won't start at boot: sudo g-mon enable changes that."


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("verb", ["start", "stop", "restart", "enable", "disable"])
def test_systemd_refuses(host, verb):
    host.systemd(refuse={verb: "Failed: Unit gpu-telemetry.timer is masked."})
    with pytest.raises(GMonError, match=rf"systemctl {verb} .*is masked"):
        act(host, verb)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("verb", ["start", "stop", "restart", "enable", "disable"])
def test_an_order_that_was_taken_and_not_followed(host, verb):
    on = verb in ("stop", "disable")
    host.units_are(active=on, enabled=on)
    host.systemd(ignore=[verb])
    with pytest.raises(GMonError, match=f"after {verb}: journalctl -u {TIMER}"):
        act(host, verb)


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("verb", ["start", "stop", "restart", "enable", "disable"])
def test_without_root_there_is_the_line_with_sudo(host, verb):
    with pytest.raises(GMonError, match=f"needs root.*: sudo g-mon {verb}$"):
        act(host, verb)
    assert host.calls(verb) == []


@pytest.mark.usefixtures("root")
def test_not_installed(host):
    host.units_are("none")
    assert not units.find(host.settings).installed
    with pytest.raises(GMonError, match=f"{SERVICE} isn't installed"):
        act(host, "start")


@pytest.mark.usefixtures("root")
def test_a_one_shot_service_without_its_timer(host):
    host.units_are()
    host.systemd(units={SERVICE: {"LoadState": "loaded", "Type": "oneshot"}})
    with pytest.raises(GMonError, match=f"{TIMER} isn't installed"):
        act(host, "start")


def test_a_systemctl_that_hangs(host):
    host.systemd(hang=["show"])
    with pytest.raises(GMonError, match=r"didn't end within 0\.3 s"):
        units.show(SERVICE, lambda argv, _seconds: units.run(argv, 0.3))


def test_no_systemd(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GMonError, match="isn't run by systemd"):
        units.run(["systemctl-that-is-not-there"], 1)
    message = "System has not been booted with systemd as init system"
    with pytest.raises(GMonError, match=message):
        units.show(SERVICE, lambda _argv, _seconds: (1, "", message + "\n"))


def test_the_tests_stamps_are_those_of_systemctl():
    assert units.parse_stamp(systemd_stamp(1795176000)) == 1795176000
