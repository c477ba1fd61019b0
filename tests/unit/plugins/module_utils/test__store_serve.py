# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Serving a store by a transient unit: what systemd is told, and when it is told anything."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from store_samples import write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _store_serve as serve
from ansible_collections.hx_infra.llm.plugins.module_utils import _store_serve_unit as units
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.modules import model_store_serve as module

TOKEN = "correct-horse-battery-staple"
UNIT = "hx-model-store-serve-models.service"


class Systemd:
    """What ``systemctl`` and ``systemd-run`` would do, with a server that only says its port."""

    def __init__(self, place, fails="", silent=False):
        self.place = place
        self.state = "inactive"
        self.commands = []
        self.fails = fails
        self.silent = silent

    def __call__(self, argv):
        argv = list(argv)
        if argv[:2] == ["systemctl", "is-active"]:
            return (0 if self.state == "active" else 3), f"{self.state}\n", ""
        if argv[0] == "journalctl":
            return 0, "OSError: [Errno 98] Address already in use\n", ""
        self.commands.append(argv)
        if self.fails:
            return 1, "", self.fails
        if argv[:2] == ["systemctl", "stop"]:
            self.state = "inactive"
            for name in os.listdir(self.place.folder):
                os.unlink(self.place.file(name))
            os.rmdir(self.place.folder)  # as systemd does with a RuntimeDirectory
        elif self.silent:
            self.state = "failed"
        else:
            self.state = "active"
            with open(self.place.file("ready.json"), "w", encoding="ascii") as stream:
                json.dump({"port": 41234, "pid": 1}, stream)
        return 0, "", ""


@pytest.fixture
def place(tmp_path):
    return units.Place("models", str(tmp_path / "run"))


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    write_model(folder, "one:1b", b"one")
    write_model(folder, "two:1b", b"two")
    return folder


def run(store, place, systemd, *models, check=False, **options):
    params = {key: spec.get("default") for key, spec in module.ARGUMENT_SPEC.items()}
    given = {"store": str(store), "models": list(models or ["one:1b"]), "token": TOKEN}
    return module.run({**params, **given, "host": "llm-02", **options}, check, systemd, place)


def test_started_once(store, place):
    systemd = Systemd(place)
    first = run(store, place, systemd)
    assert first["changed"]
    assert first["actions"] == [f"Serve one:1b by {UNIT}."]
    assert (first["url"], first["port"], first["unit"]) == ("http://llm-02:41234", 41234, UNIT)
    assert [model["name"] for model in first["models"]] == ["one:1b"]
    assert 14300 < first["ends_in_s"] <= 14400
    assert len(systemd.commands) == 1
    for check in (False, True):
        again = run(store, place, systemd, check=check)
        assert (again["changed"], again["url"], again["actions"]) == (False, first["url"], [])
    assert len(systemd.commands) == 1


@pytest.mark.parametrize(
    ("models", "options"),
    [
        (["one:1b", "two:1b"], {}),
        (["one:1b"], {"token": "another-battery-staple"}),
        (["one:1b"], {"port": 8000}),
        (["one:1b"], {"allow": ["192.0.2.1"]}),
        (["one:1b"], {"connections": 2}),
    ],
)
def test_another_one_replaces_it(store, place, models, options):
    systemd = Systemd(place)
    run(store, place, systemd)
    assert run(store, place, systemd, *models, check=True, **options)["changed"]
    assert len(systemd.commands) == 1
    assert run(store, place, systemd, *models, **options)["changed"]
    assert [argv[0] for argv in systemd.commands] == ["systemd-run", "systemctl", "systemd-run"]
    assert not run(store, place, systemd, *models, **options)["changed"]


def test_one_that_ends_soon_is_replaced(store, place):
    systemd = Systemd(place)
    run(store, place, systemd)
    started = json.loads(Path(place.file("started.json")).read_text())
    with open(place.file("started.json"), "w", encoding="ascii") as stream:
        json.dump({**started, "ends_at": started["ends_at"] - 7300}, stream)
    assert run(store, place, systemd)["changed"]


def test_one_whose_files_are_gone_is_replaced(store, place):
    systemd = Systemd(place)
    run(store, place, systemd)
    os.unlink(place.file("ready.json"))
    assert run(store, place, systemd)["changed"]


def test_check_mode_starts_nothing(store, place):
    systemd = Systemd(place)
    planned = run(store, place, systemd, check=True)
    assert (planned["changed"], planned["port"], planned["url"]) == (True, 0, "")
    assert run(store, place, systemd, check=True, port=8000)["url"] == "http://llm-02:8000"
    assert systemd.commands == []
    assert not os.path.exists(place.parent)


def test_stopped(store, place):
    systemd = Systemd(place)
    assert not run(store, place, systemd, state="stopped")["changed"]
    run(store, place, systemd)
    assert run(store, place, systemd, state="stopped", check=True)["changed"]
    assert systemd.state == "active"
    stopped = run(store, place, systemd, state="stopped")
    assert (stopped["changed"], stopped["actions"]) == (True, [f"Stop {UNIT}."])
    assert (systemd.state, os.path.exists(place.folder)) == ("inactive", False)
    assert not run(store, place, systemd, state="stopped")["changed"]


def test_files_that_a_crash_left_go(store, place):
    os.makedirs(place.folder)
    assert run(store, place, Systemd(place), state="stopped")["changed"]
    assert not os.path.exists(place.folder)


def test_the_token_is_nobody_elses(store, place):
    systemd = Systemd(place)
    result = run(store, place, systemd)
    assert TOKEN not in json.dumps([systemd.commands, result])
    for name in ("settings.json", "started.json", "server.py"):
        assert TOKEN not in Path(place.file(name)).read_text()
    assert stat.S_IMODE(os.stat(place.folder).st_mode) == 0o700
    for name in os.listdir(place.folder):
        if name != "ready.json":
            assert stat.S_IMODE(os.stat(place.file(name)).st_mode) == 0o600
    assert Path(place.file("token")).read_text() == TOKEN


def test_the_unit_is_shut_in(store, place):
    systemd = Systemd(place)
    run(store, place, systemd, runtime_max_s=600, allow=["192.0.2.0/24", "2001:db8::/32"])
    argv = systemd.commands[0]
    options, program = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    for wanted in (
        f"--unit={UNIT}",
        "--collect",
        "--property=RuntimeMaxSec=600",
        "--property=RuntimeDirectory=hx-llm/serve-models",
        f"--property=User={os.stat(store / 'blobs').st_uid}",
        "--property=ProtectSystem=strict",
        "--property=NoNewPrivileges=yes",
        "--property=CapabilityBoundingSet=",
        "--property=TasksMax=112",  # 32 transfers, 64 others, and some more
        "--property=IPAddressDeny=any",
        "--property=IPAddressAllow=192.0.2.0/24 2001:db8::/32",
    ):
        assert wanted in options
    assert program[1:] == ["-I", "-B", place.file("server.py"), place.file("settings.json")]
    settings = json.loads(Path(place.file("settings.json")).read_text())
    assert settings["lifetime_s"] == 600
    assert settings["manifests"] == ["manifests/registry.ollama.ai/library/one/1b"]


@pytest.mark.parametrize(("root", "private"), [("/srv/x", "yes"), ("/var/tmp/x", "no")])  # noqa: S108
def test_a_store_below_tmp_stays_visible(place, root, private):
    serving = units.Serving(
        "models", root, (), "::", 0, (), TOKEN, (0, 0), 1, 60, "/usr/bin/python3"
    )
    command = units.unit_command(serving, place)
    assert f"--property=PrivateTmp={private}" in command
    assert not any("IPAddress" in word for word in command)


def test_owners_without_a_name_serve_nothing(store, monkeypatch):
    assert units.blob_owner(str(store)) == (os.stat(store / "blobs").st_uid, os.getegid())

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(units.pwd, "getpwuid", unknown)
    assert units.blob_owner(str(store)) == (os.geteuid(), os.getegid())


def test_an_interpreter_that_the_account_can_run(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    python = home / "python3"
    python.touch(mode=0o755)
    assert units.interpreter(0, str(python)) == str(python)
    assert units.interpreter(home.stat().st_uid + 4711, str(python)) == units.SYSTEM_PYTHON
    assert units.interpreter(4711, "/usr/bin/env") == "/usr/bin/env"


@pytest.mark.parametrize(
    ("systemd", "text"),
    [
        ({"fails": "Failed to connect to bus"}, "systemd-run couldn't start .*connect to bus"),
        ({"silent": True}, "doesn't serve, it is failed: OSError: .* Address already in use"),
    ],
)
def test_a_unit_that_does_not_start(store, place, systemd, text):
    with pytest.raises(HostError, match=text):
        run(store, place, Systemd(place, **systemd))
    assert not os.path.exists(place.folder)


def test_a_unit_that_never_gets_ready(store, place):
    systemd = Systemd(place)
    times = iter(range(0, 1000, 20))

    def forget(argv):
        answer = systemd(argv)
        if argv[0] == "systemd-run":
            os.unlink(place.file("ready.json"))
        return answer

    serving = units.Serving(
        "models", str(store), (), "::", 0, (), TOKEN, units.blob_owner(str(store)), 1, 60, "python3"
    )
    with pytest.raises(HostError, match="doesn't serve, it is active"):
        serve.start(forget, serving, place, now=lambda: next(times), sleep=lambda _s: None)
    assert systemd.state == "inactive"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"token": "short"}, "the token has 5 characters, wanted at least 20"),
        ({"token": "with a newline inside it\n"}, "printable"),
        ({"allow": ["everywhere"]}, "want addresses: 'everywhere'"),
        ({"address": "localhost"}, "want addresses: 'localhost'"),
        ({"connections": 0}, "connections is 0, wanted 1"),
        ({"runtime_max_s": 5}, "runtime_max_s is 5, wanted 60"),
        ({"models": ["none:1b"]}, "none:1b can't be given away"),
        ({"models": []}, "no models are named"),
    ],
)
def test_options_that_make_no_sense(store, place, options, text):
    with pytest.raises(HostError, match=text):
        run(store, place, Systemd(place), **options)
    assert not os.path.exists(place.parent)


@pytest.mark.parametrize("ident", ["", "-a", "a-", "../x", "A", "a" * 33, "a b"])
def test_identifiers_that_are_refused(ident):
    with pytest.raises(HostError, match="can't be part of a unit's name"):
        units.Place(ident)


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"host": None, "address": "192.0.2.7"}, "http://192.0.2.7:41234"),
        ({"host": "2001:db8::1"}, "http://[2001:db8::1]:41234"),
    ],
)
def test_addresses_for_others(store, place, options, url):
    assert run(store, place, Systemd(place), **options)["url"] == url
