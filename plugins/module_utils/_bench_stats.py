# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Statistics over the samples of a benchmark; None where the samples do not carry a figure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

RESAMPLES = 1000


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean."""
    return math.fsum(values) / len(values) if values else None


def stdev(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (n - 1); it takes two values to have one."""
    centre = mean(values)
    if centre is None or len(values) < 2:
        return None
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def cv_percent(values: Sequence[float]) -> float | None:
    """Return the coefficient of variation: standard deviation over mean, in percent."""
    centre, spread = mean(values), stdev(values)
    if spread is None or not centre:
        return None
    return 100.0 * spread / abs(centre)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return a percentile by linear interpolation between the two nearest ranks."""
    if not 0 <= percent <= 100:
        raise ValueError(f"percentile {percent} is not between 0 and 100")
    if not values:
        return None
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percent / 100.0
    low = math.floor(rank)
    high = math.ceil(rank)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def median(values: Sequence[float]) -> float | None:
    """Return the middle value."""
    return percentile(values, 50)


def median_interval(
    values: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Return a bootstrap confidence interval of the median, the same one for the same values.

    Below three values there is no interval worth the name.
    """
    if len(values) < 3:
        return None
    draw = random.Random(seed)  # noqa: S311 - resampling, nothing secret
    medians = [median(draw.choices(values, k=len(values))) for _round in range(RESAMPLES)]
    tail = 50.0 * (1 - confidence)
    low = percentile([value for value in medians if value is not None], tail)
    high = percentile([value for value in medians if value is not None], 100 - tail)
    return None if low is None or high is None else (low, high)


def tokens_per_second(tokens: int, seconds: float) -> float | None:
    """Return a rate; None when no time passed or nothing was generated."""
    return tokens / seconds if tokens > 0 and seconds > 0 else None


def summarize(values: Sequence[float], digits: int = 2) -> dict[str, float | int | None]:
    """Return the figures that a result states about one metric."""
    interval = median_interval(values)
    figures: dict[str, float | None] = {
        "median": median(values),
        "mean": mean(values),
        "stdev": stdev(values),
        "cv_percent": cv_percent(values),
        "min": min(values) if values else None,
        "max": max(values) if values else None,
        "p90": percentile(values, 90),
        "p95": percentile(values, 95),
        "p99": percentile(values, 99),
        "median_low": interval[0] if interval else None,
        "median_high": interval[1] if interval else None,
    }
    summary: dict[str, float | int | None] = {"count": len(values)}
    for name, value in figures.items():
        summary[name] = None if value is None else round(value, digits)
    return summary
