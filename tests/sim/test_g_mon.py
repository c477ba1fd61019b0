# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""g-mon beside the real collector on simulated GPUs, and as the role installs it."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_machine import ROOT, Simulated, build

FILES = ROOT / "roles" / "telemetry" / "files"
sys.path[:0] = [str(FILES), str(ROOT / "tests" / "unit" / "roles" / "g_mon")]

from g_mon import cli, selftest, watch  # noqa: E402 - found by the path above
from g_mon_host import Host  # noqa: E402

READER = ROOT / "plugins" / "module_utils" / "_gpu_nvml_child.py"
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    return build(tmp_path_factory.mktemp("sim_gpu"))


@pytest.fixture
def machine(libraries, monkeypatch, tmp_path):
    """A machine with two simulated cards."""
    found = Simulated(libraries, monkeypatch, tmp_path)
    found.choose("rtx-4070-ti-x2")
    return found


@pytest.fixture
def host(machine, monkeypatch, tmp_path):
    """It, with a collector of which systemd is simulated only."""
    folder = tmp_path / "host"
    folder.mkdir()
    found = Host(folder)
    found.put_on_path(monkeypatch)
    found.save(reader=str(READER), timeout_seconds=20)
    return found


def collect(host, *words):
    """Run the role's collector once; return its exit status."""
    programs = host.folder / "lib"
    if not programs.exists():
        shutil.copytree(FILES, programs, ignore=shutil.ignore_patterns("g_mon", "__pycache__"))
        shutil.copy(READER, programs / "gpu_nvml.py")
    argv = [sys.executable, "-B", programs / "gpu_telemetry.py", "--csv", host.stable]
    argv += ["--textfile", host.textfile, "--timeout", "20", *words]
    return subprocess.run(argv, check=False, timeout=60, capture_output=True).returncode


def g_mon(host, capsys, *words):
    status = cli.main(["--settings", str(host.settings_path), *words, "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit"] == status
    return answer


def test_what_the_collector_writes_is_understood(host, capsys):
    assert collect(host) == 0
    answer = g_mon(host, capsys, "status")
    assert (answer["exit"], answer["failures"], answer["warnings"]) == (0, [], [])
    first = answer["gpus"][0]
    assert len(answer["gpus"]) == 2
    assert first["name"] == "NVIDIA GeForce RTX 4070 Ti"
    assert first["memory_total_bytes"] > 11 * 1024**3
    assert first["power_draw_watts"] > 0
    assert first["temperature_c"] > 0
    assert first["slowdowns"] == []
    assert g_mon(host, capsys, "data")["rows"][0]["uuid"] == first["uuid"]
    (gpu, _other) = g_mon(host, capsys, "stats")["gpus"]
    assert gpu["power_draw_watts"]["samples"] == 1
    assert gpu["idle_ratio"] == 1


def test_a_collection_that_fails_is_told_with_its_reason(host, machine, capsys):
    assert collect(host) == 0
    machine.choose("fault-driver-missing")
    assert collect(host) == 1
    answer = g_mon(host, capsys, "status")
    assert answer["exit"] == 2
    (failure,) = answer["failures"]
    assert "driver_not_loaded" in failure
    machine.choose("rtx-4070-ti-x2")
    assert collect(host) == 0
    assert g_mon(host, capsys, "status")["exit"] == 0


def test_a_card_that_is_lost_is_missed(host, machine, capsys):
    assert collect(host) == 0
    machine.choose("fault-one-gpu-missing")
    time.sleep(1.1)  # a sample of its own: the files have whole seconds
    collect(host)
    warnings = g_mon(host, capsys, "status")["warnings"]
    assert any("GPU 1 " in text and "isn't in the newest sample" in text for text in warnings)
    # For as long as it is lost: here no file has a line of it any more.
    host.stable.resolve().unlink()
    assert collect(host) == 0
    for command in ("status", "compact"):
        answer = g_mon(host, capsys, command)
        assert (answer["exit"], answer["warnings"]) == (1, warnings)
    machine.choose("rtx-4070-ti-x2")
    assert collect(host) == 0
    assert g_mon(host, capsys, "status")["exit"] == 0


def test_a_card_that_was_taken_out_is_forgotten(host, machine, capsys, monkeypatch):
    assert collect(host) == 0
    uuid = g_mon(host, capsys, "status")["gpus"][1]["uuid"]
    machine.choose("fault-one-gpu-missing")
    time.sleep(1.1)
    assert collect(host) == 0
    host.save(reader=str(host.folder / "lib" / "gpu_nvml.py"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # no rights come with that, and none are needed
    assert cli.main(["--settings", str(host.settings_path), "forget", uuid]) == 0
    assert f"{uuid} at " in capsys.readouterr().out
    for _turn in range(2):
        assert g_mon(host, capsys, "status")["exit"] == 0
        assert collect(host) == 0


def test_selftest_reads_the_cards(host):
    (step,) = selftest.driver(selftest.Bench(host.settings))
    assert step.status == "PASS", step
    assert step.reason.startswith("2 GPUs read in ")


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("fault-driver-missing", "driver_not_loaded"),
        ("fault-library-mismatch", "version_mismatch"),
        ("fault-gpu-lost", "is lost"),
    ],
)
def test_selftest_on_a_sick_machine(host, machine, profile, said):
    machine.choose(profile)
    (step,) = selftest.driver(selftest.Bench(host.settings))
    assert step.status == "FAIL"
    assert said in step.reason


def test_selftest_with_a_driver_that_hangs(host, machine):
    machine.choose("fault-hang")
    host.save(timeout_seconds=2)
    bench = selftest.Bench(host.settings)
    (step,) = selftest.driver(bench)
    assert step == ("driver", "FAIL", "the GPUs can't be read: no answer within 2 s")
    assert bench.stuck is None  # a simulated driver lets its process be killed


def test_the_collectors_sample_through_the_selftest(host):
    """As root, with a systemctl that starts the real collector."""
    assert collect(host) == 0

    def systemctl(argv, seconds):
        assert argv[-2:] == ["start", "gpu-telemetry.service"]
        return collect(host), "", ""

    bench = selftest.Bench(host.settings, root=True)
    collector = selftest.units.find(host.settings)
    bench.runner = systemctl
    (step,) = selftest.sample(bench, collector)
    assert step.status == "PASS", step
    assert step.reason.startswith("2 GPUs written to nvidia-smi-ping-")


def test_live(host, machine, capsys):
    pytest.importorskip("rich")
    words = ["watch", "--live", "--count", "2", "--interval", "0.2"]
    assert cli.main(["--settings", str(host.settings_path), *words]) == 0
    out = capsys.readouterr().out
    assert out.count("GPU 0   NVIDIA GeForce RTX 4070 Ti") == 2
    assert "read from the driver now" in out
    source = watch.Driver(selftest.Bench(host.settings), 1.0)
    assert [row.index for row in source.scene(time.time(), 5).rows] == [0, 1]


# ---------------------------------------------------------------- as the role installs it


@pytest.fixture
def installed(tmp_path):
    """Return a function that runs the role's tasks with paths in a directory of the test."""
    if os.getuid() != 0:
        pytest.skip("the role makes files of root")
    lib = tmp_path / "lib"
    lib.mkdir()
    variables = {
        "telemetry_lib_dir": str(lib),
        "telemetry_venv": sys.prefix,
        "telemetry_data_dir": str(tmp_path / "gpu"),
        "telemetry_textfile_dir": str(tmp_path / "textfile"),
        "telemetry_interval": 10,
        "telemetry_g_mon_path": str(tmp_path / "g-mon"),
        "telemetry_g_mon_alias": str(tmp_path / "Run"),
    }

    def play(*words, **changes):
        task = {
            "name": "Install",
            "ansible.builtin.include_role": {
                "name": "hx_infra.llm.telemetry",
                "tasks_from": "g_mon",
            },
        }
        given = {**variables, **changes, "ansible_python_interpreter": sys.executable}
        book = tmp_path / "play.yml"
        book.write_text(
            json.dumps(
                [
                    {
                        "name": "Play",
                        "hosts": "localhost",
                        "gather_facts": False,
                        "connection": "local",
                        "vars": given,
                        "tasks": [task],
                    }
                ]
            )
        )
        done = subprocess.run(
            [str(PLAYBOOK), "-i", "localhost,", str(book), *words],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return play


def test_the_role_installs_it_once(installed, tmp_path):
    predicted = installed("--check")
    assert not (tmp_path / "g-mon").exists()
    first = installed()
    assert "changed=0" not in first
    assert first.count("changed: [localhost]") == predicted.count("changed: [localhost]")
    assert "changed=0" in installed()
    settings = json.loads((tmp_path / "lib" / "g_mon" / "settings.json").read_text())
    assert settings["interval_seconds"] == 10
    assert settings["host"] == "localhost"
    assert settings["data_dir"] == str(tmp_path / "gpu")
    assert settings["reader"] == str(tmp_path / "lib" / "gpu_nvml.py")
    assert any(package.startswith("nvidia-ml-py==") for package in settings["packages"])
    for program in ("g-mon", "Run"):
        done = subprocess.run(
            [tmp_path / program, "G-Mon", "data", "--json"],
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin"},
            timeout=30,
        )
        assert done.returncode == 2, done.stderr
        (failure,) = json.loads(done.stdout)["failures"]
        assert failure.startswith(f"{tmp_path / 'gpu'} can't be read")
    # On a terminal, with an environment that would lead it astray.
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [tmp_path / "g-mon", "stats", "--since", "yesterday"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        check=False,
        env={"PATH": "/usr/bin:/bin", "TERM": "xterm", "PYTHONHOME": "/nonexistent"},
        timeout=30,
    )
    assert done.returncode == 2
    assert b"24h or 7d" in os.read(ours, 65536)
    os.close(ours)
    os.close(theirs)
    assert not list((tmp_path / "lib").rglob("__pycache__"))


def test_the_program_of_somebody_else_stays(installed, tmp_path):
    other = tmp_path / "Run"
    other.write_text("#!/bin/sh\necho mine\n")
    installed()
    assert "mine" in other.read_text()
    other.unlink()
    assert "changed=0" in installed(telemetry_g_mon_alias="")
    assert not other.exists()
