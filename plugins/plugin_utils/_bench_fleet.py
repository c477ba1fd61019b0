# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The same benchmark on several hosts, side by side; hosts that stand out are marked.

A host stands out in a metric when it lies further from the median of the hosts with the same model
and load than 3.5 times 1.4826 times the median absolute deviation (B. Iglewicz and D. Hoaglin, "How
to Detect and Handle Outliers", 1993), at least four hosts were measured, and the distance is at
least 5 % of the median: hosts that agree to the millisecond would otherwise be told apart by one.
Where more than half of the hosts agree exactly, 1.2533 times the mean absolute deviation takes the
place of the median one, as the same authors advise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup, escape

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_collect as collect
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_outcome as outcome
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_view as views
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_files as files
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

TEMPLATE = Path(__file__).with_name("templates") / "benchmark_fleet.html.j2"
LEAST_HOSTS = 4
DISTANCE = 3.5
MAD_TO_SD = 1.4826  # of a normal distribution
MEAN_AD_TO_SD = 1.2533
LEAST_PERCENT = 5.0
MOST_REASONS = 10  # that are told in a terminal
MARK = "!"
COLUMNS = ("TTFT p50", "TTFT p99", "tokens/s", "in all", "errors")
JUDGED = ("ttft_p50", "ttft_p99", "rate", "total")  # the columns that have outliers
RULE = (
    f"{MARK} stands out: further than {DISTANCE} x {MAD_TO_SD} x MAD from the median of the hosts"
    f" with the same model and load, and at least {LEAST_PERCENT:g} %; takes {LEAST_HOSTS} hosts."
)


def fleet_table(
    runs: Sequence[Mapping[str, Any]], pages: Mapping[str, str] | None = None
) -> tuple[str, Markup]:
    """Return the comparison of runs as text for a terminal and as a fragment of HTML.

    ``pages`` leads from a host to the address of its own page.
    """
    rows = fleet_rows(runs)
    return _text(rows), _html(rows, pages or {})


def render_fleet(runs: Sequence[Mapping[str, Any]], pages: Mapping[str, str] | None = None) -> str:
    """Return the comparison as a page of its own, one self-contained file."""
    rows = fleet_rows(runs)
    words = [row["word"] for row in rows]
    word = max(words, key=outcome.WORDS.index, default="INVALID")
    hosts = sorted({str(run["host"]) for run in runs})
    odd = sorted({row["host"] for row in rows if row["outliers"]})
    counts = [f"{words.count(kind)} {kind}" for kind in outcome.WORDS if kind in words]
    return files.render(
        str(TEMPLATE),
        {
            "word": word,
            "tone": outcome.TONES[word],
            "title": text.counted(len(hosts), "host"),
            "started": min((str(run["started_at"]) for run in runs), default=""),
            "headline": f"{', '.join(counts) or 'Nothing was measured'}.",
            "standing_out": f"Stands out: {', '.join(odd)}." if odd else "No host stands out.",
            "table": _html(rows, pages or {}),
            "rule": RULE,
        },
    )


def fleet_rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each host, model and load, with the metrics in which it stands out.

    Steps of a sweep beyond its knee are left out: there every host is slow.
    """
    rows = []
    for run in runs:
        request = collect.request_of(run)
        for entry in run.get("entries") or []:
            if outcome.beyond_knee(entry, run):
                continue
            metrics = entry.get("metrics") or {}
            ttft = metrics.get("ttft_ms") or {}
            word, reasons = outcome.of_entry(entry)
            rows.append(
                {
                    "host": str(run["host"]),
                    "model": str(entry["model"]),
                    "load": collect.load_label(str(entry["stage"]["label"]), request),
                    "ttft_p50": ttft.get("median"),
                    "ttft_p99": ttft.get("p99"),
                    "rate": (metrics.get("tokens_per_s") or {}).get("median"),
                    "total": metrics.get("total_tokens_per_s"),
                    "errors": sum((entry.get("errors") or {}).values()),
                    "word": word,
                    "reasons": reasons,
                    "outliers": {},
                }
            )
    rows.sort(key=lambda row: (row["model"], row["load"], row["host"]))
    _mark(rows)
    return rows


def reasons_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each row that isn't PASS, the gravest first, with its gravest reason."""
    objected = sorted(
        (row for row in rows if row["reasons"]), key=lambda row: -outcome.WORDS.index(row["word"])
    )
    told = []
    for row in objected[:MOST_REASONS]:
        more = len(row["reasons"]) - 1
        end = f" (and {more} more)" if more else ""
        where = f"{row['host']}, {row['model']}, {row['load']}"
        told.append(f"{row['word']}: {where}: {row['reasons'][0]}{end}")
    if len(objected) > MOST_REASONS:
        told.append(f"and {len(objected) - MOST_REASONS} more on the pages")
    return told


def outliers(values: Mapping[str, float]) -> dict[str, float]:
    """Return the hosts that stand out, with their distance from the median in percent."""
    if len(values) < LEAST_HOSTS:
        return {}
    middle = median(values.values())
    away = {host: abs(value - middle) for host, value in values.items()}
    width = MAD_TO_SD * median(away.values())
    if not width:
        width = MEAN_AD_TO_SD * math.fsum(away.values()) / len(away)
    least = abs(middle) * LEAST_PERCENT / 100
    return {
        host: 100.0 * (value - middle) / middle if middle else math.inf
        for host, value in values.items()
        if away[host] > DISTANCE * width and away[host] >= least
    }


def _mark(rows: Sequence[dict[str, Any]]) -> None:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["load"]), []).append(row)
    for group in groups.values():
        for name in JUDGED:
            known = {row["host"]: float(row[name]) for row in group if row[name] is not None}
            found = outliers(known)
            for row in group:
                if row["host"] in found:
                    row["outliers"][name] = found[row["host"]]


def _cells(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each figure with its note, empty unless it stands out."""
    figures = [
        ("ttft_p50", views.ms(row["ttft_p50"])),
        ("ttft_p99", views.ms(row["ttft_p99"])),
        ("rate", views.rate(row["rate"])),
        ("total", views.rate(row["total"])),
        ("errors", str(row["errors"]) if row["errors"] else views.DASH),
    ]
    return [
        (figure, outcome.signed(row["outliers"][name]) if name in row["outliers"] else "")
        for name, figure in figures
    ]


def _text(rows: Sequence[Mapping[str, Any]]) -> str:
    table = [["model", "load", "host", *(f"{name}  " for name in COLUMNS), "verdict"]]
    before: tuple[str, str] = ("", "")
    for row in rows:
        group = (row["model"], row["load"])
        names = list(group) if group != before else ["", ""]
        before = group
        cells = [f"{figure} {MARK if note else ' '}" for figure, note in _cells(row)]
        table.append([*names, row["host"], *cells, row["word"]])
    widths = [max(len(line[at]) for line in table) for at in range(len(table[0]))]
    told = []
    for line in table:
        placed = [
            cell.ljust(width) if at < 3 or at == len(line) - 1 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        told.append("  ".join(placed).rstrip())
    if any(row["outliers"] for row in rows):
        told += ["", RULE]
    return "\n".join(told)


def _html(rows: Sequence[Mapping[str, Any]], pages: Mapping[str, str]) -> Markup:
    head = "".join(f'<th class="num">{escape(name)}</th>' for name in COLUMNS)
    parts = [f"<table><tr><th></th><th>Model</th><th>Load</th><th>Host</th>{head}</tr>"]
    for row in rows:
        cells = "".join(
            f'<td class="num"><b class="warn">{escape(figure)} {MARK}</b>'
            f"<br><small>{escape(note)}</small></td>"
            if note
            else f'<td class="num">{escape(figure)}</td>'
            for figure, note in _cells(row)
        )
        host, page = escape(row["host"]), pages.get(row["host"])
        name = f'<a href="{escape(page)}">{host}</a>' if page else host
        tone, tip = outcome.TONES[row["word"]], " ".join(row["reasons"])[:300]
        parts.append(
            f'<tr><td><span class="pill {tone}" title="{escape(tip)}">{escape(row["word"])}</span>'
            f'</td><td class="name">{escape(row["model"])}</td>'
            f'<td class="quiet nb">{escape(row["load"])}</td><td>{name}</td>'
            f"{cells}</tr>"
        )
    parts.append("</table>")
    return Markup("".join(parts))  # noqa: S704 - every text has passed through escape()
