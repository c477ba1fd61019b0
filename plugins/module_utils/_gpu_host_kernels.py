# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The kernels of a host: which are installed, which have the driver's module, which boots next."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_grub import (
    Choice,
    configured_kernel,
    version_key,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import (
    NOT_FOUND,
    Host,
    UnknownError,
)

MODULES = "/lib/modules"
# Debian's packages call the file nvidia-current.ko; the module in it is nvidia all the same.
_FILE = re.compile(
    r"^nvidia(?:-current|-legacy-\w+|-tesla(?:-\w+)?)?(?:-open)?\.ko(?:\.(?:xz|zst|gz))?$"
)
_PLACES = ("updates", "extra", "weak-updates", "kernel", "misc")
_INFO = re.compile(r"^(version|signer|sig_id):\s+(.*)$", re.MULTILINE)
_IMAGE = re.compile(r"^(?:vmlinuz|vmlinux|Image|kernel)-(.+)$")


def running_release(host: Host) -> str:
    """Return the release of the kernel that runs; empty when /proc doesn't say."""
    return (host.text("/proc/sys/kernel/osrelease") or "").strip()


def kernels(host: Host, notes: list[str]) -> tuple[list[dict[str, Any]], Choice]:
    """List the installed kernels, and say which one boots next and why.

    Each has ``release``, ``running``, ``default``, ``has_module`` and, when that is known,
    ``module_version``; ``message`` says what is odd about its module.

    Raises:
        UnknownError: /lib/modules isn't there or empty, as in a container.
    """
    names = host.names(MODULES)
    if not names:
        raise UnknownError(f"{MODULES} is {'not there' if names is None else 'empty'}")
    installed = _with_image(host, names)
    running = running_release(host)
    choice = _next(host, installed, notes)
    wanted = {*installed, running, choice.release} - {""}
    found = []
    for release in sorted(wanted, key=version_key):
        entry: dict[str, Any] = {
            "release": release,
            "running": release == running,
            "default": release == choice.release,
        }
        entry.update(_module_of(host, release, notes))
        found.append(entry)
    return found, choice


def _with_image(host: Host, names: Iterable[str]) -> list[str]:
    """Leave out directories that a removed kernel has left behind.

    Where no kernel has an image, as on machines that get theirs from outside, all count.
    """
    images = {match.group(1) for name in host.names("/boot") or [] if (match := _IMAGE.match(name))}
    folders = [name for name in names if os.path.isdir(host.path(f"{MODULES}/{name}"))]
    booted = [
        name
        for name in folders
        if name in images or os.path.exists(host.path(f"{MODULES}/{name}/vmlinuz"))
    ]
    return booted or folders


def _next(host: Host, installed: list[str], notes: list[str]) -> Choice:
    try:
        choice = configured_kernel(host)
    except UnknownError as error:
        notes.append(str(error))
        choice = None
    if choice is not None:
        return choice
    if not installed:
        return Choice("", "unknown", "no kernel is installed and no boot loader's list was found")
    newest = max(installed, key=version_key)
    if len(installed) == 1:
        return Choice(newest, "only", f"{newest} is the only kernel that is installed")
    return Choice(newest, "newest", f"no boot loader's list was found; {newest} is the newest")


def module_file(host: Host, release: str) -> tuple[str, str]:
    """Return the module's file of a kernel, and a message when modprobe won't find it.

    ``modules.dep`` is what modprobe goes by. A file that it doesn't name isn't loaded.
    """
    base = f"{MODULES}/{release}"
    listed = host.text(f"{base}/modules.dep")
    for line in (listed or "").splitlines():
        name = line.partition(":")[0]
        if _FILE.match(os.path.basename(name)):
            path = name if name.startswith("/") else f"{base}/{name}"
            if os.path.exists(host.path(path)):
                return path, ""
            return "", f"modules.dep names {path}, which is not there"
    on_disk = _search(host, base)
    if on_disk and listed is not None:
        return "", f"{on_disk} is there, but not in modules.dep: depmod has not run"
    return on_disk, ""


def _search(host: Host, base: str) -> str:
    for place in _PLACES:
        top = host.path(f"{base}/{place}")
        for folder, _folders, files in os.walk(top):
            for name in sorted(files):
                if _FILE.match(name):
                    inside = os.path.relpath(os.path.join(folder, name), host.path(base))
                    return f"{base}/{inside}"
    return ""


def _module_of(host: Host, release: str, notes: list[str]) -> dict[str, Any]:
    path, message = module_file(host, release)
    entry: dict[str, Any] = {"has_module": bool(path)}
    if message:
        entry["message"] = message
    if path:
        version = module_info(host, path, notes).get("version")
        if version:
            entry["module_version"] = version
    return entry


def module_info(host: Host, path: str, notes: list[str]) -> dict[str, str]:
    """Return ``version`` and ``signer`` of a module's file, as far as it has them."""
    outcome = host.call("modinfo", host.path(path))
    if outcome.rc != 0:
        if outcome.rc == NOT_FOUND:
            why = "modinfo is not installed"
        else:
            why = f"modinfo could not read {path}"
        if why not in notes:
            notes.append(why)
        return {}
    return {match[1]: match[2].strip() for match in _INFO.finditer(outcome.out)}
