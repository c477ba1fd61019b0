# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where things are on this host, as the role wrote it down; and what all parts need."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

STEM = "nvidia-smi-ping"
STALE_INTERVALS = 3


class GMonError(Exception):
    """Something that the command cannot go on with; the text says what to do."""


@dataclass(frozen=True)
class Settings:
    """Where things are on this host, as the role wrote it down; times are in seconds."""

    host: str
    data_dir: Path
    textfile: Path
    service: str
    timer: str
    interval_s: float
    timeout_s: float
    user: str
    python: Path
    reader: Path
    packages: tuple[str, ...] = ()  # name==version

    @property
    def stable(self) -> Path:
        """The name that always leads to the file that is written to."""
        return self.data_dir / f"{STEM}.csv"

    @property
    def events(self) -> Path:
        """The collector's own log of starts, stops and errors."""
        return self.data_dir / f"{STEM}.events"

    @property
    def state(self) -> Path:
        """What the collector knows from one sample to the next."""
        return self.data_dir / f"{STEM}.state"

    @property
    def stale_after_s(self) -> float:
        """The age at which data are stale."""
        return STALE_INTERVALS * self.interval_s


def load_settings(path: Path) -> Settings:
    """Read the settings file; GMonError when it is missing or has no such form."""
    remedy = "run the role hx_infra.llm.telemetry on this host again"
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        settings = Settings(
            host=str(given["host"]),
            data_dir=Path(given["data_dir"]),
            textfile=Path(given["textfile"]),
            service=str(given["service"]),
            timer=str(given["timer"]),
            interval_s=float(given["interval_seconds"]),
            timeout_s=float(given["timeout_seconds"]),
            user=str(given["user"]),
            python=Path(given["python"]),
            reader=Path(given["reader"]),
            packages=tuple(map(str, given.get("packages", ()))),
        )
    except OSError as error:
        raise GMonError(f"{path} can't be read ({error.strerror}): {remedy}") from error
    except (KeyError, TypeError, ValueError) as error:
        message = f"{path} has no such settings ({error.__class__.__name__}: {error}): {remedy}"
        raise GMonError(message) from error
    if settings.interval_s <= 0 or math.isnan(settings.interval_s):
        raise GMonError(
            f"{path} has interval_seconds {settings.interval_s:g}, not over 0: {remedy}"
        )
    return settings


def printable(text: str) -> str:
    """Return a text without what could steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def unreadable(path: Path, error: OSError) -> GMonError:
    """Return the error for a file that can't be read, with what to do about it."""
    if isinstance(error, FileNotFoundError):
        remedy = "no sample was ever taken here, or the role's telemetry_data_dir is another one"
    elif isinstance(error, PermissionError):
        remedy = "run it with sudo"
    else:
        remedy = "see what the disk says: journalctl -k -p warning"
    return GMonError(f"{path} can't be read ({error.strerror}): {remedy}")
