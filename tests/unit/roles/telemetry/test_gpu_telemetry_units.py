# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The units of both forms, rendered by Ansible and judged by systemd's own tools."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from telemetry_parts import FILES

ROOT = Path(__file__).resolve().parents[4]
ROLE = ROOT / "roles" / "telemetry"
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
TEMPLATES = ROLE / "templates" / "etc" / "systemd" / "system"
# name: variables, whether the host had a timer, and the type of its service
CASES = {
    "timer": {"telemetry_interval": 300},
    "stream": {"telemetry_interval": 10},
    "text": {"telemetry_interval": "59"},
    "minute": {"telemetry_interval": 60},
    "hour": {"telemetry_interval": 3600},
    "two_hours": {"telemetry_interval": 7200},
    "day": {"telemetry_interval": 86400},
    "odd": {"telemetry_interval": 420},
    "everything": {"telemetry_interval": 15, "telemetry_dcgm_names": True},
    "nothing": {"telemetry_xids": False},
}
STATES = {
    "fresh": (False, ""),
    "timer": (True, "Type=oneshot\n"),
    "stream": (False, "[Service]\nType=notify\n"),
}
SHOWN = f"""{{{{ found | default({{}}) | combine({{item.name: {{
 'calendar': __telemetry_on_calendar, 'units': __telemetry_units, 'lead': __telemetry_lead,
 'end': __telemetry_other_form, 'restart': __telemetry_stream and __telemetry_was_stream,
 'due': __telemetry_sample_due, 'can': __telemetry_can_sample,
 'service': lookup('ansible.builtin.template', '{TEMPLATES}/gpu-telemetry.service.j2'),
 'timer': lookup('ansible.builtin.template', '{TEMPLATES}/gpu-telemetry.timer.j2'),
}}}}) }}}}"""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Render everything for each case, on a host in each state, in one run of Ansible."""
    folder = tmp_path_factory.mktemp("units")
    combined = [
        {
            "name": f"{case}-{state}",
            "interval": given.get("telemetry_interval", 300),
            "dcgm": given.get("telemetry_dcgm_names", False),
            "xids": given.get("telemetry_xids", True),
            "timer": had_timer,
            "service": service,
        }
        for case, given in CASES.items()
        for state, (had_timer, service) in STATES.items()
    ]
    given = {
        "telemetry_interval": "{{ item.interval }}",
        "telemetry_dcgm_names": "{{ item.dcgm }}",
        "telemetry_xids": "{{ item.xids }}",
        "__telemetry_units_before": {
            "results": [{"stat": {"exists": True}}, {"stat": {"exists": "{{ item.timer }}"}}]
        },
        "__telemetry_service_before": {"content": "{{ item.service | b64encode }}"},
    }
    collect = {
        "name": "Render",
        "ansible.builtin.set_fact": {"found": SHOWN},
        "loop": combined,
        "loop_control": {"label": "{{ item.name }}"},
        "vars": given,
    }
    keep = {
        "name": "Keep",
        "ansible.builtin.copy": {
            "content": "{{ found | to_json }}",
            "dest": f"{folder}/found.json",
            "mode": "0644",
        },
    }
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults" / "main.yml"), str(ROLE / "vars" / "main.yml")],
        "vars": {
            "role_path": str(ROLE),
            "__telemetry_samples": {"stat": {"exists": True}},
            "__telemetry_unit_files": {
                "results": [{"item": "gpu-telemetry.service", "stat": {"exists": True}}]
            },
        },
        "tasks": [collect, keep],
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    given_python = f"ansible_python_interpreter={sys.executable}"
    ended = subprocess.run(
        [PLAYBOOK, "-c", "local", "-i", "localhost,", folder / "play.yml", "-e", given_python],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.fixture
def unit(rendered):
    def read(case, kind="service"):
        return rendered[f"{case}-fresh"][kind]

    return read


def directives(text):
    """Return {directive: values} of a unit."""
    text = text.replace("\\\n", " ")
    found = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.M):
        found.setdefault(name, []).append(" ".join(value.split()))
    return found


@pytest.mark.parametrize(
    ("case", "calendar", "lead"),
    [
        ("timer", "*:0/5", "gpu-telemetry.timer"),
        ("minute", "*:0/1", "gpu-telemetry.timer"),
        ("hour", "0/1:0", "gpu-telemetry.timer"),
        ("two_hours", "0/2:0", "gpu-telemetry.timer"),
        ("day", "0:0", "gpu-telemetry.timer"),
        ("odd", "", "gpu-telemetry.timer"),
        ("stream", "", "gpu-telemetry.service"),
        ("text", "", "gpu-telemetry.service"),
    ],
)
def test_which_form_and_when(rendered, unit, case, calendar, lead):
    found = rendered[f"{case}-fresh"]
    assert found["lead"] == lead
    assert ("gpu-telemetry.timer" in found["units"]) is lead.endswith("timer")
    if lead.endswith("timer"):
        assert found["calendar"] == calendar
        timer = directives(unit(case, "timer"))
        assert timer.get("OnCalendar") == ([calendar] if calendar else None)
        assert timer.get("OnUnitActiveSec") == (None if calendar else ["420s"])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing")
@pytest.mark.parametrize(
    ("case", "seconds"),
    [("timer", 300), ("minute", 60), ("hour", 3600), ("two_hours", 7200), ("day", 86400)],
)
def test_the_times_are_an_interval_apart(unit, case, seconds):
    (calendar,) = directives(unit(case, "timer"))["OnCalendar"]
    said = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=4", calendar],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TZ": "UTC"},
    ).stdout
    times = re.findall(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", said)
    stamps = subprocess.run(
        ["date", "--utc", "--file=-", "+%s"],
        input="\n".join(dict.fromkeys(times)),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    gaps = {int(later) - int(one) for one, later in zip(stamps, stamps[1:])}
    assert gaps == {seconds}


def test_switching_ends_the_other_form_and_nothing_else(rendered):
    timer = [{"name": "gpu-telemetry.timer", "enabled": False}, {"name": "gpu-telemetry.service"}]
    stream = [{"name": "gpu-telemetry.service", "enabled": False}]
    assert rendered["stream-timer"]["end"] == timer
    assert rendered["timer-stream"]["end"] == stream
    for name in ("timer-timer", "stream-stream", "timer-fresh", "stream-fresh"):
        assert rendered[name]["end"] == [], name


def test_only_a_service_that_was_running_is_started_anew(rendered):
    restarted = {name for name, found in rendered.items() if found["restart"]}
    assert restarted == {"stream-stream", "text-stream", "everything-stream"}


def test_a_switch_brings_a_sample_at_once(rendered):
    """The form that ended has said that nothing is collected."""
    due = {name for name, found in rendered.items() if found["due"]}
    assert due == {name for name, found in rendered.items() if found["end"]}
    assert all(found["can"] for found in rendered.values())  # this is no dry run


def test_one_shot_unit(unit):
    found = directives(unit("timer"))
    assert found["Type"] == ["oneshot"]
    assert found["RestrictAddressFamilies"] == ["none"]
    assert "WantedBy" not in found
    assert "Restart" not in found
    assert "--stream" not in found["ExecStart"][0]


def test_long_running_unit(unit):
    found = directives(unit("stream"))
    assert found["Type"] == ["notify"]
    assert found["Restart"] == ["always"]
    assert found["KillMode"] == ["mixed"]  # its reader isn't ended behind its back
    assert found["RestrictAddressFamilies"] == ["AF_UNIX"]
    assert found["WantedBy"] == ["multi-user.target"]
    assert "WatchdogSec" in found
    assert " --stream " in found["ExecStart"][0]
    assert " --interval 10 " in found["ExecStart"][0]


def test_the_journals_group_is_all_that_xids_need(unit):
    with_xids, without = directives(unit("timer")), directives(unit("nothing"))
    assert with_xids["SupplementaryGroups"] == ["systemd-journal"]
    assert "--xids" not in without["ExecStart"][0]
    for found in (with_xids, without):
        found.pop("SupplementaryGroups", None)
        found.pop("ExecStart")
    assert with_xids == without


@pytest.mark.parametrize("case", ["timer", "stream", "everything", "nothing"])
def test_the_program_understands_its_command_line(unit, case):
    (line,) = directives(unit(case))["ExecStart"]
    program, *given = line.split()[2:]
    assert program.endswith("/gpu_telemetry.py")
    text = f"import sys; sys.path.insert(0, {str(FILES)!r})\nimport gpu_telemetry as c\n"
    text += "print(c.arguments().parse_args(sys.argv[1:]))"
    said = subprocess.run(
        [sys.executable, "-c", text, *given], capture_output=True, text=True, check=True
    ).stdout
    assert ("stream=True" in said) is (case in ("stream", "everything"))
    assert ("dcgm=None" in said) is (case != "everything")
    assert ("xids=None" in said) is (case == "nothing")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing")
@pytest.mark.parametrize("case", ["timer", "stream", "everything"])
def test_exposure(unit, tmp_path, case):
    (tmp_path / "gpu-telemetry.service").write_text(unit(case))
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager",
         str(tmp_path / "gpu-telemetry.service")],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    found = re.search(r"exposure level for \S+: ([\d.]+)", said.stdout)
    assert found, said
    assert float(found[1]) < 1.0, said.stdout


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing")
@pytest.mark.parametrize("case", ["timer", "stream", "odd"])
def test_systemd_understands_the_units(unit, tmp_path, case):
    # the programs aren't there, which isn't what is asked about
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit(case), flags=re.M)
    (tmp_path / "gpu-telemetry.service").write_text(text)
    (tmp_path / "gpu-telemetry.timer").write_text(unit(case, "timer"))
    names = ["gpu-telemetry.service"] + ([] if case == "stream" else ["gpu-telemetry.timer"])
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in names)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "gpu-telemetry" not in said.stderr


def test_every_program_is_there():
    programs = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__telemetry_programs"]
    sources = [entry["src"].replace("{{ role_path }}", str(ROLE)) for entry in programs]
    assert all((ROLE / "files" / source).is_file() for source in sources)
    own = {path.name for path in (ROLE / "files").glob("*.py")}
    assert own == {entry["src"] for entry in programs if "/" not in entry["src"]}
    assert len({entry["dest"] for entry in programs}) == len(programs)
