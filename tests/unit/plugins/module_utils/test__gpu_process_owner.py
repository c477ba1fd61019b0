# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pwd

import pytest
from gpu_host_samples import Link, plant

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process_owner import (
    SETTLE_SECONDS,
    Places,
    owner_of,
    with_owners,
)

ID = "0123456789abcdef" * 4
INITIAL, OWN = Link("pid:[4026531836]"), Link("pid:[4026532201]")
NEVER = 4_194_304  # no kernel gives this number away
ROOT = pwd.getpwuid(0).pw_name


@pytest.fixture
def places(tmp_path):
    """Return a function that plants control groups and says where they are."""

    def plant_all(cgroup, first="0::/init.scope\n", namespace=INITIAL, **more):
        files = {"proc/7/cgroup": cgroup, "proc/1/cgroup": first, "proc/self/ns/pid": namespace}
        plant(tmp_path, {"run": None, **files, **more})
        return Places(str(tmp_path / "proc"), str(tmp_path / "run"))

    return plant_all


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/ollama.service\n", "ollama.service"),
        (
            "0::/system.slice/system-citadel\\x2dllm.slice/citadel-llm@gen.service/sub\n",
            "citadel-llm@gen.service",
        ),
        # version 1, and both versions side by side
        (
            "12:memory:/\n1:name=systemd:/system.slice/ollama.service\n0::/\n",
            "ollama.service",
        ),
        # what a user starts, whatever its name
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/ollama.service\n",
            "user@1000.service",
        ),
        # a unit of a system within a container is not this system's
        (
            f"0::/system.slice/docker-{ID}.scope/system.slice/ollama.service\n",
            f"docker-{ID}.scope",
        ),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", f"libpod-{ID}.scope"),
        # Podman's units keep their container in their own group
        (
            f"0::/system.slice/citadel-llm@gen.service/libpod-payload-{ID}\n",
            "citadel-llm@gen.service",
        ),
        ("0::/\n", None),
        ("0::/docker/" + ID + "\n", None),
        ("0::/../../system.slice/ollama.service\n", None),
        ("nothing that can be read", None),
    ],
)
def test_the_unit_that_holds_a_process(places, cgroup, unit):
    assert owner_of(7, places(cgroup)).get("unit") == unit


@pytest.mark.parametrize(
    ("cgroup", "first"),
    [
        (f"0::/docker/{ID}/system.slice/ollama.service\n", f"0::/docker/{ID}/init.scope\n"),
        (
            f"1:name=systemd:/docker/{ID}/system.slice/ollama.service\n0::/docker/{ID}\n",
            f"1:name=systemd:/docker/{ID}/init.scope\n0::/docker/{ID}\n",
        ),
    ],
)
def test_a_system_within_a_container_has_units_of_its_own(places, cgroup, first):
    assert owner_of(7, places(cgroup, first)) == {"unit": "ollama.service"}


@pytest.mark.parametrize(
    "cgroup",
    [
        f"0::/system.slice/docker-{ID}.scope\n",
        f"0::/docker/{ID}\n",  # Docker without systemd
        f"0::/machine.slice/libpod-{ID}.scope/container\n",
    ],
)
def test_a_container_belongs_to_the_unit_that_keeps_its_number(places, cgroup):
    others = {"run/a.cid": f"{ID[::-1]}\n", "run/citadel-llm@gen.cid": ID}
    found = owner_of(7, places(cgroup, **others))
    assert found == {"unit": "citadel-llm@gen.service", "container": ID}


def test_a_users_own_container_is_no_units(places):
    group = f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope\n"
    found = owner_of(7, places(group, **{"run/citadel-llm@gen.cid": ID}))
    assert found == {"unit": "user@1000.service", "container": ID}


@pytest.mark.parametrize(("number", "user"), [("0", ROOT), ("4190001", "4190001")])
def test_the_user_is_the_one_whose_rights_it_has(places, number, user):
    status = f"Name:\tollama\nUid:\t4242\t{number}\t4242\t4242\nGid:\t1\t1\t1\t1\n"
    assert owner_of(7, places("0::/\n", **{"proc/7/status": status})) == {"user": user}


def test_a_process_of_which_nothing_is_known(places):
    assert owner_of(8, places("0::/\n")) == {}


def facts(*pids):
    cards = [{"processes": [{"pid": pid} for pid in pids]}, {"state": "lost"}]
    return {"gpus": cards}


def of(found):
    return {process["pid"]: process for process in found["gpus"][0]["processes"]}


def test_a_context_outlives_its_process(places):
    waited = []
    where = places("0::/system.slice/ollama.service\n")
    found = of(with_owners(facts(7, NEVER), lambda: facts(7, NEVER), where, waited.append))
    assert found == {7: {"pid": 7, "unit": "ollama.service"}, NEVER: {"pid": NEVER, "gone": True}}
    assert waited == [SETTLE_SECONDS]


def test_a_process_that_ended_while_it_was_read_has_left_nothing(places):
    where = places("0::/\n")
    found = with_owners(facts(7, NEVER), lambda: facts(7), where, lambda _seconds: None)
    assert of(found) == {7: {"pid": 7}}
    found = with_owners(facts(7, NEVER), lambda: facts(NEVER - 1), where, lambda _seconds: None)
    assert of(found) == {NEVER - 1: {"pid": NEVER - 1}}  # seen for the first time


@pytest.mark.parametrize(
    ("pid", "namespace"),
    [
        (NEVER, OWN),  # the driver has the numbers of the host, not of a container
        (NEVER, "not a link"),
        (os.getpid(), INITIAL),  # hidden by hidepid, and alive
        (0, INITIAL),
        (4_294_967_295, INITIAL),  # what NVML says of a process that it doesn't know
    ],
)
def test_what_cannot_be_looked_up_is_not_called_gone(places, pid, namespace):
    where = places("0::/\n", namespace=namespace)
    found = with_owners(facts(pid), lambda: pytest.fail("read again"), where, pytest.fail)
    assert of(found) == {pid: {"pid": pid}}
