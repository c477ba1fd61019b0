# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The entry point against a real PostgreSQL, Redis and Prometheus."""

from __future__ import annotations

import pytest

FILES = "/etc/hx-llm/integrations"
NOT_IT = "not-It-4711"

# name: what is wrong with the declaration, what the run says about it
FAILURES = {
    "password": ({"kind": "postgresql", "password": NOT_IT}, "(SQLSTATE 28P01)"),
    "no-password": (
        {"kind": "postgresql", "password": None},
        "the server asks for the password of citadel, and none is declared",
    ),
    "database": (
        {"kind": "postgresql", "database": "nowhere"},
        "ready is the database nowhere is missing",
    ),
    "old": ({"kind": "postgresql", "version_min": "16"}, ", wanted 16 or newer"),
    "new": ({"kind": "postgresql", "version_max": "14.9"}, ", wanted at most 14.9"),
    "stranger": ({"kind": "postgresql", "user": "stranger"}, "pg_hba.conf rejects connection"),
    "clear": ({"kind": "postgresql", "user": "plain"}, "in clear text on a connection without TLS"),
    "certificate": (
        {"kind": "postgresql", "tls": True, "host": "localhost"},
        "the certificate is not accepted: Hostname mismatch",
    ),
    "redis-port": ({"kind": "postgresql", "port": 6379}, "the port answers Redis, not PostgreSQL"),
    "http-port": ({"kind": "postgresql", "port": 9090}, "the port answers HTTP, not PostgreSQL"),
    "open-file": (
        {"kind": "postgresql", "password": None, "password_file": f"{FILES}/open-password"},
        f"password_file {FILES}/open-password has mode 0644",
    ),
    "redis-password": ({"kind": "redis", "password": NOT_IT}, "user or password is wrong: WRONGP"),
    "redis-none": ({"kind": "redis", "password": None}, "asks for a password, and none is decl"),
    "redis-user": ({"kind": "redis", "user": "narrow"}, "the user lacks permissions: NOPERM"),
    "redis-tls": ({"kind": "redis", "tls": True}, "the port answers Redis without TLS"),
    "redis-plain": ({"kind": "redis", "port": 6380}, "the port speaks TLS, and tls is declared f"),
    "redis-old": ({"kind": "redis", "version_min": "8"}, "version is 7.0.15, wanted 8 or newer"),
    "postgresql-port": ({"kind": "redis", "port": 5433}, "the port answers PostgreSQL, not Redis"),
    "metrics-password": ({"kind": "prometheus", "password": NOT_IT}, "is not accepted (GET /-/re"),
    "metrics-none": ({"kind": "prometheus", "user": ""}, "the token is not accepted"),
    "down": ({"kind": "prometheus", "job": "llm-hosts"}, "1 of 1 down: llm-02:9100"),
    "no-job": ({"kind": "prometheus", "job": "nobody"}, "targets_up is no such target"),
    "redis-for-http": ({"kind": "prometheus", "port": 6379}, "the port answers Redis, not HTTP"),
    "other-http": ({"kind": "grafana", "port": 9090}, "the port answers HTTP, but not like Grafan"),
    "name": ({"kind": "redis", "host": "nobody.invalid"}, "the name nobody.invalid is not resol"),
    "nobody": ({"kind": "qdrant"}, "connection refused by"),
}
SOUND = {
    "redis-with-tls": {"kind": "redis", "port": 6380, "tls": True, "ca_path": f"{FILES}/ca.pem"},
    "md5": {"kind": "postgresql", "user": "old"},
    "clear-with-tls": {
        "kind": "postgresql",
        "user": "plain",
        "tls": True,
        "ca_path": f"{FILES}/ca.pem",
    },
    "targets": {"kind": "prometheus", "job": "prometheus", "instance": "localhost:9090"},
}


def service(name, fields, passwords):
    """Return the declaration of a service in order, but for the given fields."""
    usual = {
        "postgresql": {"user": "citadel", "database": "citadel", "password": passwords["citadel"]},
        "redis": {"password": passwords["cache"]},
        "prometheus": {"user": "metrics", "password": passwords["metrics"]},
        "grafana": {"user": "metrics", "password": passwords["metrics"]},
        "qdrant": {},
    }
    if fields.get("user") == "narrow":
        fields = {"password": passwords["sessions"], **fields}
    return {"host": "svc-01", "name": name, **usual[fields["kind"]], **fields}


@pytest.fixture(scope="module")
def everything(check, passwords):
    """One run over all of them, so noisy that a password would show."""
    cases = {**{name: fields for name, (fields, _said) in FAILURES.items()}, **SOUND}
    services = [service(name, fields, passwords) for name, fields in cases.items()]
    return check(services, "-vvv", "-e", "integrations_timeout=1.5")


@pytest.mark.parametrize("name", FAILURES)
def test_each_failure_is_named_with_its_cause(everything, name):
    status, text = everything
    assert status == 2
    assert "changed=0" in text
    found = text.split(f"FAIL: svc-01 {name}: ", 1)
    assert len(found) == 2, text
    assert FAILURES[name][1] in found[1].split("FAIL: svc-01 ", 1)[0]


@pytest.mark.parametrize("name", SOUND)
def test_other_ways_to_log_in_pass(everything, name):
    assert f"svc-01 {name}:" not in everything[1]


def test_no_password_shows(everything, passwords):
    for password in [*passwords.values(), NOT_IT]:
        assert password not in everything[1]


@pytest.mark.parametrize("target", ["svc-01", "llm-02"])
def test_a_dry_run_checks_as_well_and_optional_services_only_warn(check, passwords, target):
    services = [
        service("sound", {"kind": "postgresql"}, passwords),
        service("optional", {"kind": "redis", "password": NOT_IT, "required": False}, passwords),
    ]
    status, text = check(services, "--check", target=target)
    assert status == 0, text
    assert f"WARN: {target} optional: authenticated is user or password is wrong" in text


@pytest.fixture
def stopped(svc_01):
    svc_01.check_output("systemctl stop redis-server")
    yield
    svc_01.check_output("systemctl start redis-server")


@pytest.mark.usefixtures("stopped")
def test_a_stopped_service_is_refused_from_another_host(check, passwords):
    services = [service("cache", {"kind": "redis"}, passwords)]
    status, text = check(services, target="llm-02")
    assert status == 2
    assert "FAIL: llm-02 cache: reachable is connection refused by" in text
    assert "wanted Redis on svc-01:6379" in text
