# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Rules for a card's heat, power, clocks and PCI Express link."""

from __future__ import annotations

import math

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_check import (
    LESSER,
    MISSED,
    PASS,
    UNKNOWN,
    Case,
    Found,
    Gpu,
    finding,
    limit_of,
    no_reading,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import INFO

HW_SLOWDOWNS = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
SW_THERMAL = "sw_thermal_slowdown"
# Counters of the hardware's own slowdowns. Those of the software are how GeForce cards stay within
# their limits under load: never alarming.
HW_COUNTERS = ("hw_thermal_slowdown", "hw_power_brake_slowdown")

NANOSECONDS = 1e9
MINUTE_S = 60.0
WATT_TOLERANCE = 0.5  # limits are set in milliwatts and shown in watts
GRAVE_WIDTH = 4  # a link with a quarter of its lanes or less
AT_REST = 0.05  # share of the time with a kernel running: an idle card's desktop makes some percent

# Replays that a healthy link may have, per minute and lane, for generation 1 to 6: NVIDIA/DCGM,
# modules/health/DcgmHealthWatch.cpp.
REPLAYS_PER_LANE = (0.15, 0.3, 0.48, 0.96, 1.92, 3.84)


def judge_heat_and_power(case: Case, gpu: Gpu) -> Found:
    """Judge temperatures, slowdowns, and power."""
    return [
        *_temperature(case, gpu),
        *_margin(case, gpu),
        *_memory_temperature(case, gpu),
        *_hw_slowdown(case, gpu),
        *_sw_thermal(case, gpu),
        *_throttle_time(case, gpu),
        *_power_draw(case, gpu),
        *_power_limit(case, gpu),
    ]


def judge_link(case: Case, gpu: Gpu) -> Found:
    """Judge the PCI Express link: lanes always, generation only under load."""
    return [
        *_width(case, gpu),
        *_generation(case, gpu),
        *_slot(case, gpu),
        *_replays(case, gpu),
    ]


def replay_limit(lanes: int, generation: int) -> int:
    """Return the replays per minute that a healthy link may have (NVIDIA DCGM)."""
    per_lane = REPLAYS_PER_LANE[min(max(generation, 1), len(REPLAYS_PER_LANE)) - 1]
    return math.ceil(lanes * per_lane)


def _temperature(case: Case, gpu: Gpu) -> Found:
    """Judge the temperature: declared limit first, then the card's own slowdown and maximum."""
    check, value = "gpu_temperature", gpu.get("temperature_c")
    if value is None:
        return no_reading(case, check, gpu)
    declared = case.expected.get("temperature_max_c")
    limits = [
        (MISSED, declared, "over the declared temperature_max_c", False, "the declaration"),
        (
            MISSED,
            gpu.get("temperature_slowdown_c"),
            "at or over the card's slowdown threshold",
            True,
            "the card: slowdown threshold",
        ),
        (
            LESSER,
            gpu.get("temperature_max_c"),
            "over the card's maximum for operation",
            False,
            "the card: maximum for operation",
        ),
    ]
    known = [entry for entry in limits if entry[1] is not None]
    for outcome, limit, words, reached, source in known:
        if value > limit or (reached and value == limit):
            return finding(
                case, check, outcome, value, gpu=gpu, limit=limit, evidence=words, source=source
            )
    if not known:
        evidence = "the card names no threshold"
        return finding(case, check, PASS, value, gpu=gpu, evidence=evidence)
    _outcome, limit, words, _reached, source = known[0]
    return finding(
        case, check, PASS, value, gpu=gpu, limit=limit, evidence=f"not {words}", source=source
    )


def _margin(case: Case, gpu: Gpu) -> Found:
    """Judge the distance to the limit that data-centre cards give in place of thresholds.

    A card that doesn't support such limits may answer 0 or less when it is cold (gpud's note on
    the H100), so that only a card which names its slowdown margin is believed.
    """
    check, margin = "gpu_temperature_margin", gpu.get("temperature_margin_c")
    if margin is None:
        return no_reading(case, check, gpu)
    slowdown = gpu.get("temperature_slowdown_margin_c")
    trusted = gpu.get("temperature_tlimit_supported", slowdown is not None)
    if margin > 0:
        evidence = "degrees that are left to the card's limit"
        return finding(case, check, PASS, margin, gpu=gpu, limit=0, evidence=evidence)
    if not trusted:
        evidence = "not believed: the card supports no such limit"
        return finding(case, check, INFO, margin, gpu=gpu, evidence=evidence)
    if slowdown is not None and margin <= slowdown:
        evidence = "at or below the margin at which the card slows down"
        return finding(case, check, MISSED, margin, gpu=gpu, limit=slowdown, evidence=evidence)
    return finding(
        case, check, LESSER, margin, gpu=gpu, limit=0, evidence="no distance to the card's limit"
    )


def _memory_temperature(case: Case, gpu: Gpu) -> Found:
    check = "gpu_memory_temperature"
    value, limit = gpu.get("temperature_memory_c"), gpu.get("temperature_memory_max_c")
    if value is None:
        return no_reading(case, check, gpu)
    outcome = MISSED if limit is not None and value >= limit else PASS
    evidence = "the card's threshold" if limit is not None else "the card names no threshold"
    return finding(case, check, outcome, value, gpu=gpu, limit=limit, evidence=evidence)


def _hw_slowdown(case: Case, gpu: Gpu) -> Found:
    check, reasons = "gpu_hw_slowdown", gpu.get("clocks_event_reasons")
    if reasons is None:
        return no_reading(case, check, gpu)
    active = [reason for reason in HW_SLOWDOWNS if reason in reasons]
    outcome = MISSED if active else PASS
    remedy = ""
    if "hw_power_brake_slowdown" in active:
        remedy = "look at the power supply and its cables: it asks the card to hold back"
    evidence = "reasons for which the hardware holds the clocks down"
    return finding(
        case, check, outcome, active, gpu=gpu, limit=[], evidence=evidence, remedy=remedy
    )


def _sw_thermal(case: Case, gpu: Gpu) -> Found:
    """Tell of the driver's slowdown; it matters when it was there a long time ago and still is."""
    check, reasons = "gpu_sw_thermal", gpu.get("clocks_event_reasons")
    if reasons is None:
        return no_reading(case, check, gpu)
    if SW_THERMAL not in reasons:
        return finding(case, check, PASS, 0, gpu=gpu, evidence="not active")
    before = case.before(gpu) or {}
    minutes = 0.0
    if SW_THERMAL in (before.get("clocks_event_reasons") or []):
        minutes = round(case.elapsed_s / MINUTE_S, 1)
    limit = limit_of(case, check) or 0
    if minutes and minutes >= limit:
        evidence = "active in this reading and the earlier one"
        return finding(case, check, MISSED, minutes, gpu=gpu, limit=limit, evidence=evidence)
    evidence = "active now; how cards stay within their limits under load"
    if case.lacking:
        evidence += f"; {_needed(case)} to tell whether it lasts"
    return finding(case, check, INFO, minutes, gpu=gpu, limit=limit, evidence=evidence)


def _throttle_time(case: Case, gpu: Gpu) -> Found:
    check, counters = "gpu_throttle_time", gpu.get("throttle_ns")
    if not counters:
        return no_reading(case, check, gpu)
    known = {name: counters[name] for name in HW_COUNTERS if counters.get(name) is not None}
    if not known:
        return no_reading(case, check, gpu, "the card counts no slowdown of the hardware's")
    old = (case.before(gpu) or {}).get("throttle_ns") or {}
    both = [name for name in known if old.get(name) is not None]
    if not case.elapsed_s or not both:
        seconds = round(max(known.values()) / NANOSECONDS, 3)
        evidence = f"since the driver was loaded; {_needed(case)} to judge it"
        return finding(case, check, INFO, seconds, gpu=gpu, unit="s", evidence=evidence)
    grown = {name: _growth(known[name], old[name]) for name in both}
    name = max(grown, key=lambda key: grown[key])
    ratio = min(round(grown[name] / NANOSECONDS / case.elapsed_s, 4), 1.0)
    limit = limit_of(case, check) or 0
    outcome = MISSED if ratio > limit else PASS
    evidence = f"{name} in the last {_span(case.elapsed_s)}"
    return finding(case, check, outcome, ratio, gpu=gpu, limit=limit, evidence=evidence)


def _power_draw(case: Case, gpu: Gpu) -> Found:
    value = gpu.get("power_draw_watts")
    if value is None:
        return no_reading(case, "gpu_power_draw", gpu)
    return finding(case, "gpu_power_draw", PASS, value, gpu=gpu, evidence="it can be read")


def _power_limit(case: Case, gpu: Gpu) -> Found:
    check, value = "gpu_power_limit", gpu.get("power_limit_watts")
    if value is None:
        return no_reading(case, check, gpu)
    default = gpu.get("power_default_limit_watts")
    if check in case.policy.declared:
        limit = limit_of(case, check)
        outcome = PASS if abs(value - limit) <= WATT_TOLERANCE else MISSED
        return finding(
            case, check, outcome, value, gpu=gpu, limit=limit, evidence="the policy's power limit"
        )
    source = "the card: default power limit"
    if default is not None and abs(value - default) > WATT_TOLERANCE:
        evidence = "not the card's default, and no policy says what it should be"
        return finding(
            case, check, INFO, value, gpu=gpu, limit=default, evidence=evidence, source=source
        )
    return finding(
        case, check, PASS, value, gpu=gpu, limit=default, evidence="the card's default",
        source=source,
    )  # fmt: skip


def _width(case: Case, gpu: Gpu) -> Found:
    check = "gpu_pcie_width"
    current, most = gpu.get("pcie_link_width_current"), gpu.get("pcie_link_width_max")
    declared = check in case.policy.declared
    if declared:
        most = int(limit_of(case, check))
    if not current or not most:
        return no_reading(case, check, gpu)
    outcome = PASS if current >= most else LESSER
    if current * GRAVE_WIDTH <= most:
        outcome = MISSED
    evidence = "lanes that the policy wants" if declared else "lanes that card and slot could use"
    return finding(case, check, outcome, current, gpu=gpu, limit=most, evidence=evidence)


def _generation(case: Case, gpu: Gpu) -> Found:
    check = "gpu_pcie_generation"
    current, most = gpu.get("pcie_link_gen_current"), gpu.get("pcie_link_gen_max")
    if check in case.policy.declared:
        most = int(limit_of(case, check))
    if not current or not most:
        return no_reading(case, check, gpu)
    load, pstate = gpu.get("utilization_gpu_ratio"), gpu.get("performance_state")
    if current >= most:
        evidence = "generation that card and slot could use"
        return finding(case, check, PASS, current, gpu=gpu, limit=most, evidence=evidence)
    if load is None and pstate is None:
        evidence = "neither load nor performance state is known, so it can't be judged"
        return finding(case, check, UNKNOWN, current, gpu=gpu, limit=most, evidence=evidence)
    if (load or 0) <= AT_REST and pstate != 0:
        evidence = "idle, so not judged: an idle link is slow on purpose"
        return finding(case, check, INFO, current, gpu=gpu, evidence=evidence)
    evidence = "under load; generation that card and slot could use"
    return finding(case, check, MISSED, current, gpu=gpu, limit=most, evidence=evidence)


def _slot(case: Case, gpu: Gpu) -> Found:
    check = "gpu_pcie_slot"
    slot, card = gpu.get("pcie_link_gen_max"), gpu.get("pcie_link_gen_gpu_max")
    if not slot or not card:
        return no_reading(case, check, gpu)
    outcome = PASS if slot >= card else MISSED
    evidence = "generation that the card could use"
    return finding(case, check, outcome, slot, gpu=gpu, limit=card, evidence=evidence)


def _replays(case: Case, gpu: Gpu) -> Found:
    check, count = "gpu_pcie_replays", gpu.get("pcie_replay_count")
    if count is None:
        return no_reading(case, check, gpu)
    old = (case.before(gpu) or {}).get("pcie_replay_count")
    if not case.elapsed_s or old is None:
        evidence = f"since the driver was loaded; {_needed(case)} to judge the rate"
        return finding(case, check, INFO, count, gpu=gpu, unit="", evidence=evidence)
    lanes, generation = gpu.get("pcie_link_width_current"), gpu.get("pcie_link_gen_current")
    if check in case.policy.declared:
        limit: float = limit_of(case, check)
    elif lanes and generation:
        limit = replay_limit(lanes, generation)
    else:
        evidence = "lanes and generation aren't known, so there is no limit"
        return finding(case, check, UNKNOWN, count, gpu=gpu, unit="", evidence=evidence)
    # A shorter span would make a rate of a single replay.
    minutes = max(case.elapsed_s, MINUTE_S) / MINUTE_S
    rate = round(_growth(count, old) / minutes, 2)
    outcome = MISSED if rate > limit else PASS
    evidence = f"replays in the last {_span(case.elapsed_s)}"
    return finding(case, check, outcome, rate, gpu=gpu, limit=limit, evidence=evidence)


def _needed(case: Case) -> str:
    why = f" ({case.lacking})" if case.lacking else ""
    return f"an earlier reading is needed{why}"


def _growth(value: float, old: float) -> float:
    """Return by how much a counter grew; one that fell began anew with the driver."""
    return value - old if old <= value else value


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 2 * MINUTE_S else f"{seconds / MINUTE_S:.0f} min"
