# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which release this program plays, and where its own files are."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

DEFAULT_VERSION = "0.11.4"


def executable() -> Path:
    """Return the resolved path of the running program (a packed file or the source tree)."""
    return Path(os.path.realpath(sys.argv[0]))


def library_dir() -> Path | None:
    """Return lib/ollama beside the program's bin directory, None where it is missing."""
    candidate = executable().parent.parent / "lib" / "ollama"
    return candidate if candidate.is_dir() else None


def is_packed() -> bool:
    """Tell whether this is an installed release (one packed file) or the source tree."""
    return executable().is_file() and executable().suffix != ".py"


def name_process(name: str) -> None:
    """Give the process the name that the real program has, where the system lets it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _compiled_in() -> str:
    """Return the version that the release build wrote into the packed program."""
    loader = globals().get("__loader__")
    try:
        archive = Path(loader.archive)  # type: ignore[union-attr]
        return loader.get_data(f"{archive}{os.sep}VERSION").decode().strip()  # type: ignore
    except (AttributeError, OSError):
        return ""


def own_version() -> str:
    """Return the version: compiled in, else SIM_OLLAMA_VERSION (source tree only), else 0.11.4."""
    return _compiled_in() or os.environ.get("SIM_OLLAMA_VERSION", "") or DEFAULT_VERSION


def parse(text: str) -> tuple[int, ...]:
    """Turn `v0.11.4-rc1` into (0, 11, 4)."""
    numbers = text.lstrip("v").split("-")[0].split(".")
    return tuple(int(n) for n in numbers if n.isdigit())


def at_least(version: str, floor: str) -> bool:
    """Tell whether version is floor or later."""
    return parse(version) >= parse(floor)
