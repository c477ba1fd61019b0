# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Whether a model really runs on a GPU: the engine's word, held against what the cards show.

An engine may say that a model lies in GPU memory while the processors do its work. Ollama before
0.30 tells an estimate made before the load; later ones tell what they found in the log of their
runner and, where they found nothing, the size of the file as if all of it lay on the GPU
(``llm/llama_server.go``). Users met it: ollama/ollama#10445, #12586, #12722. So three readings,
taken while the model generates, have to agree with the engine: one of its processes is on a card,
the memory is taken, and the card computes.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
)

CHECK = "gpu_used"

# Part of the claimed memory that has to be taken. What a process holds is more than its weights
# and cache (CUDA's context alone is some hundred MB), but the claim may be Ollama's estimate from
# before the load, which is generous. Half lies far from both a good estimate and a bare context.
MEMORY_SHARE = 0.5
# Percent of time with a kernel running. A card at rest shows 0 to 2, one that draws a desktop a
# little more; a single stream of tokens keeps the kernels coming and shows tens of percent.
BUSY_PERCENT = 5.0
# NVML averages utilisation over 1/6 s to 1 s, depending on the card (nvml.h, nvmlUtilization_t):
# only a reading so late in a generation speaks of nothing but that generation.
PERIOD_S = 1.0
LOST = frozenset({15, 16})  # nvml.h, nvmlReturn_t: GPU is lost, reset required

# What a reading says about a claim. A card that has no such reading says nothing; a reading that
# could not be taken is another matter.
YES, NO, NOT_TOLD, NOT_SEEN = "yes", "no", "not told", "not seen"


@dataclass(frozen=True)
class Claim:
    """What an engine says about where a model lies.

    Attributes:
        ratio: part of the model in GPU memory, 0 to 1; None when it is not known.
        said: the same in words, with its figures.
        held_bytes: GPU memory that all of the engine's models take by its own account.
        reserved_ratio: part of each card's memory that the engine takes, where it says that.
        otherwise: the status when the ratio is not known.
    """

    ratio: float | None
    said: str
    held_bytes: int | None = None
    reserved_ratio: float | None = None
    otherwise: str = FAIL


@dataclass(frozen=True)
class Process:
    """A process on a card; memory in bytes, None when the card doesn't tell."""

    pid: int
    name: str = ""
    memory: int | None = None

    def __str__(self) -> str:
        who = program_of(self.name) or "a process without a name"
        holds = f" holds {amount(self.memory)}" if self.memory is not None else ""
        return f"{who} (pid {self.pid}){holds}"


@dataclass(frozen=True)
class Card:
    """The most that a card showed during a generation; None is a reading that it doesn't have.

    Attributes:
        index: number of the GPU.
        busy_percent: time with a kernel running.
        used, total: memory in bytes.
        processes: those that use it.
        failed: why its last reading failed.
        lost: whether the driver says that it is gone.
    """

    index: int
    busy_percent: float | None = None
    used: int | None = None
    total: int | None = None
    processes: tuple[Process, ...] | None = None
    failed: str = ""
    lost: bool = False


@dataclass(frozen=True)
class Seen:
    """What was seen of the cards while a model generated.

    Attributes:
        cards: one entry per card.
        samples: readings within the generation whose utilisation speaks of it alone.
        lasted_s: from the first token to the last of these readings.
        why: why there are none; empty when nobody looked.
        blind: whether there are none because the cards could not be read, rather than because of
            the model or of where the engine is.
    """

    cards: tuple[Card, ...] = ()
    samples: int = 0
    lasted_s: float = 0.0
    why: str = ""
    blind: bool = False


@dataclass(frozen=True)
class Owners:
    """How the engine's processes are told from others.

    Attributes:
        pids: the process that listens at the engine's address, and all below it.
        known: whether it is the engine itself rather than a proxy before a container, so that a
            process outside of ``pids`` is another's.
        names: patterns of the engine's programs.
    """

    pids: frozenset[int] = frozenset()
    known: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What is wanted.

    Attributes:
        ratio: least part of the model in GPU memory.
        declared: whether the host is declared to have GPUs, so that it is a failure when they
            can't be read, and a warning when the model gives no time to read them.
    """

    ratio: float = 1.0
    declared: bool = False


def judge_used(model: str, claim: Claim, seen: Seen, owners: Owners, limits: Limits) -> Verdict:
    """Judge whether a model runs on a GPU.

    The value is the part of the model that lies in GPU memory; a claim that the cards contradict
    counts as 0.
    """
    value = None if claim.ratio is None else round(claim.ratio, 4)
    cards = describe(seen, owners)
    if value is None:
        status, evidence = claim.otherwise, _joined(claim.said, cards)
    elif falls_short(claim, limits):
        status, evidence = FAIL, _joined(claim.said, cards or seen.why)
    elif seen.samples:
        against, doubts = _objections(claim, seen, owners)
        if against:
            status, value = FAIL, 0.0
            evidence = f"the engine says {claim.said}, but {', '.join(against)}; {cards}"
        else:
            status = WARN if doubts else PASS
            uncertain = f"not certain: {', '.join(doubts)}" if doubts else ""
            evidence = _joined(f"{claim.said}; {cards}", uncertain)
    elif seen.why:
        status = PASS if not limits.declared else FAIL if seen.blind else WARN
        evidence = f"{claim.said}; whether a GPU does the work is not known: {seen.why}"
        if status == FAIL:
            evidence += "; GPUs are expected and have to be readable"
    else:  # nobody looked
        status, evidence = PASS, claim.said
    return Verdict(CHECK, status, model, value, limits.ratio, "", evidence)


def _objections(claim: Claim, seen: Seen, owners: Owners) -> tuple[list[str], list[str]]:
    """Return what speaks against an engine's claim, and what keeps it from being certain."""
    found = readings(claim, seen, owners)
    against = [text for answer, text in found.values() if answer == NO]
    doubts = [text for answer, text in found.values() if answer == NOT_SEEN]
    doubts += [f"GPU {card.index} failed" for card in seen.cards if card.failed]
    if YES not in (found["process"][0], found["work"][0]):  # memory alone may be anybody's
        doubts.append("the cards tell neither processes nor utilisation")
    return against, doubts


def falls_short(claim: Claim, limits: Limits) -> bool:
    """Tell whether the engine itself says that too little of the model lies on a GPU."""
    return claim.ratio is not None and round(claim.ratio, 4) < limits.ratio


def readings(claim: Claim, seen: Seen, owners: Owners) -> dict[str, tuple[str, str]]:
    """Return what processes, memory and utilisation say, each with what speaks against the claim.

    A lost card does no work, whatever it showed before. Memory and utilisation count on the cards
    where the engine is; where no list of processes tells that, on all of them. A list that is
    empty on every card while the memory is taken is one that doesn't reach out of a container.
    """
    cards = [card for card in seen.cards if not card.lost]
    if not cards:
        gone = "the driver has lost every GPU"
        return dict.fromkeys(("process", "memory", "work"), (NO, gone))
    pairs = engine_processes(cards, owners)
    where = [card for card in cards if card.index in {index for index, _one in pairs}] or cards
    needed = _needed(claim, where)
    used = _sum(card.used for card in where)
    taken = used is not None and used >= needed
    process = YES
    if not pairs:
        blind = any(card.processes is None for card in cards)
        hidden = taken and not any(card.processes for card in cards)
        process = NOT_TOLD if blind or hidden else NO
    held = _sum(one.memory for _index, one in pairs) if pairs else None
    least = min((figure for figure in (held, used) if figure is not None), default=None)
    memory = NOT_TOLD if least is None else YES if least >= needed else NO
    busy = max((card.busy_percent for card in where if card.busy_percent is not None), default=None)
    if busy is None:
        work = NOT_TOLD
    elif busy > BUSY_PERCENT:
        work = YES
    else:
        work = NO if seen.lasted_s >= PERIOD_S else NOT_SEEN
    return {
        "process": (process, "no process of the engine is on a GPU"),
        "memory": (memory, f"{amount(least or 0)} are taken, wanted at least {amount(needed)}"),
        "work": (
            work,
            f"a GPU was at most {busy or 0:g} % busy in {seen.lasted_s:.1f} s,"
            f" wanted more than {BUSY_PERCENT:g} %",
        ),
    }


def engine_processes(cards: Iterable[Card], owners: Owners) -> list[tuple[int, Process]]:
    """Return the engine's processes, each with the number of its card.

    Those of the engine's own tree go first. Where that isn't known, as when a proxy listens for a
    container, those with the name of its programs do. In a container the driver tells the numbers
    of the host, under which there is neither a process nor a name: such a one may be the engine's.
    """
    every = [(card.index, one) for card in cards for one in card.processes or ()]
    own = [pair for pair in every if pair[1].pid in owners.pids]
    if not own and not owners.known:
        own = [pair for pair in every if has_name(pair[1].name, owners.names)]
    return own or [pair for pair in every if not pair[1].name]


def has_name(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a program's name, with or without a path and arguments, matches a pattern."""
    program = program_of(name)
    return any(fnmatch.fnmatchcase(program, pattern) for pattern in patterns)


def program_of(name: str) -> str:
    """Return a program's name without path and arguments."""
    return name.partition(" ")[0].rpartition("/")[2]


def seen_between(
    lines: Sequence[Mapping[str, Any]],
    first: float,
    last: float,
    why: str = "",
    skip_s: float = 0.0,
) -> Seen:
    """Gather what a sampler wrote between two times, see ``_bench_sampler_child``.

    Processes and memory are as they are at a reading. Utilisation is an average, and at the
    beginning it may be of another model's work: then it is left out.

    Args:
        lines: its lines.
        first: when the first token came, by the sampler's clock.
        last: when the last one came.
        why: the reason when no reading lies between them and none failed either.
        skip_s: for how long after the first token utilisation is left out; readings of that time
            alone are none.
    """
    inside = [line for line in lines if first <= line.get("at", first - 1) <= last]
    taken = [line for line in inside if "gpu" in line]
    samples = sum(line["at"] >= first + skip_s for line in taken)
    if not samples:
        missed = [str(line["why"]) for line in inside if line.get("missed") == "gpu"]
        return Seen(why=missed[-1] if missed else why)
    found: dict[int, list[Mapping[str, Any]]] = {}
    for line in taken:
        for card in line["gpu"]:
            told = card if line["at"] >= first + skip_s else {**card, "util_percent": None}
            found.setdefault(card["index"], []).append(told)
    cards = tuple(_card(index, found[index]) for index in sorted(found))
    return Seen(cards, samples, taken[-1]["at"] - first)


def _card(index: int, told: Sequence[Mapping[str, Any]]) -> Card:
    good = [one for one in told if "failed" not in one]
    processes: dict[int, Process] = {}
    lists = [one["processes"] for one in good if one.get("processes") is not None]
    for entry in (entry for listed in lists for entry in listed):
        one = Process(entry["pid"], entry.get("name", ""), entry.get("memory_bytes"))
        before = processes.setdefault(one.pid, one)
        if (one.memory or 0) > (before.memory or 0):
            processes[one.pid] = one
    last = told[-1]
    return Card(
        index,
        busy_percent=_most(good, "util_percent"),
        used=_most(good, "memory_used_bytes"),
        total=_most(good, "memory_total_bytes"),
        processes=tuple(processes[pid] for pid in sorted(processes)) if lists else None,
        failed=str(last.get("failed", "")),
        lost=last.get("code") in LOST,
    )


def describe(seen: Seen, owners: Owners) -> str:
    """Say what the cards showed: those where the engine is, and those that failed; else all."""
    pairs = engine_processes([card for card in seen.cards if not card.lost], owners)
    on = {index for index, _one in pairs}
    parts = []
    for card in seen.cards:
        if card.failed:
            parts.append(f"GPU {card.index}: {card.failed}")
            continue
        if on and card.index not in on:
            continue
        facts = [] if card.busy_percent is None else [f"{card.busy_percent:g} % busy"]
        facts += [str(one) for index, one in pairs if index == card.index]
        if card.index not in on:
            others = [str(one) for one in card.processes or ()]
            facts += others or (["no process"] if card.processes is not None else [])
            if card.used is not None:
                of = f" of {amount(card.total)}" if card.total else ""
                facts.append(f"{amount(card.used)}{of} used")
        parts.append(f"GPU {card.index}: {', '.join(facts) or 'no reading'}")
    return "; ".join(parts)


def as_dict(model: str, claim: Claim, seen: Seen, owners: Owners) -> dict[str, Any]:
    """Return the figures behind a verdict, as a result carries them."""
    own = {one.pid for _index, one in engine_processes(seen.cards, owners)}
    return {
        "model": model,
        "ratio": None if claim.ratio is None else round(claim.ratio, 4),
        "samples": seen.samples,
        "seconds": round(seen.lasted_s, 3),
        "why": seen.why,
        "gpus": [
            {
                "index": card.index,
                "busy_percent": card.busy_percent,
                "memory_used_bytes": card.used,
                "failed": card.failed,
                "processes": [
                    {
                        "pid": one.pid,
                        "name": one.name,
                        "memory_bytes": one.memory,
                        "engine": one.pid in own,
                    }
                    for one in card.processes or ()
                ],
            }
            for card in seen.cards
        ],
    }


def amount(size: float | None) -> str:
    """Return bytes in a unit that suits them."""
    size = size or 0
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor / 10:
            return f"{size / factor:.2f} {unit}"
    return f"{size:g} B"


def amounts(part: float, whole: float) -> str:
    """Return one number of bytes of another, in the unit that suits the second."""
    unit = amount(whole).rpartition(" ")[2]
    factor = {"GB": 1e9, "MB": 1e6, "B": 1}[unit]
    digits = 0 if unit == "B" else 2
    return f"{part / factor:.{digits}f} of {whole / factor:.{digits}f} {unit}"


def _needed(claim: Claim, cards: Iterable[Card]) -> float:
    """Return the bytes that have to be taken at least: one, where the engine gives no figure."""
    wanted = claim.held_bytes
    if wanted is None and claim.reserved_ratio is not None:
        total = _sum(card.total for card in cards)
        wanted = None if total is None else int(claim.reserved_ratio * total)
    return max(1.0, MEMORY_SHARE * (wanted or 0))


def _sum(values: Iterable[int | None]) -> int | None:
    """Return the sum of values that are all known; None otherwise, also when there are none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if known and len(known) == len(found) else None


def _most(told: Iterable[Mapping[str, Any]], key: str) -> Any:
    return max((one[key] for one in told if one.get(key) is not None), default=None)


def _joined(said: str, more: str) -> str:
    return f"{said}; {more}" if more else said
