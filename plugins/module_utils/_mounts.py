# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Parsers for what a host says about its mounts: mountinfo, fstab, blkid and unit files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_OCTAL = re.compile(r"\\([0-7]{3})")
_UNIT_PLAIN = re.compile(rb"[A-Za-z0-9:_.]")
_KEPT = "# kept by hx_infra.llm, replaced by {unit}: "


@dataclass(frozen=True)
class Mount:
    """One line of ``/proc/self/mountinfo``."""

    number: int
    device: str
    root: str
    point: str
    fstype: str
    source: str
    options: str


@dataclass(frozen=True)
class FstabEntry:
    """One active line of ``/etc/fstab``; ``line`` counts from 0."""

    line: int
    text: str
    spec: str
    point: str
    fstype: str


@dataclass(frozen=True)
class UnitFile:
    """What a mount unit declares."""

    path: str
    what: str
    where: str


def unescape(text: str) -> str:
    """Undo the octal escapes that mountinfo and fstab use for blanks and backslashes."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def parse_mountinfo(text: str) -> list[Mount]:
    """Read the mounts in the order of the kernel's list: later ones cover earlier ones."""
    mounts = []
    for line in text.splitlines():
        head, separator, tail = line.partition(" - ")
        left, right = head.split(" "), tail.split(" ")
        if not separator or len(left) < 6 or len(right) < 2:
            continue
        mounts.append(
            Mount(
                number=int(left[0]),
                device=left[2],
                root=unescape(left[3]),
                point=unescape(left[4]),
                fstype=right[0],
                source=unescape(right[1]),
                options=left[5],
            )
        )
    return mounts


def mount_of(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """Return the mount that a path without links lies on."""
    best = None
    for mount in mounts:
        point = mount.point.rstrip("/")
        inside = path == mount.point or path.startswith(f"{point}/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def parse_fstab(text: str) -> list[FstabEntry]:
    """Read the active lines; comments, empty and malformed lines are passed over."""
    entries = []
    for number, line in enumerate(text.splitlines()):
        fields = line.split()
        if len(fields) < 2 or fields[0].startswith("#"):
            continue
        fstype = fields[2] if len(fields) > 2 else ""
        entries.append(FstabEntry(number, line, unescape(fields[0]), unescape(fields[1]), fstype))
    return entries


def comment_out(text: str, lines: Sequence[int], unit: str) -> str:
    """Turn lines of fstab into comments that say what replaces them."""
    kept = text.splitlines(keepends=True)
    for number in lines:
        kept[number] = _KEPT.format(unit=unit) + kept[number]
    return "".join(kept)


def parse_blkid(text: str) -> dict[str, str]:
    """Read the output of ``blkid -o export``."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.replace("\\ ", " ").strip() for key, _mark, value in pairs}


def parse_unit(path: str, text: str) -> UnitFile:
    """Read What= and Where= of a mount unit."""
    values = {"what": "", "where": ""}
    section = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped
        key, separator, value = stripped.partition("=")
        if section == "[Mount]" and separator and key.strip().lower() in values:
            values[key.strip().lower()] = value.strip()
    return UnitFile(path, values["what"], values["where"].rstrip("/") or values["where"])


def unit_name(path: str, suffix: str = ".mount") -> str:
    """Return the unit's name for a path, as ``systemd-escape --path`` makes it."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return f"-{suffix}"
    escaped = []
    for position, byte in enumerate("/".join(parts).encode("utf-8", "surrogateescape")):
        char = bytes([byte])
        if char == b"/":
            escaped.append("-")
        elif _UNIT_PLAIN.match(char) and not (position == 0 and char == b"."):
            escaped.append(char.decode())
        else:
            escaped.append(f"\\x{byte:02x}")
    return "".join(escaped) + suffix


def names_device(spec: str, device: str, uuid: str, label: str = "") -> bool:
    """Tell whether fstab's or a unit's way of naming a device means this one."""
    value = spec.strip("\"'")
    key, separator, rest = value.partition("=")
    if separator and key in ("UUID", "LABEL"):
        rest = rest.strip("\"'")
        return bool(rest) and rest == (uuid if key == "UUID" else label)
    names = {device}
    if uuid:
        names.add(f"/dev/disk/by-uuid/{uuid}")
    if label:
        names.add(f"/dev/disk/by-label/{label}")
    return value in names
