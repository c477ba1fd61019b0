# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The counters of an earlier run, kept on the host so that the next run can rate its own.

A rate needs two readings. Two within one run, some seconds apart, would mislead: a link at rest
sends nothing, so it sends nothing again either, and a bad riser would pass.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import write_atomic
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_card import (
    MINUTE_S,
    SW_THERMAL,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy import Policy

SCHEMA = 1
LIMIT_BYTES = 1 << 20  # a reading of sixteen cards has some four thousand
# The limits of PCI Express replays are per minute (NVIDIA/DCGM): what is younger is no rate.
MIN_AGE_S = MINUTE_S
# As far as Xid messages are looked back for (gpu_validation_history_days).
MAX_AGE_S = 30 * 86400.0
HOLD_MIN = 30  # where the policy leaves gpu_sw_thermal out
# A counter is read some milliseconds before or after the time that is noted with it.
ALL_THE_TIME = 0.9

Reading = dict[str, Any]


@dataclass(frozen=True)
class Recalled:
    """What an earlier run has left.

    Attributes:
        reading: its counters, in the form of ``judge``'s ``earlier``; None without any to rate by.
        lacking: why there is none; empty when there is one.
        replace: whether the present counters shall take its place.
    """

    reading: Reading | None
    lacking: str
    replace: bool


def reading_of(facts: Mapping[str, Any], boot: str, now: float) -> Reading:
    """Return what is kept of a result of ``gpu_info``: the counters of each card that works."""
    gpus = []
    for gpu in facts.get("gpus") or []:
        if gpu["state"] != "ok" or not gpu.get("uuid"):
            continue
        kept: dict[str, Any] = {"uuid": gpu["uuid"], "clocks_event_reasons": []}
        if SW_THERMAL in (gpu.get("clocks_event_reasons") or []):
            kept["clocks_event_reasons"] = [SW_THERMAL]
        for name in ("pcie_replay_count", "throttle_ns"):
            if gpu.get(name) is not None:
                kept[name] = gpu[name]
        gpus.append(kept)
    driver = (facts.get("driver") or {}).get("version") or ""
    return {"schema": SCHEMA, "boot_id": boot, "driver": driver, "time": now, "gpus": gpus}


def recall(path: str, facts: Mapping[str, Any], boot: str, now: float, policy: Policy) -> Recalled:
    """Return the counters that an earlier run has kept, where the present ones go on from them.

    Args:
        path: the file.
        facts: what ``gpu_info`` returned now.
        boot: the present boot's id; empty when it isn't known.
        now: the time, in seconds since 1970.
        policy: the tables.
    """
    present = reading_of(facts, boot, now)
    if not present["gpus"]:
        return Recalled(None, "no GPU that works has a UUID", False)
    if not boot:
        return Recalled(None, "/proc does not say which boot this is", False)
    kept, problem = _load(path)
    if kept is None:
        return Recalled(None, problem, os.path.isdir(os.path.dirname(path)))
    age_s = now - kept["time"]
    past = _past_use(kept, present, age_s)
    if past:
        return Recalled(None, f"{path} is {past}", True)
    if age_s < MIN_AGE_S:
        # Not replaced, so that it gets old enough however often runs follow each other.
        young = f"{age_s:.0f} s old, wanted at least {MIN_AGE_S:.0f} s"
        return Recalled(None, f"{path} is {young}", False)
    hold_s = _hold_s(policy)
    now_of = {gpu["uuid"]: gpu for gpu in present["gpus"]}
    gpus = [_with_heat(gpu, now_of.get(gpu["uuid"], {}), age_s, hold_s) for gpu in kept["gpus"]]
    return Recalled({"time": kept["time"], "gpus": gpus}, "", age_s >= hold_s)


def _past_use(kept: Reading, present: Reading, age_s: float) -> str:
    """Say why the present counters do not go on from the kept ones; empty when they do."""
    if kept["boot_id"] != present["boot_id"]:
        return "from before the last boot"
    if kept["driver"] != present["driver"]:
        then, now = kept["driver"] or "unknown", present["driver"] or "unknown"
        return f"from driver {then}, now it is {now}"
    if age_s < 0:
        return "from a time that the clock has not reached"
    if age_s > MAX_AGE_S:
        return f"older than {MAX_AGE_S / 86400:.0f} days"
    return ""


def keep(path: str, facts: Mapping[str, Any], boot: str, now: float) -> str:
    """Put the present counters into the file, as a whole and durably; return why it can't be done.

    A directory is not made: who it belongs to is decided by the role that makes it.
    """
    data = json.dumps(reading_of(facts, boot, now), sort_keys=True).encode() + b"\n"
    try:
        write_atomic(path, data)
    except OSError as error:
        return f"{error.strerror or error}"
    return ""


def _hold_s(policy: Policy) -> float:
    """Return the age at which a reading is replaced: that which gpu_sw_thermal has to reach."""
    check = policy.checks.get("gpu_sw_thermal")
    minutes = check.limit if check is not None and check.limit else HOLD_MIN
    return min(max(minutes * MINUTE_S, MIN_AGE_S), MAX_AGE_S)


def _with_heat(
    old: Mapping[str, Any], gpu: Mapping[str, Any], age_s: float, hold_s: float
) -> dict[str, Any]:
    """Return a card's kept reading, without its heat where that did not last until now.

    Two moments under load, days apart, say nothing of the time in between; the driver's counter
    does. Without one only a span of about the limit's length counts.
    """
    counters = [(part.get("throttle_ns") or {}).get(SW_THERMAL) for part in (old, gpu)]
    if None in counters:
        lasted = age_s <= 2 * hold_s
    else:
        lasted = (counters[1] - counters[0]) / 1e9 >= ALL_THE_TIME * age_s
    return dict(old) if lasted else {**old, "clocks_event_reasons": []}


def _load(path: str) -> tuple[Reading | None, str]:
    """Return what is in the file, or why nothing is.

    The directory may belong to another account, so that neither a link nor a pipe is followed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(file.fileno())
            plain = stat.S_ISREG(about.st_mode) and about.st_size <= LIMIT_BYTES
            found = json.loads(file.read()) if plain else None
    except FileNotFoundError:
        return None, f"{path} does not exist yet"
    except OSError as error:
        return None, f"{path} can't be read: {error.strerror or error}"
    except ValueError:
        found = None
    if not _fits(found):
        return None, f"{path} holds no reading of this collection"
    return found, ""


def _fits(found: Any) -> bool:
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        return False
    texts = all(isinstance(found.get(name), str) for name in ("boot_id", "driver"))
    gpus = found.get("gpus")
    return (
        texts and _is_number(found.get("time")) and isinstance(gpus, list) and all(map(_card, gpus))
    )


def _card(gpu: Any) -> bool:
    if not isinstance(gpu, dict) or not isinstance(gpu.get("uuid"), str):
        return False
    counters = gpu.get("throttle_ns", {})
    if not isinstance(counters, dict) or not isinstance(gpu.get("clocks_event_reasons"), list):
        return False
    return all(map(_is_number, [gpu.get("pcie_replay_count", 0), *counters.values()]))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
