# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real ext4 disk on a loop device changes its mount point; only systemctl is simulated."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _bulk_observe
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._mounts import (
    parse_mountinfo,
    parse_unit,
)
from ansible_collections.hx_infra.llm.plugins.modules.bulk_mount import run


def _loop_devices_work() -> bool:
    return (
        os.getuid() == 0 and bool(shutil.which("losetup")) and os.path.exists("/dev/loop-control")
    )


pytestmark = pytest.mark.skipif(not _loop_devices_work(), reason="needs root and loop devices")


def _call(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


class Host:
    """A host whose mounts are real and whose systemd is these few lines."""

    def __init__(self, root: Path, device: str) -> None:
        self.root = root
        self.device = device
        self.path = root / "data/bulk"
        self.old = root / "opt/node/data/bulk"
        self.units = root / "units"
        self.fstab = root / "fstab"
        self.engine = "inactive"
        self.calls: list[str] = []
        for directory in (self.units, self.units / "wants", self.old):
            directory.mkdir(parents=True)
        self.fstab.write_text("# table\nUUID=root / ext4 defaults 0 1\n")

    def drift(self) -> None:
        """Mount the disk at the old place, with a unit, a line in fstab and a file on it."""
        _call("mount", self.device, str(self.old))
        (self.old / "thesis.txt").write_text("irreplaceable")
        self.units.joinpath("old.mount").write_text(
            f"[Mount]\nWhat={self.device}\nWhere={self.old}\n"
        )
        self.units.joinpath("wants/old.mount").touch()
        with self.fstab.open("a") as stream:
            stream.write(f"{self.device} {self.old} ext4 defaults 0 2\n")

    def command(self, argv: Sequence[str]) -> tuple[int, str, str]:
        """Run a command; systemctl is played."""
        if argv[0] != "systemctl":
            done = subprocess.run(argv, check=False, capture_output=True, text=True)
            return done.returncode, done.stdout, done.stderr
        verb, unit = argv[1], argv[-1]
        if verb == "is-enabled":
            return 0, "enabled" if (self.units / "wants" / unit).exists() else "disabled", ""
        if verb == "is-active":
            return 0, self.engine, ""
        if verb == "show":
            return 0, "0", ""
        self.calls.append(f"{verb} {unit}")
        if verb == "enable":
            (self.units / "wants" / unit).touch()
        elif verb == "disable":
            (self.units / "wants" / unit).unlink(missing_ok=True)
        elif unit == "engine.service":
            self.engine = "active" if verb == "start" else "inactive"
        elif verb in ("start", "stop"):
            declared = parse_unit(unit, (self.units / unit).read_text())
            names = [declared.what, declared.where] if verb == "start" else [declared.where]
            _call("mount" if verb == "start" else "umount", *names)
        return 0, "", ""

    def run(self, check: bool = False, **changes: Any) -> dict[str, Any]:
        """Run the module's code."""
        params: dict[str, Any] = {
            "device": self.device,
            "path": str(self.path),
            "fstype": "ext4",
            "options": "defaults,noatime",
            "links": [str(self.old)],
            "unit": "engine.service",
            "unit_paths": [],
            "allow_format": False,
            "store_id": "llm-01",
            "unit_dir": str(self.units),
            "fstab": str(self.fstab),
            "journal_dir": str(self.root / "var"),
            "host": "llm-01",
        }
        return run({**params, **changes}, check, self.command)

    def mounted_at(self) -> list[str]:
        """Return where the disk is mounted."""
        mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
        return [mount.point for mount in mounts if mount.source == self.device]

    def tree(self) -> list[str]:
        """Describe everything below the root, to see that nothing changed."""
        paths = sorted(self.root.rglob("*"))
        return [f"{path} {path.lstat().st_mode} {path.lstat().st_mtime_ns}" for path in paths]


@pytest.fixture
def blank(tmp_path: Path) -> Iterator[Host]:
    """A host with a disk without any content."""
    image = tmp_path / "disk.img"
    with image.open("wb") as stream:
        stream.truncate(64 * 1024 * 1024)
    device = _call("losetup", "--find", "--show", str(image))
    host = Host(tmp_path / "root", device)
    try:
        yield host
    finally:
        for point in host.mounted_at():
            _call("umount", "--lazy", point)
        _call("losetup", "--detach", device)


@pytest.fixture
def host(blank: Host) -> Host:
    """A host with an ext4 disk."""
    _call("mkfs.ext4", "-q", blank.device)
    return blank


def test_takes_over_from_the_wrong_mount(host: Host) -> None:
    host.drift()
    before = host.tree()
    predicted = host.run(check=True)
    assert host.tree() == before
    assert predicted["mountpoint_now"] == str(host.old)

    result = host.run()

    assert result["actions"] == predicted["actions"]
    assert result["plan"] == predicted["plan"]
    assert result["mountpoint_now"] == str(host.path)
    assert host.mounted_at() == [str(host.path)]
    assert os.readlink(host.old) == str(host.path)
    assert (host.old / "thesis.txt").read_text() == "irreplaceable"
    assert host.device not in [line.split()[0] for line in host.fstab.read_text().splitlines()]
    assert not (host.units / "old.mount").exists()
    assert {Path(path).name.partition(".2")[0] for path in result["kept"]} == {
        "fstab",
        "old.mount",
    }
    assert host.run()["actions"] == []
    assert host.run()["changed"] is False


def test_mounts_a_disk_that_is_mounted_nowhere(host: Host) -> None:
    predicted = host.run(check=True)
    assert predicted["mountpoint_now"] == ""
    assert host.run()["plan"] == predicted["plan"]
    assert host.mounted_at() == [str(host.path)]
    assert not host.run()["changed"]


def test_engine_on_the_disk_is_stopped_and_started(host: Host) -> None:
    host.drift()
    host.engine = "active"
    host.run(unit_paths=[str(host.old / "models")])
    starts = [call for call in host.calls if call.endswith("engine.service")]
    assert starts == ["stop engine.service", "start engine.service"]
    assert not (host.root / "var/bulk-mount.json").exists()


@pytest.mark.parametrize("told", [True, False], ids=["declared", "as the engine says"])
def test_engine_is_not_stopped_while_it_pulls(
    host: Host, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.drift()
    host.engine = "active"
    blobs = host.old / "models/blobs"
    blobs.mkdir(parents=True)
    models = str(blobs.parent)
    paths = [models] if told else []
    if not told:
        monkeypatch.setattr(_bulk_observe, "engine_models_path", lambda *_unit: models)
    part = blobs / f"sha256-{'a' * 64}-partial"
    with part.open("w") as download:
        download.write("begun")
        download.flush()
        before = host.tree()
        wanted = rf"llm-01: engine.service was not stopped: a download is writing {part}"
        with pytest.raises(HostError, match=wanted):
            host.run(unit_paths=paths)
        assert [line for line in host.tree() if "/var" not in line] == before
        assert (host.engine, host.mounted_at()) == ("active", [str(host.old)])
    os.utime(part, (0, 0))  # where not all processes are seen, a fresh file counts as open
    host.run(unit_paths=paths)
    assert (host.engine, host.mounted_at()) == ("active", [str(host.path)])


@pytest.mark.parametrize("verb", ["disable", "daemon-reload", "start"])
def test_interrupted_run_is_completed(host: Host, verb: str) -> None:
    host.drift()
    host.engine = "active"
    real = host.command
    broken = True

    def command(argv: Sequence[str]) -> tuple[int, str, str]:
        if broken and "stop engine.service" in host.calls and verb in argv:
            raise KeyboardInterrupt  # as a kill: no error handling runs
        return real(argv)

    host.command = command  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        host.run(unit_paths=[str(host.old)])
    assert host.engine == "inactive"
    broken = False
    host.run(unit_paths=[str(host.old)])
    assert host.mounted_at() == [str(host.path)]
    assert host.engine == "active"
    assert not host.run()["changed"]


@pytest.mark.parametrize(("verb", "state"), [("disable", "active"), ("start", "inactive")])
def test_engine_is_not_started_without_its_disk(host: Host, verb: str, state: str) -> None:
    host.drift()
    host.engine = "active"
    real = host.command

    def command(argv: Sequence[str]) -> tuple[int, str, str]:
        if "stop engine.service" in host.calls and verb in argv and argv[-1] != "engine.service":
            raise OSError("no such thing")
        return real(argv)

    host.command = command  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no such thing"):
        host.run(unit_paths=[str(host.old)])
    assert host.engine == state
    host.command = real  # type: ignore[method-assign]
    host.run(unit_paths=[str(host.old)])
    assert (host.engine, host.mounted_at()) == ("active", [str(host.path)])


def test_files_in_use_are_named_before_anything_changes(host: Host) -> None:
    host.drift()
    child = os.fork()
    if child == 0:
        with open(host.old / "thesis.txt", encoding="ascii"):
            time.sleep(30)
        os._exit(0)
    try:
        time.sleep(0.3)
        before = host.tree()
        for check in (True, False):
            with pytest.raises(HostError, match=rf"in use: .*\(pid {child}\) holds .*thesis.txt"):
                host.run(check=check)
        assert [line for line in host.tree() if "/var" not in line] == before
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_files_hidden_below_the_mount_point_are_kept(host: Host) -> None:
    (host.old / "hidden.txt").write_text("was below the mount")
    host.drift()
    result = host.run()
    assert "files were hidden below" in result["warnings"][0]
    (kept,) = host.old.parent.glob("bulk.hx-hidden-*")
    assert (kept / "hidden.txt").read_text() == "was below the mount"
    assert os.readlink(host.old) == str(host.path)


def test_foreign_content_is_refused(blank: Host) -> None:
    _call("mkswap", blank.device)
    with pytest.raises(HostError, match="holds swap; wanted ext4"):
        blank.run(allow_format=True)


def test_unformatted_disk(blank: Host) -> None:
    with pytest.raises(HostError, match="is not formatted; wanted ext4"):
        blank.run()
    predicted = blank.run(check=True, allow_format=True)
    result = blank.run(allow_format=True)
    assert result["actions"] == predicted["actions"]
    assert result["actions"][0] == f"Format {blank.device} as ext4, which is empty"
    assert result["uuid"]
    assert not blank.run(allow_format=True)["changed"]


def test_disk_with_unknown_data_is_never_formatted(blank: Host) -> None:
    with open(blank.device, "r+b") as stream:
        stream.seek(70_000)
        stream.write(b"somebody's raw data")
    with pytest.raises(HostError, match="its first megabyte holds data"):
        blank.run(allow_format=True)


def test_missing_device(host: Host) -> None:
    with pytest.raises(HostError, match="the device /dev/sdzz1 does not exist"):
        host.run(check=True, device="/dev/sdzz1")
