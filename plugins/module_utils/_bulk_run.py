# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Carry out the plan of a bulk disk's mount."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from ansible_collections.hx_infra.llm.plugins.module_utils._bulk_observe import (
    find_fstab,
    read_disk,
    read_marker,
    read_mounts,
    read_text,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bulk_plan import (
    MARKER,
    Declared,
    Observed,
    Step,
    unit_text,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._engine_unit import Runner
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    fsync_directory,
    make_directories,
    place_symlink,
    write_atomic,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._journal import Journal
from ansible_collections.hx_infra.llm.plugins.module_utils._mounts import comment_out, unit_name
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_guard import (
    pulls_going_on,
    refusal,
)


class MountRun:
    """One run of a plan.

    Args:
        declared: what is wanted.
        found: what the plan was made from.
        run: runs a command.
        journal: remembers that the engine has to be started again.
        keep_dir: directory for the files that were replaced.
        stamp: the run's time in UTC, part of their names.
        stores: directories that the engine may fill; it isn't stopped while it does.
    """

    def __init__(
        self,
        declared: Declared,
        found: Observed,
        run: Runner,
        *,
        journal: Journal,
        keep_dir: str,
        stamp: str,
        stores: Sequence[str] = (),
    ) -> None:
        self.warnings: list[str] = []
        self.kept: list[str] = []
        self._declared = declared
        self._found = found
        self._run = run
        self._journal = journal
        self._keep_dir = keep_dir
        self._stamp = stamp
        self._stores = stores
        self._uuid = found.disk.uuid
        self._reload_due = False

    def apply(self, steps: Sequence[Step]) -> str:
        """Carry out the steps in their order; return the UUID of the mounted file system."""
        self._check_unfilled([step.target for step in steps if step.action == "stop"])
        started_again = [step for step in steps if step.action == "start"]
        try:
            for step in steps:
                getattr(self, f"_do_{step.action}")(step)
        except Exception:
            # Never without the disk: the engine would begin an empty store below the mount point.
            number = self._found.disk.number
            mounted = any(mount.device == number for mount in read_mounts())
            if self._journal.read() and started_again and mounted:
                self._run(["systemctl", "start", self._declared.unit])
            raise
        self._reload()
        self._journal.remove()
        return self._uuid

    def _check_unfilled(self, stopped: Sequence[str]) -> None:
        """Refuse to stop an engine that is pulling; check mode doesn't: a role waits in between."""
        if not stopped:
            return
        host = self._declared.host
        # What the engine says itself may lie elsewhere; several of the paths may be one store.
        paths = [path for path in (self._found.engine_models, *self._stores) if path]
        stores = {os.path.realpath(path): path for path in paths}
        try:
            filled = [said for path in stores.values() for said in pulls_going_on(path)]
        except HostError as error:
            raise HostError(f"{host}: {error.message}", error.remedy) from error
        if filled:
            raise refusal(f"{host}: {stopped[0]}", "stopped", filled, 0.0)

    def _command(self, argv: Sequence[str], what: str) -> str:
        code, out, err = self._run(argv)
        if code:
            raise HostError(
                f"{self._declared.host}: {what} failed ({' '.join(argv)}, exit code {code}): "
                f"{(err or out).strip()}."
            )
        return out

    def _reload(self) -> None:
        if self._reload_due:
            self._command(["systemctl", "daemon-reload"], "reading the units again")
            self._reload_due = False

    def _do_format(self, step: Step) -> None:
        device, fstype = self._declared.device, self._declared.fstype
        disk = read_disk(device, self._run)  # once more, right before the one step without return
        if not disk.empty:
            raise HostError(f"{self._declared.host}: {device} is not empty any more.")
        self._command([f"mkfs.{fstype}", "-q", device], step.sentence)
        self._uuid = read_disk(device, self._run).uuid

    def _do_write_unit(self, step: Step) -> None:
        stable = f"/dev/disk/by-uuid/{self._uuid}"
        what = stable if self._uuid and os.path.exists(stable) else self._declared.device
        if os.path.exists(step.target):
            self._keep(step.target)
        write_atomic(step.target, unit_text(self._declared, what).encode())
        self._reload_due = True

    def _do_comment_fstab(self, step: Step) -> None:
        self._keep(step.target)
        info = os.stat(step.target)
        entries = find_fstab(self._declared, self._found.disk)  # as its lines are counted now
        lines = [entry.line for entry in entries]
        text = comment_out(read_text(step.target), lines, unit_name(self._declared.path))
        data = text.encode("utf-8", "surrogateescape")
        write_atomic(step.target, data, info.st_mode & 0o777, (info.st_uid, info.st_gid))
        self._reload_due = True

    def _do_enable(self, step: Step) -> None:
        self._reload()
        self._command(["systemctl", "enable", step.target], step.sentence)

    def _do_stop(self, step: Step) -> None:
        self._journal.write({"unit": step.target, "unit_was_running": True})
        self._command(["systemctl", "stop", step.target], step.sentence)

    def _do_retire_unit(self, step: Step) -> None:
        self._run(["systemctl", "disable", step.target])
        self._run(["systemctl", "stop", step.target])
        self._keep(step.detail["path"])
        os.unlink(step.detail["path"])
        fsync_directory(os.path.dirname(step.detail["path"]))
        self._reload_due = True

    def _do_unmount(self, step: Step) -> None:
        self._reload()
        if any(mount.point == step.target for mount in read_mounts()):
            self._command(["umount", step.target], step.sentence)

    def _do_mount(self, step: Step) -> None:
        path = self._declared.path
        if os.path.islink(path):
            os.unlink(path)
        make_directories(path)
        self._reload()
        self._command(["systemctl", "start", step.detail["unit"]], step.sentence)
        here = [mount for mount in read_mounts() if mount.point == path]
        number = here[-1].device if here else "nothing"
        if number != self._found.disk.number:
            raise HostError(
                f"{self._declared.host}: {step.detail['unit']} started, but {number} is mounted at "
                f"{path}; wanted {self._declared.device} ({self._found.disk.number}).",
                f"See journalctl -u {step.detail['unit']}.",
            )

    def _do_link(self, step: Step) -> None:
        path, value = step.target, step.detail["value"]
        make_directories(os.path.dirname(path))
        if os.path.isdir(path) and not os.path.islink(path):
            if os.listdir(path):  # what the mount had hidden until now
                aside = f"{path}.hx-hidden-{self._stamp}"
                os.rename(path, aside)
                self.warnings.append(
                    f"{self._declared.host}: files were hidden below the mount point {path}; they "
                    f"are kept in {aside}."
                )
            else:
                os.rmdir(path)
        place_symlink(path, value)

    def _do_own_root(self, step: Step) -> None:
        os.chown(step.target, 0, 0)
        os.chmod(step.target, os.stat(step.target).st_mode & 0o7755)

    def _do_mark(self, step: Step) -> None:
        found = read_marker(self._declared.path) or {}
        other = found.get("store_id")
        if other and other != self._declared.store_id:
            raise HostError(
                f"{self._declared.host}: {self._declared.device} carries the marker of the store "
                f"{other!r}; wanted {self._declared.store_id!r}.",
                f"If the disk was moved here on purpose, remove {MARKER} from its root.",
            )
        marker = {**found, "schema": 1, "store_id": self._declared.store_id, "uuid": self._uuid}
        data = json.dumps(marker, indent=1, sort_keys=True).encode() + b"\n"
        write_atomic(step.target, data, 0o644)

    def _do_start(self, step: Step) -> None:
        self._reload()
        self._command(["systemctl", "start", step.target], step.sentence)

    def _keep(self, path: str) -> None:
        """Copy a file that is about to be replaced to where an undo finds it."""
        make_directories(self._keep_dir, 0o750)
        copy = os.path.join(self._keep_dir, f"{os.path.basename(path)}.{self._stamp}")
        data = read_text(path).encode("utf-8", "surrogateescape")
        write_atomic(copy, data, os.stat(path).st_mode & 0o777)
        self.kept.append(copy)
