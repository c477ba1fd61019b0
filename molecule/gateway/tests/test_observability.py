# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What operators and scrapers get: access log, metrics, rotation, files."""

from __future__ import annotations

import json
import re
import time

LOG = "/var/log/hx-gateway/access.jsonl"
FIELDS = {
    *("time", "id", "client", "tenant", "model", "method", "path", "backend", "server", "status"),
    *("termination", "ttfb_ms", "total_ms", "queue_ms", "connect_ms", "retries"),
    *("bytes_in", "bytes_out"),
}


def test_the_log_holds_every_request_of_the_load(load, access_log):
    load.settle(time.time())
    known = {record["id"]: record for record in load.records() if record["id"]}
    lines = {line["id"]: line for line in access_log()}
    assert set(known) <= set(lines)
    for name, record in known.items():
        line = lines[name]
        assert set(line) == FIELDS
        assert (line["tenant"], line["model"]) == ("load", record["model"])
        assert line["status"] == record["status"]
        assert re.fullmatch(r"llm-0[13]\.ollama", line["server"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["time"])
        assert 0 <= line["ttfb_ms"] <= line["total_ms"]


def test_a_line_stays_json_whatever_a_client_sends(ask, access_log):
    name = 'a"b\\c\n\u00e9' + "x" * 5000
    path = "/" + "p" * 5000
    ids = [
        ask("/v1/chat/completions", {"model": name})[1]["X-Request-Id"],
        ask(path)[1]["X-Request-Id"],
    ]
    lines = {line["id"]: line for line in access_log()}
    assert lines[ids[0]]["model"].startswith('a"b\\c\n')
    assert len(lines[ids[1]]["path"]) == 200


def test_nobody_else_can_read_the_log(gw_01):
    log = gw_01.file(LOG)
    assert (log.user, log.group, log.mode) == ("root", "adm", 0o640)


def test_rotation_loses_no_line(gw_01, ask):
    assert gw_01.run("logrotate --force /etc/logrotate.d/hx-gateway").rc == 0
    name = ask("/v1/models")[1]["X-Request-Id"]
    found = gw_01.run(f"sleep 0.5; grep -l {name} {LOG} {LOG}.1")
    assert found.stdout.split() == [LOG]
    gw_01.run(f"cat {LOG}.1 {LOG} > {LOG}.new && cat {LOG}.new > {LOG} && rm {LOG}.1 {LOG}.new")


def test_metrics_are_served_locally_alone(gw_01, address):
    scraped = gw_01.run("curl -sS http://127.0.0.1:8404/metrics").stdout
    for host in ("llm-01", "llm-03"):
        assert re.search(
            rf'haproxy_server_weight{{proxy="m_[^"]+",server="{host}.ollama"}} 10', scraped
        )
    assert "haproxy_backend_active_servers{" in scraped
    assert gw_01.run(f"curl -sS --max-time 2 http://{address}:8404/metrics").rc != 0


def test_the_memory_of_the_largest_load_is_declared(gw_01):
    config = gw_01.file("/etc/haproxy/haproxy.cfg").content_string
    assert "tune.bufsize 1376256" in config
    assert "1.1 x 1376256 x 512 = 775107379 bytes" in config


def test_the_health_path_says_whether_anybody_serves(gw_01):
    assert (
        gw_01.run("curl -sS -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/health").stdout
        == "200"
    )


def test_the_routes_are_kept_for_the_modules(gw_01):
    routes = json.loads(gw_01.file("/etc/haproxy/hx/routes.json").content_string)
    assert all(
        server["host"] in {"llm-01", "llm-03"} for route in routes for server in route["servers"]
    )
