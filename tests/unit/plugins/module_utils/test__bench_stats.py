# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

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
