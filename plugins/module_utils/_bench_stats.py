# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Statistics over the samples of a benchmark; None where the samples do not carry a figure."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 1000
LEAST_FOR_INTERVAL = 3  # below three values there is no interval worth the name
EXACT_LIMIT = 8  # values on each side up to which Mann-Whitney is counted out
SUMMARY_PERCENTILES = (
    ("p50", 50),
    ("p90", 90),
    ("p95", 95),
    ("p99", 99),
    ("p999", 99.9),
)

# Ten bins per decade from 1 us to 1,000 s, in milliseconds: neighbours differ by 26 %.
BIN_EDGES = tuple(float(f"{10 ** (step / 10):.4g}") for step in range(-30, 61))


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
    """Return a percentile by linear interpolation between the two nearest ranks.

    Type 7 of R. J. Hyndman and Y. Fan, "Sample Quantiles in Statistical Packages", 1996.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"percentile {percent} is not between 0 and 100")
    return _ranked(sorted(values), percent) if values else None


def median(values: Sequence[float]) -> float | None:
    """Return the middle value."""
    return percentile(values, 50)


def median_interval(
    values: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Return a bootstrap confidence interval of the median, the same one for the same values."""
    if len(values) < LEAST_FOR_INTERVAL:
        return None
    return _interval(_resampled_medians(sorted(values), seed), confidence)


def ratio_interval(
    before: Sequence[float], after: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Return a bootstrap confidence interval of median(after) / median(before).

    Both sides are resampled independently. None when a side has fewer than three values or a
    value that is not positive.
    """
    low, high = sorted(before), sorted(after)
    if min(len(low), len(high)) < LEAST_FOR_INTERVAL or min(low[0], high[0]) <= 0:
        return None
    pairs = zip(_resampled_medians(low, seed), _resampled_medians(high, seed + 1))
    return _interval([upper / lower for lower, upper in pairs], confidence)


@dataclass(frozen=True)
class MannWhitney:
    """Outcome of the test.

    Attributes:
        u: pairs in which the first side's value is the greater one; a tie counts one half.
        p_value: two-sided.
        exact: whether p was counted out rather than approximated.
    """

    u: float
    p_value: float
    exact: bool


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> MannWhitney | None:
    """Test whether one of two samples tends to greater values (H. Mann and D. Whitney, 1947).

    Exact for at most eight values on each side without ties. Otherwise the normal approximation,
    its variance corrected for ties and its distance by one half for continuity.
    """
    n1, n2 = len(first), len(second)
    if not n1 or not n2:
        return None
    rank_sum, ties = _rank_sum(first, second)
    u = rank_sum - n1 * (n1 + 1) / 2
    if not ties and max(n1, n2) <= EXACT_LIMIT:
        return MannWhitney(u, _exact_p(round(min(u, n1 * n2 - u)), n1, n2), True)
    n = n1 + n2
    lost = sum(size**3 - size for size in ties) / (n * (n - 1))
    variance = n1 * n2 / 12 * (n + 1 - lost)
    if variance <= 0:
        return MannWhitney(u, 1.0, False)  # all values are the same one
    distance = max(0.0, abs(u - n1 * n2 / 2) - 0.5)
    return MannWhitney(u, math.erfc(distance / math.sqrt(2 * variance)), False)


def histogram(values: Sequence[float]) -> list[list[float]]:
    """Count values, in milliseconds, in bins whose width grows with the value.

    Returns:
        ``[upper edge, count]`` from the first bin that holds something to the last; a value on
        an edge belongs below it. What is shorter than 1 us or longer than 1,000 s is in the
        outermost bin.
    """
    if not values:
        return []
    counts = [0] * len(BIN_EDGES)
    last = len(BIN_EDGES) - 1
    for value in values:
        counts[min(bisect_left(BIN_EDGES, value), last)] += 1
    held = [number for number, count in enumerate(counts) if count]
    return [[BIN_EDGES[number], counts[number]] for number in range(held[0], held[-1] + 1)]


def tokens_per_second(tokens: int, seconds: float) -> float | None:
    """Return a rate; None when no time passed or nothing was generated."""
    return tokens / seconds if tokens > 0 and seconds > 0 else None


def summarize(values: Sequence[float], digits: int = 2) -> dict[str, float | int | None]:
    """Return the figures that a result states about one metric."""
    ordered = sorted(values)
    interval = None
    if len(ordered) >= LEAST_FOR_INTERVAL:
        interval = _interval(_resampled_medians(ordered, 0), 0.95)
    figures: dict[str, float | None] = {
        "median": _ranked(ordered, 50) if ordered else None,
        "mean": mean(ordered),
        "stdev": stdev(ordered),
        "cv_percent": cv_percent(ordered),
        "min": ordered[0] if ordered else None,
        "max": ordered[-1] if ordered else None,
    }
    for name, percent in SUMMARY_PERCENTILES:
        figures[name] = _ranked(ordered, percent) if ordered else None
    figures["median_low"] = interval[0] if interval else None
    figures["median_high"] = interval[1] if interval else None
    summary: dict[str, float | int | None] = {"count": len(ordered)}
    for name, value in figures.items():
        summary[name] = None if value is None else round(value, digits)
    return summary


def evenly(values: Sequence[float], most: int) -> list[float]:
    """Return at most so many of the values, spread evenly over their order."""
    if len(values) <= most:
        return list(values)
    return [values[number * len(values) // most] for number in range(most)]


def _ranked(ordered: Sequence[float], percent: float) -> float:
    rank = (len(ordered) - 1) * percent / 100.0
    low = math.floor(rank)
    high = math.ceil(rank)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def _interval(estimates: list[float], confidence: float) -> tuple[float, float]:
    ordered = sorted(estimates)
    tail = 50.0 * (1 - confidence)
    return _ranked(ordered, tail), _ranked(ordered, 100 - tail)


def _resampled_medians(ordered: Sequence[float], seed: int) -> list[float]:
    """Return the medians of bootstrap samples, without drawing the samples.

    A bootstrap sample is ``ordered[floor(n U)]`` for n uniform U, so that its median stands at the
    middle one of n uniform numbers, which is Beta distributed. This is the bootstrap itself, not
    an approximation of it, and costs the same for ten values and for a million.
    """
    draw = random.Random(seed)  # noqa: S311 - resampling, nothing secret
    n = len(ordered)
    middle = (n + 1) // 2
    medians = []
    for _round in range(RESAMPLES):
        lower = draw.betavariate(middle, n - middle + 1)
        value = ordered[min(n - 1, int(n * lower))]
        if n % 2 == 0:  # the next one is the least of those above
            upper = 1 - (1 - lower) * (1 - draw.random()) ** (1 / (n - middle))
            value = (value + ordered[min(n - 1, int(n * upper))]) / 2
        medians.append(value)
    return medians


def _rank_sum(first: Sequence[float], second: Sequence[float]) -> tuple[float, list[int]]:
    """Return the sum of the first side's ranks, and how many values share each tied rank."""
    marked = sorted([(value, 1) for value in first] + [(value, 0) for value in second])
    total, ties, start = 0.0, [], 0
    while start < len(marked):
        end = start
        while end < len(marked) and marked[end][0] == marked[start][0]:
            end += 1
        own = sum(side for _value, side in marked[start:end])
        total += own * (start + 1 + end) / 2  # the mean of the ranks start+1 .. end
        if end - start > 1:
            ties.append(end - start)
        start = end
    return total, ties


def _exact_p(u: int, n1: int, n2: int) -> float:
    """Return the two-sided p of the smaller U, by counting the orders that give each U."""
    # ways[j][u]: orders of the values so far, j of them of the first side, that give u.
    ways = [[0] * (n1 * n2 + 1) for _side in range(n1 + 1)]
    ways[0][0] = 1
    for rank in range(n1 + n2):
        for own in range(min(rank + 1, n1), 0, -1):
            others = rank + 1 - own  # of the second side, below this one
            if others > n2:
                continue
            for value in range(n1 * n2, others - 1, -1):
                ways[own][value] += ways[own - 1][value - others]
    counts = ways[n1]
    return min(1.0, 2 * sum(counts[: u + 1]) / sum(counts))
