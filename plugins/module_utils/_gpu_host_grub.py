# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Which kernel GRUB boots next, read from its configuration."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import Host

FOLDERS = ("/boot/grub", "/boot/grub2")
ENTRIES = "/boot/loader/entries"  # Boot Loader Specification, as on Fedora and RHEL

_OPEN = re.compile(r"^\s*(menuentry|submenu)\s+(?:'([^']*)'|\"([^\"]*)\"|(\S+))(.*)\{\s*$")
_ID = re.compile(r"(?:\$menuentry_id_option|--id)[ =]'?\"?([^'\"\s]+)")
_LINUX = re.compile(r"^\s*linux(?:16|efi)?\s+(\S+)")
_DEFAULT = re.compile(r"^\s*set default=\"?([^\"\n]*)\"?\s*$", re.MULTILINE)
_IMAGE_PREFIX = re.compile(r"^(?:vmlinuz|vmlinux|Image|kernel)-")


@dataclass(frozen=True)
class Choice:
    """A kernel, and why it is the next one.

    Attributes:
        release: the kernel's release.
        decided_by: ``next_entry``, ``saved_entry``, ``default``, ``newest``, ``only`` or
            ``unknown``.
        message: the same as a sentence.
    """

    release: str
    decided_by: str
    message: str


@dataclass
class Entry:
    """An entry of GRUB's menu; one with ``children`` is a submenu."""

    title: str
    name: str = ""
    release: str = ""
    children: list[Entry] = field(default_factory=list)
    submenu: bool = False


def version_key(release: str) -> tuple[tuple[int, int, str], ...]:
    """Return what sorts kernel releases by their numbers, as ``sort -V`` does."""
    parts = re.findall(r"\d+|[A-Za-z]+", release)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def configured_kernel(host: Host) -> Choice | None:
    """Return the kernel that GRUB's configuration names; None when there is none to read.

    A choice for one boot (``next_entry``, by grub-reboot) goes before the default.

    Raises:
        UnknownError: the configuration is there and can't be read.
    """
    for folder in FOLDERS:
        text = host.text(f"{folder}/grub.cfg")
        if text is None:
            continue
        environment = parse_environment(host.text(f"{folder}/grubenv") or "")
        entries = parse_menu(text)
        if "blscfg" in text:
            entries = _loader_entries(host) + entries
        return _choose(entries, text, environment, f"{folder}/grub.cfg")
    return None


def _choose(
    entries: list[Entry], text: str, environment: dict[str, str], where: str
) -> Choice | None:
    if environment.get("next_entry"):
        wanted, by = environment["next_entry"], "next_entry"
    else:
        lines = [value for value in _DEFAULT.findall(text) if "next_entry" not in value]
        wanted, by = (lines[-1] if lines else "0"), "default"
        if "saved_entry" in wanted:
            wanted, by = environment.get("saved_entry") or "0", "saved_entry"
    entry = _find(entries, wanted)
    if entry is None or not entry.release:
        return None
    said = {"next_entry": "the next boot only", "saved_entry": "the saved choice"}
    why = said.get(by, "the default")
    return Choice(entry.release, by, f"{where}: {why} is '{wanted}', {entry.release}")


def _find(entries: list[Entry], wanted: str) -> Entry | None:
    """Return the entry of a number, a title or an identifier; ``>`` leads into submenus."""
    head, _mark, rest = wanted.partition(">")
    chosen = None
    if head.strip().isdigit():
        number = int(head)
        chosen = entries[number] if number < len(entries) else None
    else:
        chosen = next((entry for entry in entries if head in (entry.title, entry.name)), None)
    if chosen is None or not chosen.submenu:
        return chosen
    return _find(chosen.children, rest or "0")


def parse_environment(text: str) -> dict[str, str]:
    """Return the variables of a grubenv."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, mark, value in pairs if mark}


def parse_menu(text: str) -> list[Entry]:
    """Return the menu of a grub.cfg as a tree."""
    top: list[Entry] = []
    open_blocks: list[Entry | None] = []
    for line in text.splitlines():
        opened = _OPEN.match(line)
        if opened:
            named = _ID.search(opened[5])
            entry = Entry(opened[2] or opened[3] or opened[4] or "", named[1] if named else "")
            entry.submenu = opened[1] == "submenu"
            parents = [block for block in open_blocks if block is not None]
            (parents[-1].children if parents else top).append(entry)
            open_blocks.append(entry)
        elif line.rstrip().endswith("{"):  # a function
            open_blocks.append(None)
        elif line.strip() == "}":
            if open_blocks:
                open_blocks.pop()
        elif open_blocks and open_blocks[-1] is not None:
            image = _LINUX.match(line)
            if image:
                open_blocks[-1].release = release_of(image[1])
    return top


def release_of(image: str) -> str:
    """Return the release in an image's name; empty when there is none."""
    name = os.path.basename(image)
    return _IMAGE_PREFIX.sub("", name) if _IMAGE_PREFIX.match(name) else ""


def _loader_entries(host: Host) -> list[Entry]:
    found = []
    for file in host.names(ENTRIES) or []:
        if not file.endswith(".conf"):
            continue
        lines = (host.text(f"{ENTRIES}/{file}") or "").splitlines()
        words = [line.split(None, 1) for line in lines if not line.startswith("#")]
        fields = {pair[0]: pair[1].strip() for pair in words if len(pair) == 2}
        release = release_of(fields.get("linux", "")) or fields.get("version", "")
        found.append(Entry(fields.get("title", ""), file[: -len(".conf")], release))
    return sorted(found, key=lambda entry: version_key(entry.release), reverse=True)
