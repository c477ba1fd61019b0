# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Planned operations under constant load cost no request; an engine that dies costs few."""

from __future__ import annotations

import re
import time

MODEL = "llama3.2:3b"
VERIFY = "Read configuration, routes and models"


def by_host(access_log, window, slack=0.0):
    """Count the requests that began in the window, by the host that served them."""
    ids = {
        record["id"]
        for record in window.records
        if window.begin + slack <= record["start"] <= window.end
    }
    hosts = [line["server"].split(".")[0] for line in access_log() if line["id"] in ids]
    return {host: hosts.count(host) for host in ("llm-01", "llm-03")}


def servers(gateway, host):
    found = gateway("gateway_info")["servers"]
    return {server["model"]: server for server in found if server["host"] == host}


def wait_until_up(gateway, host, budget=30):
    end = time.monotonic() + budget
    while not all(server["status"].startswith("UP") for server in servers(gateway, host).values()):
        assert time.monotonic() < end, servers(gateway, host)
        time.sleep(0.5)


def ready(gateway, host):
    gateway("gateway_traffic", host=host, state="ready")


def test_drain_restart_and_undrain_cost_no_request(load, gateway, llm_01, access_log):
    with load.lossless() as all_of_it:
        drained = gateway("gateway_traffic", host="llm-01", state="drained", budget=60, owner="t")
        assert drained["changed"]
        assert drained["open_streams"] == 0
        with load.lossless() as empty:
            llm_01.run("systemctl kill --signal=KILL ollama.service")
            time.sleep(2)
        assert by_host(access_log, empty)["llm-01"] == 0
        assert by_host(access_log, empty)["llm-03"] > 0
        ready(gateway, "llm-01")
        wait_until_up(gateway, "llm-01")
        with load.lossless() as again:
            time.sleep(2)
        assert by_host(access_log, again)["llm-01"] > 0
    assert len(all_of_it.records) > 10


def test_a_reload_costs_no_request_and_forgets_no_drain_and_no_weight(load, gateway, gw_01):
    gateway("gateway_traffic", host="llm-03", state="drained", budget=60)
    # By hand, so that nothing but the reload itself can have saved it.
    name = servers(gateway, "llm-01")[MODEL]
    order = f"set server {name['backend']}/{name['server']} weight 7"
    gw_01.run(f"echo {order} | socat - /run/haproxy/admin.sock")
    before = gateway("gateway_info")
    with load.lossless():
        assert gw_01.run("systemctl reload haproxy").rc == 0
        time.sleep(1)
        assert gw_01.run("systemctl reload haproxy").rc == 0
    after = gateway("gateway_info")
    assert after["worker"] != before["worker"]
    assert {server["state"] for server in servers(gateway, "llm-03").values()} == {"drained"}
    assert servers(gateway, "llm-01")[MODEL]["weight"] == 7
    gateway("gateway_traffic", host="llm-01", model=MODEL, state="weighted", weight=10)
    ready(gateway, "llm-03")


def test_an_upgrade_of_the_package_is_a_reload(load, gateway, gw_01):
    gateway("gateway_traffic", host="llm-03", state="drained", budget=60)
    before, unit = gateway("gateway_info"), "systemctl show haproxy -p MainPID -p NRestarts"
    main = gw_01.check_output(unit)
    with load.lossless():
        # The last thing that dpkg does when it upgrades from an older version.
        script = "/var/lib/dpkg/info/haproxy.postinst configure 2.6.12-1"
        done = gw_01.run(
            f"DPKG_MAINTSCRIPT_NAME=postinst DPKG_MAINTSCRIPT_PACKAGE=haproxy {script}"
        )
        assert done.rc == 0, done
        time.sleep(1)
    assert gateway("gateway_info")["worker"] != before["worker"]
    assert gw_01.check_output(unit) == main
    assert {server["state"] for server in servers(gateway, "llm-03").values()} == {"drained"}
    ready(gateway, "llm-03")


def test_a_shift_by_weight_there_and_back_costs_no_request(load, gateway, access_log):
    def weigh(first, second):
        # The one that grows goes first: nobody serves in between otherwise.
        pairs = [("llm-01", first), ("llm-03", second)]
        for host, weight in sorted(pairs, key=lambda pair: -pair[1]):
            gateway("gateway_traffic", host=host, model=MODEL, state="weighted", weight=weight)

    with load.lossless():
        for first, second in ((10, 0), (9, 1), (5, 5), (0, 10)):
            weigh(first, second)
        with load.lossless() as there:
            time.sleep(2)
        weigh(10, 0)
        with load.lossless() as back:
            time.sleep(2)
        weigh(10, 10)
    assert by_host(access_log, there)["llm-01"] == 0
    assert by_host(access_log, there)["llm-03"] > 0
    assert by_host(access_log, back)["llm-03"] == 0
    assert by_host(access_log, back)["llm-01"] > 0


def test_a_dying_engine_costs_only_answers_that_had_begun(load, gateway, llm_03):
    with load.window() as window:
        open_streams = servers(gateway, "llm-03")[MODEL]["open_streams"]
        llm_03.run("systemctl kill --signal=KILL ollama.service")
        time.sleep(4)
    wait_until_up(gateway, "llm-03")
    # 200: the first byte had left, no proxy can take it back. More than were open cannot break.
    assert {record["status"] for record in window.failed} <= {200}, window.failed
    assert len(window.failed) <= max(open_streams, 5)
    with load.lossless():
        time.sleep(1)


def ports(gw_01):
    """Return the ports that the worker uses for llm-03's largest model."""
    state = gw_01.check_output("echo show servers state | socat - UNIX:/run/haproxy/admin.sock")
    rows = [line.split() for line in state.splitlines()]
    return [row[18] for row in rows if "mistral" in "".join(row[1:2]) and row[3] == "llm-03.ollama"]


def wait_until_loaded(gw_01, port, budget=30):
    """Wait for the new worker: the old one answers for a moment after a reload."""
    end = time.monotonic() + budget
    while ports(gw_01) != [port]:
        assert time.monotonic() < end, ports(gw_01)
        time.sleep(0.2)


def test_a_run_that_ended_before_its_reload_is_completed_by_the_next(load, gw_01, playbook):
    config = "/etc/haproxy/haproxy.cfg"
    with load.lossless():
        # As if the worker had been loaded with what stood there before, another port among it.
        gw_01.run(
            f"cp -p {config} /root/kept && sed -i -e 's/hx-gateway ..../hx-gateway 0000/'"
            f" -e '/^backend m_mistral/,/^$/ s/llm-03:11434/llm-03:11499/' {config}"
        )
        assert gw_01.run("systemctl reload haproxy").rc == 0
        wait_until_loaded(gw_01, "11499")
        gw_01.run(f"mv /root/kept {config}")
        time.sleep(1)
        verified = playbook("molecule/gateway/converge.yml", f"--start-at-task={VERIFY}")
        run = playbook("molecule/gateway/converge.yml")
    assert "the running HAProxy was loaded with 'hx-gateway 0000" in verified.stdout
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"gw-01 .* changed=1 ", run.stdout), run.stdout
    assert ports(gw_01) == ["11434"]


def test_no_request_of_the_whole_suite_failed_unless_an_engine_died(load):
    assert all(record["status"] == 200 for record in load.records())
