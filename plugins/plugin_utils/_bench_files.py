# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The files of a benchmark on the controller: its figures as JSON, its page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils._bench_page import render_page

LATEST = "benchmark.html"


def write_run(directory: str, run: Mapping[str, Any]) -> str:
    """Write a run's JSON file and page below a directory of its host's name; return the page.

    Raises:
        OSError, TemplateError: they can't be written.
    """
    folder = Path(directory).expanduser() / run["host"]
    stamp = "".join(character for character in run["started_at"] if character.isalnum())
    name = f"benchmark-{stamp}-{run['run_id']}"
    page = folder / f"{name}.html"
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{name}.json", json.dumps(run, indent=1, sort_keys=True) + "\n")
    _write(page, render_page(run))
    _lead(folder / LATEST, page.name)
    return str(page)


def _write(path: Path, content: str) -> None:
    """Write a file that is whole or not there."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(content, encoding="utf-8")
    os.replace(new, path)


def _lead(link: Path, target: str) -> None:
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    os.replace(new, link)
