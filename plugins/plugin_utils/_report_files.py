# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Writes the documents of a run on the controller and keeps the newest runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

RECORD, HTML, MARKDOWN = "run-record.json", "report.html", "report.md"
LATEST = "latest.html"
KEPT_WHOLE = 32  # characters of a path that are not broken
RUN_DIRECTORY = re.compile(r"^\d{8}T\d{6}Z-")


def render(template: str, shown: Mapping[str, Any]) -> str:
    """Render a template; in ``*.html.j2`` nothing that a record holds can become markup."""
    environment = Environment(
        loader=FileSystemLoader(os.path.dirname(template)),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    environment.filters["path"] = _path
    return environment.get_template(os.path.basename(template)).render(**shown)


def write(path: str, content: str) -> None:
    """Write a file beside its final name and rename it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".run-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_record(path: str, record: Mapping[str, Any]) -> None:
    """Write a record as JSON."""
    write(path, json.dumps(record, indent=2) + "\n")


def point_latest(directory: str, run_id: str) -> str:
    """Let ``latest.html`` of a host lead to a run's report."""
    link = os.path.join(directory, LATEST)
    temporary = f"{link}.{os.getpid()}"
    os.symlink(os.path.join(run_id, HTML), temporary)
    os.replace(temporary, link)
    return link


def keep_newest(directory: str, number: int) -> list[str]:
    """Remove all but the newest runs of a host; return the names of those removed."""
    names = sorted(
        name
        for name in os.listdir(directory)
        if RUN_DIRECTORY.match(name) and os.path.isfile(os.path.join(directory, name, RECORD))
    )
    gone = names[: max(0, len(names) - number)] if number > 0 else []
    for name in gone:
        shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
    return gone


def _path(value: Any) -> Markup:
    """Let a long path break before its slashes only; everything else is escaped."""
    told = str(value)
    if len(told) <= KEPT_WHOLE // 2:
        return Markup('<span class="nb">{}</span>').format(told) if told else Markup("")
    words = []
    for word in told.split(" "):
        if len(word) <= KEPT_WHOLE and "/" in word:
            words.append(Markup('<span class="nb">{}</span>').format(word))
            continue
        parts = word.split("/") if word.count("/") > 1 else [word]
        held = [
            Markup('<span class="nb">{}</span>').format(part if number == 0 else f"/{part}")
            if len(part) < 40 and len(parts) > 1
            else escape(part if number == 0 else f"/{part}")
            for number, part in enumerate(parts)
            if part or number
        ]
        words.append(Markup("<wbr>").join(held))
    return Markup(" ").join(words)


def _cell(value: Any) -> str:
    """Make a text safe for a cell of a Markdown table."""
    flat = " ".join(str(value).split())
    for sign, safe in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), (">", "&gt;"), ("`", "\\`")):
        flat = flat.replace(sign, safe)
    return flat
