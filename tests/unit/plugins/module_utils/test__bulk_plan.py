# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans of a bulk disk's mount: what is refused, and which steps follow from what was found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bulk_plan import (
    Declared,
    Disk,
    Observed,
    OldUnit,
    Spot,
    plan_mount,
    unit_text,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._mounts import (
    FstabEntry,
    Mount,
    UnitFile,
)

PATH = "/data/llm_bulk_storage"
OLD = "/opt/hx-infrastructure/llm-01/data/llm_bulk_storage"
DECLARED = Declared(
    "llm-01", "/dev/sda1", PATH, links=(OLD,), unit="ollama.service", store_id="llm-01"
)
DISK = Disk("block", "7:1", "ext4", "1-2")
AT_OLD = Mount(30, "7:1", "/", OLD, "ext4", "/dev/sda1", "rw")
AT_PATH = replace(AT_OLD, point=PATH)
OLD_UNIT = OldUnit(UnitFile("/etc/systemd/system/old.mount", "/dev/sda1", OLD), "old.mount", True)
DRIFTED = Observed(
    disk=DISK,
    mounts=(AT_OLD,),
    spot=Spot(PATH),
    real_parent="/data",
    links=(Spot(OLD, "directory", "", ("archive",)),),
    old_units=(OLD_UNIT,),
    fstab=(FstabEntry(1, "...", "/dev/sda1", OLD, "ext4"),),
    engine_state="active",
)
IN_PLACE = Observed(
    disk=DISK,
    mounts=(AT_PATH,),
    spot=Spot(PATH, "directory"),
    real_parent="/data",
    links=(Spot(OLD, "link", PATH),),
    unit_text=unit_text(DECLARED, "/dev/sda1"),
    unit_enabled=True,
    engine_state="active",
    engine_inside=True,
    marker={"store_id": "llm-01", "uuid": "1-2", "schema": 1},
)


def _actions(found: Observed, declared: Declared = DECLARED) -> list[str]:
    return [step.action for step in plan_mount(declared, found)]


def test_wrong_mount_is_taken_over() -> None:
    steps = plan_mount(DECLARED, DRIFTED)
    assert [(step.action, step.target) for step in steps] == [
        ("write_unit", "/etc/systemd/system/data-llm_bulk_storage.mount"),
        ("comment_fstab", "/etc/fstab"),
        ("enable", "data-llm_bulk_storage.mount"),
        ("retire_unit", "old.mount"),
        ("unmount", OLD),
        ("mount", PATH),
        ("link", OLD),
        ("mark", f"{PATH}/.hx-llm-store.json"),
    ]


def test_in_place_means_nothing_to_do() -> None:
    assert plan_mount(DECLARED, IN_PLACE) == []


def test_engine_on_the_disk_is_stopped_around_the_move() -> None:
    actions = _actions(replace(DRIFTED, engine_inside=True))
    assert actions.index("stop") < actions.index("retire_unit")
    assert actions[-1] == "start"


def test_engine_that_does_not_run_is_not_started() -> None:
    actions = _actions(replace(DRIFTED, engine_inside=True, engine_state="inactive"))
    assert not {"stop", "start"} & set(actions)


def test_engine_that_an_interrupted_run_stopped_is_started() -> None:
    assert _actions(replace(IN_PLACE, engine_state="inactive", interrupted=True)) == ["start"]


def test_uuid_is_used_where_the_system_knows_it() -> None:
    stable = "/dev/disk/by-uuid/1-2"
    found = replace(IN_PLACE, disk=replace(DISK, stable_path=stable))
    assert _actions(found) == ["write_unit"]
    assert _actions(replace(found, unit_text=unit_text(DECLARED, stable))) == []


def test_second_mount_of_the_same_disk_is_removed() -> None:
    assert _actions(replace(IN_PLACE, mounts=(AT_PATH, AT_OLD), engine_inside=False)) == ["unmount"]


def test_bind_mount_of_a_part_of_the_disk_is_left_alone() -> None:
    part = replace(AT_OLD, root="/archive", point="/srv/archive")
    assert _actions(replace(IN_PLACE, mounts=(AT_PATH, part))) == []


def test_empty_disk_is_formatted_only_when_allowed() -> None:
    blank = replace(
        IN_PLACE, disk=Disk("block", "7:1", empty=True), mounts=(), marker=None, spot=Spot(PATH)
    )
    with pytest.raises(HostError, match="is not formatted; wanted ext4"):
        plan_mount(DECLARED, blank)
    allowed = replace(DECLARED, allow_format=True)
    assert _actions(blank, allowed) == ["format", "write_unit", "mount", "mark"]


def test_disk_with_content_is_never_formatted() -> None:
    disk = Disk("block", "7:1", not_empty_because="its first megabyte holds data")
    with pytest.raises(HostError, match="its first megabyte holds data"):
        plan_mount(replace(DECLARED, allow_format=True), replace(DRIFTED, disk=disk, mounts=()))


OTHER = Mount(40, "8:2", "/", PATH, "xfs", "/dev/sdb2", "rw")
REFUSED = {
    "absent": (replace(DRIFTED, disk=Disk()), "the device /dev/sda1 does not exist"),
    "file": (replace(DRIFTED, disk=Disk("file")), "is a file; wanted a block device"),
    "swap": (replace(DRIFTED, disk=replace(DISK, holds="swap")), "holds swap; wanted ext4"),
    "lvm": (replace(DRIFTED, disk=replace(DISK, holds="LVM2_member")), "holds LVM2_member"),
    "xfs": (replace(DRIFTED, disk=replace(DISK, holds="xfs")), "holds xfs; wanted ext4"),
    "busy": (
        replace(DRIFTED, busy=("bash (pid 7) holds /x",)),
        r"mounted at /opt/.*, wanted at /data/.*in use: bash \(pid 7\) holds /x",
    ),
    "occupied": (replace(DRIFTED, mounts=(AT_OLD, OTHER)), "is occupied by /dev/sdb2 .xfs."),
    "not empty": (
        replace(DRIFTED, spot=Spot(PATH, "directory", "", ("a", "b", "c", "d"))),
        "a directory that is not empty .a; b; c and 1 more.",
    ),
    "special": (replace(DRIFTED, spot=Spot(PATH, "other")), "neither a directory nor a link"),
    "below a link": (replace(DRIFTED, real_parent="/srv/data"), "/data leads to /srv/data"),
    "link occupied": (
        replace(DRIFTED, mounts=(AT_PATH,), links=(Spot(OLD, "directory", "", ("x",)),)),
        "is a directory with x; wanted a link",
    ),
    "link is a file": (
        replace(DRIFTED, mounts=(AT_PATH,), links=(Spot(OLD, "other"),)),
        "is a file; wanted a link",
    ),
    "link is a mount": (
        replace(DRIFTED, mounts=(AT_PATH, replace(OTHER, point=OLD))),
        "is a mount point of /dev/sdb2",
    ),
    "other marker": (
        replace(DRIFTED, marker={"store_id": "llm-02"}),
        "marker of the store 'llm-02'; wanted 'llm-01'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    found, message = REFUSED[name]
    with pytest.raises(HostError, match=message) as caught:
        plan_mount(DECLARED, found)
    assert str(caught.value).startswith("llm-01: ")


def test_link_at_the_mount_point_is_replaced() -> None:
    assert "mount" in _actions(replace(DRIFTED, spot=Spot(PATH, "link", OLD)))


def test_unit_text() -> None:
    text = unit_text(DECLARED, "/dev/disk/by-uuid/1-2")
    assert "What=/dev/disk/by-uuid/1-2\nWhere=/data/llm_bulk_storage\nType=ext4\n" in text
    assert "WantedBy=local-fs.target" in text


@pytest.mark.parametrize(
    ("owner", "mode", "wanted"),
    [
        ((0, 0), 0o755, []),
        ((1000, 1000), 0o755, ["own_root"]),
        ((0, 0), 0o775, ["own_root"]),
        ((0, 0), 0o1777, ["own_root"]),
    ],
)
def test_only_root_may_rename_what_stands_at_the_top_of_the_disk(owner, mode, wanted):
    found = replace(IN_PLACE, root_owner=owner, root_mode=mode)
    assert _actions(found) == wanted
