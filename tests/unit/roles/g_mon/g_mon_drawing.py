# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Views of g-mon as lines of text, for terminals of a given size; needs rich."""

from __future__ import annotations

import io

from g_mon import status, units, view, watch
from rich.cells import cell_len

WIDTHS = [60, 80, 120]


def render(renderable, width, **options):
    """Return what a terminal of this width shows, without colours; nothing may be wider."""
    file = io.StringIO()
    view.terminal(file=file, width=width, **options).print(renderable)
    lines = file.getvalue().splitlines()
    assert all(cell_len(text) <= width for text in lines), lines
    return lines


def look(host):
    """Return the answer of g-mon status."""
    return status.look(host.settings, units.find(host.settings), host.now)


def draw(host, width=80, height=None, ascii_=False):
    """Return a frame of the live view."""
    found = watch.Recorded(host.settings).scene(host.now, watch.history_columns(width))
    return render(watch.frame(found, width, height, ascii_), width)
