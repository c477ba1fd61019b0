# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    Wanted,
    printable,
    problems,
    version_fits,
    version_key,
    wanted_from,
)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("15.20 (Debian 15.20-0+deb12u1)", (15, 20)),
        ("2.42.0+ds", (2, 42, 0)),
        ("v1.12.4", (1, 12, 4)),
        ("16beta1", (16,)),
        ("", ()),
        ("unknown", ()),
    ],
)
def test_versions_are_read_as_numbers(text, key):
    assert version_key(text) == key


@pytest.mark.parametrize(
    ("found", "least", "most", "fits"),
    [
        ("15.20", "15", "", True),
        ("15", "15.0", "", True),
        ("15.4", "15.10", "", False),
        ("9.6", "15", "", False),
        ("15.20", "", "15", True),
        ("16.0", "", "15", False),
        ("15.20", "", "15.19", False),
        ("15.20", "15.1", "15.20", True),
        ("7.0.15", "7", "7.0", True),
        ("", "", "", True),
        ("", "1", "", False),
        ("unknown", "", "1", False),
    ],
)
def test_limits_of_versions(found, least, most, fits):
    assert version_fits(found, least, most) is fits


SECRET, FILE = "hidden", "/f"


def entry(**fields):
    return {"kind": "redis", "host": "h", **fields}


def test_what_is_left_out_gets_its_usual_value():
    wanted = wanted_from(entry(port=None, password=None, password_file=FILE, datasources=["a"]), 3)
    assert (wanted.name, wanted.port, wanted.password) == ("redis", 6379, "")
    assert (wanted.datasources, wanted.timeout) == (("a",), 3)
    ports = {kind: wanted_from({"kind": kind, "host": "h"}, 1).port for kind in ("postgresql",)}
    assert ports == {"postgresql": 5433}


def test_a_password_never_shows_in_the_declarations_text():
    assert SECRET not in repr(Wanted("redis", "h", password=SECRET))


def test_an_address_of_ipv6_stands_in_brackets():
    assert Wanted("redis", "::1", port=6379).place == "[::1]:6379"


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([entry(), entry(name="other")], []),
        ([entry(), entry()], ["[1].name: found 'redis' twice"]),
        ([entry(password=SECRET, password_file=FILE)], ["[0]: found password and password_file"]),
        ([{"kind": "postgresql", "host": "h"}], ["[0].user: found nothing"]),
        ([entry(version_min="new")], ["[0].version_min: found 'new'"]),
        ([entry(version_max="7.x")], ["[0].version_max: found '7.x'"]),
        ([entry(port=70000)], ["[0].port: found 70000"]),
        ([entry(path="grafana")], ["[0].path: found 'grafana'"]),
        ([entry(port=-1, version_min="x")], ["[0].version_min", "[0].port"]),
    ],
)
def test_all_problems_of_a_declaration_are_found(entries, found):
    said = problems(entries)
    assert len(said) == len(found)
    assert all(f"integrations{part}" in text for part, text in zip(found, said))


def test_a_servers_text_is_made_harmless():
    assert printable(b"a\x1b[31m\r\n b\xff") == "a?[31m b\ufffd"
    assert printable("x" * 200) == "x" * 157 + "..."
