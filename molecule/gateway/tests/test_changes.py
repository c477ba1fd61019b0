# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is declared otherwise is loaded by a reload, and so is the way back.

Before the load of the other files begins: clients find the port closed in between.
"""

from __future__ import annotations

import json
import time

CONVERGE = "molecule/gateway/converge.yml"
ROUTES = "/etc/haproxy/hx/routes.json"
STATE = "echo show servers state | socat - UNIX:/run/haproxy/admin.sock"


def rows(gw_01):
    """Return port and health of each of llm-03's servers, as the worker has them."""
    words = [line.split() for line in gw_01.check_output(STATE).splitlines()]
    return {(row[18], row[5]) for row in words if row[3:4] == ["llm-03.ollama"]}


def status(gw_01, port):
    ask = f"http://127.0.0.1:{port}/v1/models -H 'Authorization: Bearer key-of-load'"
    return gw_01.run(f"curl -sS -o /dev/null -w '%{{http_code}}' {ask}").stdout


def test_changed_ports_are_loaded_without_a_restart(gw_01, playbook):
    routes = json.loads(gw_01.file(ROUTES).content_string)
    for route in routes:
        for server in route["servers"]:
            if server["host"] == "llm-03":
                server["port"] = 11499  # nothing listens there; llm-01 serves
    changed = json.dumps({"gateway_listen": "*:8001", "gateway_routes": routes})
    main = gw_01.check_output("systemctl show haproxy -p MainPID")
    try:
        there = playbook(CONVERGE, "-e", changed)
        assert there.returncode == 0, there.stdout + there.stderr
        assert {port for port, _health in rows(gw_01)} == {"11499"}
        assert (status(gw_01, 8001), status(gw_01, 8000)) == ("200", "000")
    finally:
        back = playbook(CONVERGE)
    assert back.returncode == 0, back.stdout + back.stderr
    assert (status(gw_01, 8001), status(gw_01, 8000)) == ("000", "200")
    assert gw_01.check_output("systemctl show haproxy -p MainPID") == main
    end = time.monotonic() + 20  # found dead at the other port; two checks bring it back
    while rows(gw_01) != {("11434", "2")} and time.monotonic() < end:
        time.sleep(0.5)
    assert rows(gw_01) == {("11434", "2")}
