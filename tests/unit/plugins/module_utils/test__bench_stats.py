# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import math
import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_stats as stats


@pytest.mark.parametrize(
    ("values", "percent", "wanted"),
    [
        ([], 50, None),
        ([7], 99, 7),
        ([1, 2, 3, 4], 0, 1),
        ([4, 3, 2, 1], 50, 2.5),
        ([1, 2, 3, 4], 100, 4),
        ([10, 20, 30, 40, 50], 90, 46),
    ],
)
def test_percentile_interpolates(values, percent, wanted):
    assert stats.percentile(values, percent) == wanted


def test_a_percentile_beyond_100_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="101"):
        stats.percentile([1], 101)


def test_mean_stdev_and_cv():
    values = [2, 4, 4, 4, 5, 5, 7, 9]
    assert stats.mean(values) == 5
    assert stats.stdev(values) == pytest.approx(2.13809)
    assert stats.cv_percent(values) == pytest.approx(42.7618)


@pytest.mark.parametrize(
    ("values", "spread"), [([], None), ([3], None), ([0, 0], None), ([3, 3], 0.0)]
)
def test_cv_of_too_few_or_zero_values_is_not_known(values, spread):
    assert stats.cv_percent(values) == spread


def test_the_interval_of_the_median_encloses_it_and_is_repeatable():
    values = [100.0, 101.0, 102.0, 104.0, 120.0]
    low, high = stats.median_interval(values)
    assert 100.0 <= low <= 102.0 <= high <= 120.0
    assert stats.median_interval(values) == (low, high)
    assert stats.median_interval(values[:2]) is None


@pytest.mark.parametrize("count", [3, 4, 10, 11, 60])
def test_the_interval_is_that_of_a_bootstrap_that_draws_its_samples(count):
    draw = random.Random(count)
    values = [draw.lognormvariate(3, 1) for _number in range(count)]
    medians = [stats.median(draw.choices(values, k=count)) for _round in range(4000)]
    interval = stats.median_interval(values)
    # The ends are percentiles of 1,000 draws: compare where they stand among the drawn medians.
    for end, share in zip(interval, (0.025, 0.975)):
        below = sum(value < end for value in medians) / len(medians)
        up_to = sum(value <= end for value in medians) / len(medians)
        assert below - 0.02 <= share <= up_to + 0.02


def test_the_median_of_an_even_resample_lies_between_its_two_middle_values():
    low, high = stats.median_interval([0.0, 0.0, 10.0, 10.0], confidence=0.0)
    assert low == high == 5.0


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    draw = random.Random(5)
    covered = 0
    for _round in range(400):
        low, high = stats.median_interval([draw.expovariate(1) for _number in range(30)])
        covered += low <= math.log(2) <= high
    assert 0.90 <= covered / 400 <= 0.99


def test_the_interval_of_the_ratio_of_medians():
    draw = random.Random(2)
    before = [draw.gauss(100, 5) for _number in range(60)]
    after = [value * 1.3 for value in before]
    low, high = stats.ratio_interval(before, after)
    assert 1.2 < low < 1.3 < high < 1.4
    low, high = stats.ratio_interval(before, before)
    assert low < 1 < high


@pytest.mark.parametrize(
    ("before", "after"), [([1, 2], [1, 2, 3]), ([1, 2, 3], []), ([0, 1, 2], [1, 2, 3])]
)
def test_no_interval_of_a_ratio_without_enough_positive_values(before, after):
    assert stats.ratio_interval(before, after) is None


# R, ?wilcox.test: Ozone in May and August 1973, W = 127.5, p-value = 0.0001208.
OZONE_MAY = [41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18]
OZONE_MAY += [14, 34, 6, 30, 11, 1, 11, 4, 32, 23, 45, 115, 37]
OZONE_AUGUST = [39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22]
OZONE_AUGUST += [59, 23, 31, 44, 21, 9, 45, 168, 73, 76, 118, 84, 85]


def test_mann_whitney_with_ties_as_published():
    found = stats.mann_whitney(OZONE_MAY, OZONE_AUGUST)
    assert (found.u, found.exact) == (127.5, False)
    assert found.p_value == pytest.approx(0.0001208, abs=5e-8)


def test_mann_whitney_of_few_values_as_published():
    # SciPy, mannwhitneyu: ages at diagnosis, U = 17, exact p = 0.1111.
    found = stats.mann_whitney([19, 22, 16, 29, 24], [20, 11, 17, 12])
    assert (found.u, found.exact) == (17, True)
    assert found.p_value == pytest.approx(1 / 9)


@pytest.mark.parametrize(
    ("n1", "n2", "critical"),
    # Two-sided critical values at 5 %, R. Milton, "An Extended Table of Critical Values", 1964.
    [(4, 4, 0), (5, 5, 2), (6, 6, 5), (7, 7, 8), (8, 8, 13), (3, 8, 2), (5, 8, 6)],
)
def test_exact_p_values_agree_with_the_table_of_critical_values(n1, n2, critical):
    assert stats._exact_p(critical, n1, n2) <= 0.05
    assert stats._exact_p(critical + 1, n1, n2) > 0.05


def test_mann_whitney_is_two_sided_and_ends_at_one():
    few, more = [4.0, 5.0, 6.0], [1.0, 2.5, 3.0, 9.0]
    there, back = (stats.mann_whitney(*pair) for pair in ((more, few), (few, more)))
    assert there.p_value == back.p_value
    assert there.u + back.u == 12
    assert stats.mann_whitney([1, 4], [2, 3]).p_value == 1.0
    assert stats.mann_whitney([5.0] * 20, [5.0] * 20).p_value == 1.0
    assert stats.mann_whitney([], [1.0]) is None


def test_mann_whitney_raises_no_more_false_alarms_than_it_says():
    draw = random.Random(7)
    alarms = sum(
        stats.mann_whitney(
            [draw.gauss(0, 1) for _number in range(12)], [draw.gauss(0, 1) for _number in range(9)]
        ).p_value
        < 0.05
        for _round in range(1000)
    )
    assert 20 <= alarms <= 70


def test_histogram_bins():
    assert stats.histogram([]) == []
    assert stats.histogram([1.0, 1.0, 1.1, 1.259, 1.26]) == [[1.0, 2], [1.259, 2], [1.585, 1]]
    assert stats.histogram([0.0, -1.0]) == [[0.001, 2]]
    assert stats.histogram([1e9]) == [[1e6, 1]]


@given(st.lists(st.floats(min_value=0, max_value=1e7), min_size=1))
def test_a_histogram_counts_every_value_once(values):
    bins = stats.histogram(values)
    assert sum(count for _edge, count in bins) == len(values)
    assert [edge for edge, _count in bins] == sorted(edge for edge, _count in bins)
    assert all(count for _edge, count in (bins[0], bins[-1]))


@pytest.mark.parametrize(
    ("tokens", "seconds", "rate"), [(50, 2.0, 25.0), (0, 2.0, None), (50, 0.0, None)]
)
def test_tokens_per_second(tokens, seconds, rate):
    assert stats.tokens_per_second(tokens, seconds) == rate


def test_a_summary_of_nothing_says_so():
    summary = stats.summarize([])
    assert summary.pop("count") == 0
    assert set(summary.values()) == {None}


def test_a_summary_is_rounded():
    summary = stats.summarize([1.23456, 2.34567, 3.45678])
    assert (summary["count"], summary["median"], summary["mean"]) == (3, 2.35, 2.35)
    assert stats.summarize([1.23456], digits=3)["max"] == 1.235


def test_a_summary_of_an_array_has_every_figure():
    summary = stats.summarize(array("d", range(1, 1002)))
    assert summary["p50"] == summary["median"] == 501
    assert (summary["p90"], summary["p95"], summary["p99"]) == (901, 951, 991)
    assert (summary["p999"], summary["min"], summary["max"]) == (1000, 1, 1001)
    assert summary["median_low"] < 501 < summary["median_high"]


def test_thinning_out_is_even_and_keeps_what_fits():
    assert stats.evenly([1, 2, 3], 3) == [1, 2, 3]
    assert stats.evenly(range(100), 10) == list(range(0, 100, 10))
    assert len(stats.evenly(range(2001), 2000)) == 2000
