# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checks of integrations against stand-ins on loopback; the lab has the real services."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import integration_standins as standins
import pytest
from integration_standins import KEY, OTHER_KEY, bulk, listening, saying

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_judge import judge
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_run import (
    check_all,
    check_one,
)

ROOT = Path(__file__).resolve().parents[2]
OK = {"reachable": "PASS", "authenticated": "PASS", "version": "PASS", "ready": "PASS"}


def look(kind, port, **fields):
    """Check one service; returns the status of each check and what was found."""
    wanted = Wanted(
        kind, fields.pop("host", "127.0.0.1"), "it", port, **{"timeout": 10.0, **fields}
    )
    found = check_one(wanted)
    return {verdict.check: verdict.status for verdict in judge(wanted, found)}, found


def message(found):
    return found.trouble.message


def test_qdrant_passes_with_its_key():
    with standins.qdrant() as port, listening(standins.http2) as grpc:
        statuses, found = look("qdrant", port, password=KEY, grpc_port=grpc)
    assert statuses == {**OK, "grpc_reachable": "PASS"}
    assert (found.version, found.unasked) == ("1.12.4", False)


@pytest.mark.parametrize(("password", "cause"), [("", "password_missing"), (OTHER_KEY, "password")])
def test_qdrant_wants_its_key(password, cause):
    with standins.qdrant() as port:
        statuses, found = look("qdrant", port, password=password, grpc_port=0)
    assert statuses == {"reachable": "PASS", "authenticated": "FAIL", "version": "PASS"}
    assert found.trouble.cause == cause
    assert "Must provide an API key" in message(found)


def test_qdrant_without_protection_is_a_warning_where_a_key_is_declared():
    with standins.qdrant(key=None) as port:
        statuses, _found = look("qdrant", port, grpc_port=0)
        assert statuses == OK
    with standins.pages(
        {
            "/": (200, {"title": "qdrant", "version": "1.9"}),
            "/collections": (200, {}),
            "/readyz": (200, b""),
        },
        ("/", "/collections", "/readyz"),
        ("api-key", None, b""),
    ) as port:
        statuses, _found = look("qdrant", port, password=KEY, grpc_port=0)
    assert statuses == {**OK, "authenticated": "WARN"}


def test_qdrant_that_is_not_ready():
    with standins.qdrant(**{"/readyz": (503, b"some shards are not ready")}) as port:
        statuses, found = look("qdrant", port, password=KEY, grpc_port=0)
    assert statuses["ready"] == "FAIL"
    assert "some shards are not ready" in message(found)


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "is not HTTP/2's"),
        (standins.silent, "no answer within 1 s (waiting for HTTP/2's answer"),
    ],
)
def test_qdrants_grpc_port_has_to_speak_http2(serve, said):
    with standins.qdrant() as port, listening(serve) as grpc:
        statuses, found = look("qdrant", port, password=KEY, grpc_port=grpc, timeout=1.0)
    assert statuses == {**OK, "grpc_reachable": "FAIL"}
    assert said in found.more[0].value


def test_grafana_passes_with_a_login_and_its_data_sources():
    with standins.grafana() as port:
        sources = {"datasources": ("Prometheus",)}
        statuses, found = look("grafana", port, user="hx", password=KEY, **sources)
        assert statuses == {**OK, "datasources": "PASS"}
        assert found.version == "11.3.0"
        sources = {"datasources": ("Prometheus", "Loki")}
        statuses, found = look("grafana", port, user="hx", password=KEY, **sources)
        assert statuses["datasources"] == "FAIL"
        assert found.more[0].value == "without Loki"


def test_grafana_below_a_path():
    moved = {
        "/grafana/api/health": (200, {"database": "ok", "version": "11.3.0"}),
        "/grafana/api/org": (200, {}),
    }
    with standins.grafana(**moved) as port:
        statuses, found = look("grafana", port, user="hx", password=KEY, path="/grafana/")
        assert statuses == OK
        statuses, found = look("grafana", port, user="hx", password=KEY, path="/metrics")
    assert statuses == {"reachable": "FAIL"}
    assert found.trouble.cause == "wrong_service"


def test_grafana_refuses_a_wrong_login():
    with standins.grafana() as port:
        statuses, found = look("grafana", port, user="hx", password=OTHER_KEY)
    assert statuses["authenticated"] == "FAIL"
    assert "the login as hx is not accepted" in message(found)


@pytest.mark.parametrize(("status", "verdict"), [(200, "PASS"), (403, "PASS"), (502, "FAIL")])
def test_grafana_s_login_is_proven_by_an_answer_and_not_by_a_failure(status, verdict):
    with standins.grafana(**{"/api/org": (status, {"message": "no"})}) as port:
        statuses, found = look("grafana", port, user="hx", password=KEY)
    assert statuses["authenticated"] == verdict
    assert status != 502 or "GET /api/org: status 502: no" in message(found)


def test_grafana_whose_database_fails():
    health = (503, {"database": "failing", "version": "11.3.0"})
    with standins.grafana(**{"/api/health": health}) as port:
        statuses, found = look("grafana", port, user="hx", password=KEY)
    assert statuses["ready"] == "FAIL"
    assert "its database is failing" in message(found)


def test_prometheus_with_a_token_and_a_target_that_is_down():
    with standins.prometheus() as port:
        assert look("prometheus", port, password=KEY)[0] == OK
        statuses, found = look("prometheus", port, password=KEY, job="llm")
        assert statuses == {**OK, "targets_up": "FAIL"}
        assert found.more[0].value == "1 of 2 down: b:1"
        statuses, found = look("prometheus", port, password=OTHER_KEY)
    assert statuses == {"reachable": "PASS", "authenticated": "FAIL"}
    assert "the token is not accepted (GET /-/ready: status 401: Unauthorized)" in message(found)


def test_prometheus_that_still_reads_its_log():
    with standins.prometheus(**{"/-/ready": (503, b"Service Unavailable")}) as port:
        statuses, found = look("prometheus", port, password=KEY)
    assert statuses == {"reachable": "PASS", "ready": "FAIL"}
    assert "status 503: Service Unavailable" in message(found)


def test_tls_is_checked(tmp_path):
    context, certificate = standins.server_context(tmp_path)
    login = {"user": "hx", "password": KEY, "tls": True}
    with standins.grafana(context=context) as port:
        statuses, found = look("grafana", port, host="localhost", ca_path=certificate, **login)
        assert statuses == OK
        assert found.tls.startswith("TLS")
        _statuses, found = look("grafana", port, ca_path=certificate, **login)
        assert "the certificate is not accepted: IP address mismatch" in message(found)
        _statuses, found = look("grafana", port, host="localhost", **login)
        assert "the certificate is not accepted: self-signed certificate" in message(found)
        assert look("grafana", port, validate_certs=False, **login)[0] == OK
        _statuses, found = look("grafana", port, ca_path=str(tmp_path / "none"), **login)
        assert "none can't be used: No such file" in message(found)
    with listening(standins.silent, context) as port:
        _statuses, found = look("redis", port)
    assert message(found) == "the port speaks TLS, and tls is declared false"
    with standins.grafana() as port:
        _statuses, found = look("grafana", port, timeout=1.5, **login)
    assert message(found) == "the port answers HTTP without TLS, and tls is declared true"


@pytest.mark.parametrize("kind", ["postgresql", "redis", "qdrant", "prometheus", "grafana"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_says_nothing_costs_a_known_time(kind, tls):
    with listening(standins.silent) as port:
        statuses, found = look(kind, port, user="hx", password=KEY, tls=tls, timeout=0.2)
    assert statuses == {"reachable": "FAIL"}
    assert message(found).startswith("no answer within 0.2 s (waiting for ")


def test_a_server_that_drips_doesnt_escape_the_deadline():
    with listening(standins.dripping) as port:
        statuses, found = look("grafana", port, timeout=0.3)
    assert statuses == {"reachable": "FAIL"}
    assert message(found) == "no answer within 0.3 s (waiting for the answer to GET /api/health)"


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    statuses, found = look("redis", port)
    assert statuses == {"reachable": "FAIL"}
    assert message(found) == "connection refused by 127.0.0.1"


def test_a_full_queue_of_connections_is_a_timeout_of_the_connection():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _index in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        _statuses, found = look("redis", port, timeout=0.2)
        for sock in waiting:
            sock.close()
    assert found.trouble.cause == "timeout"
    assert message(found) == "no connection within 0.2 s to 127.0.0.1"


@pytest.mark.parametrize(
    ("kind", "serve", "said"),
    [
        ("postgresql", saying(b"SSH-2.0-OpenSSH_9.2\r\n"), "the port answers SSH, not PostgreSQL"),
        ("redis", saying(b"HTTP/1.1 400 Bad\r\n\r\n"), "the port answers HTTP, not Redis"),
        ("redis", saying(b"S"), "the port answers PostgreSQL, not Redis"),
        ("grafana", saying(b"-NOAUTH Authentication required.\r\n"), "answers Redis, not HTTP"),
        ("grafana", saying(b"J\0\0\0\x0a8.0.36\0..."), "the port answers MySQL, not HTTP"),
        ("grafana", saying(b"\x01\x02\x03\x04\r\n"), "the answer is not HTTP: "),
        ("postgresql", saying(b"R\xff\xff\xff\xff"), "a message of 4294967295 bytes came"),
        ("postgresql", saying(), "the connection was closed (waiting for PostgreSQL's answer"),
    ],
)
def test_another_service_is_named(kind, serve, said):
    with listening(serve) as port:
        statuses, found = look(kind, port, user="hx", timeout=1.0)
    assert statuses == {"reachable": "FAIL"}
    assert said in message(found)


def test_postgresql_logs_in_by_scram():
    with listening(standins.postgres_that_knows(KEY)) as port:
        statuses, found = look("postgresql", port, user="hx", password=KEY)
    assert statuses == OK
    assert (found.version, found.authenticated) == ("17.2", "SCRAM-SHA-256 as hx")


def test_a_server_that_doesnt_know_the_password_is_found_out():
    with listening(standins.postgres_that_knows(KEY, honest=False)) as port:
        statuses, found = look("postgresql", port, user="hx", password=KEY)
    assert statuses == {"reachable": "PASS", "authenticated": "FAIL"}
    assert "its signature is wrong" in message(found)


def test_a_server_that_cuts_the_proof_short_is_found_out():
    scram = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"
    with listening(saying(scram, b"R\0\0\0\x08\0\0\0\0")) as port:
        _statuses, found = look("postgresql", port, user="hx", password=KEY)
    assert "it let us in without proving that it knows the password" in message(found)


@pytest.mark.parametrize(
    ("code", "check", "cause"),
    [
        ("57P03", "ready", "not_ready"),
        ("53300", "ready", "not_ready"),
        ("28000", "authenticated", "refused_login"),
        ("3D000", "ready", "database"),
        ("XX000", "authenticated", "server_error"),
    ],
)
def test_postgresqls_errors_are_told_apart(code, check, cause):
    with listening(saying(standins.postgres_error(code, "some\ttext"))) as port:
        statuses, found = look("postgresql", port, user="hx", password=KEY)
    assert statuses == {"reachable": "PASS", check: "FAIL"}
    assert found.trouble.cause == cause
    assert f"some text (SQLSTATE {code})" in message(found)


def test_postgresql_without_tls_is_told_where_tls_is_declared():
    with listening(saying(b"N")) as port:
        _statuses, found = look("postgresql", port, user="hx", tls=True)
    assert message(found) == "the server has no TLS, and tls is declared true"


def test_postgresql_without_a_password_is_a_warning_where_one_is_declared():
    settled = b"R\0\0\0\x08\0\0\0\0" + b"S\0\0\0\x18server_version\x0016.1\0" + b"Z\0\0\0\5I"
    row = b"D\0\0\0\x0b\0\1\0\0\0\x011" + b"Z\0\0\0\5I"
    with listening(saying(settled, row)) as port:
        statuses, _found = look("postgresql", port, user="hx", password=KEY)
    assert statuses == {**OK, "authenticated": "WARN"}


NO_AUTH = b"-NOAUTH HELLO must be called with the client already authenticated\r\n"
SERVER = bulk("# Server\r\nredis_version:7.2\r\n")


@pytest.mark.parametrize(
    ("answers", "statuses", "said"),
    [
        (
            [NO_AUTH, b"-WRONGPASS invalid username-password pair\r\n"],
            {"reachable": "PASS", "authenticated": "FAIL"},
            "user or password is wrong: WRONGPASS",
        ),
        (
            [b"-ERR unknown command `HELLO`\r\n", b"-ERR invalid password\r\n"],
            {"reachable": "PASS", "authenticated": "FAIL"},
            "user or password is wrong: ERR invalid password",
        ),
        (
            [NO_AUTH, b"+OK\r\n", SERVER, bulk("role:master\r\n"), b"-LOADING reading\r\n"],
            {**OK, "ready": "FAIL"},
            "the server is not ready: LOADING reading",
        ),
        (
            [NO_AUTH, b"+OK\r\n", SERVER, bulk("role:slave\r\nmaster_link_status:down\r\n")],
            {**OK, "ready": "FAIL"},
            "a replica whose link to its master is down",
        ),
        ([b"-DENIED Redis is running in protected mode\r\n"], None, "in protected mode"),
        (
            [NO_AUTH, f"-ERR unknown command 'AUTH' with args '{KEY}'\r\n".encode()],
            {"reachable": "PASS", "authenticated": "FAIL"},
            "with args '********'",
        ),
    ],
)
def test_rediss_errors_are_told_apart(answers, statuses, said):
    with listening(saying(*answers)) as port:
        got, found = look("redis", port, password=KEY)
    assert got == (statuses or {"reachable": "PASS", "authenticated": "FAIL"})
    assert said in message(found)
    assert KEY not in message(found)


def test_redis_without_a_password_is_a_warning_where_one_is_declared():
    answers = [
        b"*2\r\n$6\r\nserver\r\n$5\r\nredis\r\n",
        b"-ERR AUTH <password> called without any password configured for the default user.\r\n",
        SERVER,
        bulk("role:master\r\n"),
        b"+PONG\r\n",
    ]
    with listening(saying(*answers)) as port:
        statuses, found = look("redis", port, password=KEY)
    assert statuses == {**OK, "authenticated": "WARN"}
    assert (found.version, found.role) == ("7.2", "master")


def test_redis_that_is_open_for_its_default_user_is_a_warning_too():
    greeting = b"*2\r\n$6\r\nserver\r\n$5\r\nredis\r\n"
    answers = [greeting, b"+OK\r\n", SERVER, bulk("role:master\r\n"), b"+PONG\r\n"]
    with listening(saying(*answers)) as port:
        statuses, _found = look("redis", port, user="hx", password=KEY)
    assert statuses == {**OK, "authenticated": "WARN"}


def test_one_that_hangs_delays_no_other():
    with listening(standins.silent) as port, standins.grafana() as other:
        hanging = [Wanted("redis", "127.0.0.1", f"r{n}", port, timeout=0.4) for n in range(8)]
        sound = Wanted("grafana", "127.0.0.1", "g", other, user="hx", password=KEY, timeout=5.0)
        found = check_all([*hanging, sound])
    assert [one.trouble.cause for one in found[:8]] == ["silent"] * 8
    assert found[8].trouble is None


def test_the_module_fails_with_everything_and_keeps_secrets(tmp_path):
    secret = tmp_path / "key"
    secret.write_text(f"{KEY}\n")
    secret.chmod(0o600)
    with standins.grafana() as grafana, listening(saying(NO_AUTH, b"-WRONGPASS no\r\n")) as redis:
        services = [
            {"kind": "grafana", "host": "127.0.0.1", "port": grafana, "user": "hx"},
            {"kind": "redis", "host": "127.0.0.1", "port": redis, "password": OTHER_KEY},
        ]
        services[0]["password_file"] = str(secret)
        services[0]["version_min"] = "12"
        options = json.dumps({"integrations": services, "timeout": 2, "host": "llm-01"})
        argv = ["ansible", "localhost", "-i", "localhost,", "-c", "local", "-vvv"]
        argv += ["-e", "ansible_python_interpreter={{ ansible_playbook_python }}"]
        argv += ["-m", "hx_infra.llm.integration_check", "-a", options]
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        ended = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    text = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "llm-01 grafana: version is 11.3.0, wanted 12 or newer" in text
    assert "llm-01 redis: authenticated is user or password is wrong" in text
    assert OTHER_KEY not in text
    assert KEY not in text
