# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same benchmark on several hosts, and which of them stand out."""

from __future__ import annotations

import pytest
from bench_runs import entry, run, sample

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_fleet as fleet
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_view as views


def hosts(*ttfts, model="m"):
    return [
        run(
            [entry(model, samples=[sample(n, ttft=ttft) for n in range(1, 31)])],
            host=f"llm-{number:02d}",
        )
        for number, ttft in enumerate(ttfts, start=1)
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([100, 101, 102, 300], ["3"]),
        ([100, 101, 102, 103], []),
        ([100, 101, 300], []),
        ([100, 100, 100, 100], []),
        ([100, 100, 100, 100, 100, 200], ["5"]),
        ([100.0, 100.1, 100.2, 101.5], []),
        ([100, 101, 102, 103, 40, 250], ["4", "5"]),
        ([], []),
    ],
    ids=["one", "none", "three hosts", "equal", "equal but one", "far but small", "both", "empty"],
)
def test_hosts_that_stand_out_are_found_by_the_stated_rule(values, expected):
    found = fleet.outliers({str(at): value for at, value in enumerate(values)})
    assert list(found) == expected


def test_the_limit_of_the_rule_is_where_it_says():
    # Median 100, distances 10, 10, 10, 0 and x: the median of them is 10 for any x over 10.
    limit = 3.5 * 1.4826 * 10
    base = {"a": 90.0, "b": 110.0, "c": 90.0, "d": 100.0}
    assert not fleet.outliers({**base, "e": 100 + limit - 0.01})
    assert list(fleet.outliers({**base, "e": 100 + limit + 0.01})) == ["e"]


def test_the_table_marks_the_host_and_states_the_rule():
    told, html = fleet.fleet_table(hosts(100, 101, 102, 99, 240))
    lines = told.splitlines()
    assert lines[0].split()[:3] == ["model", "load", "host"]
    marked = [line for line in lines[1:6] if "!" in line]
    assert len(marked) == 1
    assert "llm-05" in marked[0]
    assert "240 ms !" in marked[0]
    assert "3.5 x 1.4826 x MAD" in lines[-1]
    assert html.count('<b class="warn">') == 2
    assert "+137.6 %" in html


def test_what_is_no_pass_is_told_with_its_reason_the_gravest_first():
    runs = hosts(100, 100)
    slow = {"check": "ttft", "status": "FAIL", "subject": "m", "value": 100, "limit": 50}
    runs[0]["entries"][0]["verdicts"] = [{**slow, "unit": "ms", "evidence": ""}]
    runs[1]["entries"][0]["validity"] = {"state": "UNRELIABLE", "reasons": ["Busy.", "Few."]}
    [first, second] = fleet.reasons_of(fleet.fleet_rows(runs))
    assert first.startswith("UNRELIABLE: llm-02, m, 4 at once")
    assert first.endswith(": Busy. (and 1 more)")
    assert second.startswith("FAIL: llm-01, m, 4 at once")
    assert "50 ms" in second
    assert fleet.reasons_of(fleet.fleet_rows(hosts(100, 100))) == []


def test_only_so_many_reasons_are_told():
    runs = hosts(*[100] * 13)
    for made in runs:
        made["entries"][0]["validity"] = {"state": "UNRELIABLE", "reasons": ["Busy."]}
    told = fleet.reasons_of(fleet.fleet_rows(runs))
    assert len(told) == 11
    assert told[-1] == "and 3 more on the pages"


def test_columns_stay_aligned_with_and_without_a_mark():
    lines = fleet.fleet_table(hosts(100, 101, 102, 99, 240))[0].splitlines()[:6]
    assert len({line.rindex(" ") for line in lines}) == 1


def test_models_and_loads_are_compared_with_their_like_only():
    runs = [*hosts(100, 101, 102, 99), *hosts(900, model="other")]
    told, _html = fleet.fleet_table(runs)
    assert "!" not in told


@pytest.mark.parametrize("option", [{"prompt_tokens": 2048}, {"num_predict": 512}])
def test_lengths_of_prompts_and_answers_are_compared_with_their_like_only(option):
    long = [{**item, "options": option} for item in hosts(900, 901, 902, 903)]
    rows = fleet.fleet_rows([*hosts(100, 101, 102, 99), *long])
    assert len({row["load"] for row in rows}) == 2
    odd = [{**item, "options": option} for item in hosts(900)]
    assert not any(row["outliers"] for row in fleet.fleet_rows([*hosts(100, 101, 102, 99), *odd]))


def test_without_outliers_the_rule_is_not_told():
    assert "MAD" not in fleet.fleet_table(hosts(100, 101))[0]


def test_a_host_without_ttft_is_in_the_table():
    runs = hosts(100, 101, 102, None)
    told, _html = fleet.fleet_table(runs)
    line = next(line for line in told.splitlines() if "llm-04" in line)
    assert line.split()[-6:-1][:2] == [views.DASH, views.DASH]


def test_names_cannot_become_markup():
    bad = "<script>\"'"
    runs = [run([entry(bad)], host=bad)]
    _told, html = fleet.fleet_table(runs, {bad: f"{bad}.html"})
    assert "<script" not in html
    assert "<script" not in fleet.render_fleet(runs)


def test_the_page_of_a_fleet_leads_to_the_pages_of_its_hosts():
    content = fleet.render_fleet(hosts(100, 101, 102, 99, 240), {"llm-05": "llm-05.html"})
    assert '<a href="llm-05.html">llm-05</a>' in content
    assert "Stands out: llm-05." in content
    assert "5 PASS." in content
    assert "No host stands out." in fleet.render_fleet(hosts(100))
    assert "Nothing was measured." in fleet.render_fleet([])
