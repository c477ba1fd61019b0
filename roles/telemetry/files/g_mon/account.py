# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collector says of itself: events, metrics that aren't of a GPU, and whom it misses."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import gauges
from .settings import Settings, printable, unreadable

TAIL_BYTES = 1024 * 1024  # thousands of events


def last_events(settings: Settings, count: int) -> list[str]:
    """Return the last lines of the events file, without what could steer a terminal."""
    try:
        with settings.events.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(settings.events, error) from error
    return [printable(line) for line in lines[-count:]]


@dataclass(frozen=True)
class Metrics:
    """What the textfile says of the collection itself."""

    success: bool | None  # None: it doesn't say
    state: str
    last_success: float | None
    mode: int

    @property
    def failing(self) -> bool:
        """Whether the last collection failed; one that was stopped has not."""
        return self.success is False and self.state != "stopped"


def metrics(settings: Settings) -> Metrics | None:
    """Read the textfile; None when there is none."""
    try:
        text = settings.textfile.read_text(encoding="utf-8", errors="replace")
        mode = settings.textfile.stat().st_mode & 0o777
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(settings.textfile, error) from error
    success = _sample_of(text, r"hx_infra_gpu_collect_success")
    state = re.search(r'^hx_infra_gpu_collect_state\{state="([^"]*)"\} 1(?:\.0)?$', text, re.M)
    return Metrics(
        success=None if success is None else success == 1,
        state=state[1] if state else "",
        last_success=_sample_of(text, r"hx_infra_gpu_last_success_timestamp_seconds"),
        mode=mode,
    )


class Missing(NamedTuple):
    """A GPU that should answer and doesn't, as the collector has it."""

    uuid: str  # empty for one that has told it to nobody yet
    text: str  # what is wrong, and what to do


def missing(settings: Settings) -> list[Missing] | None:
    """Return the GPUs that the last sample lacks; None when the collector noted none of them.

    It knows every GPU that answered once, however long ago, until an operator forgets it.
    """
    try:
        state: Any = json.loads(settings.state.read_text(encoding="utf-8", errors="replace"))
        gone = [card for card in state["cards"].values() if not card["present"]]
        named = {str(card["index"]) for card in gone}
        unnamed = [
            Missing("", printable(f"GPU {index} is {word}: g-mon logs"))
            for index, word in sorted(state["gpus"].items())
            if index not in named
        ]
        return [_missing_card(card) for card in gone] + unnamed
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(settings.state, error) from error
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
        return None  # an earlier version's, or no file of the collector: the next sample makes one


def _missing_card(card: dict[str, Any]) -> Missing:
    uuid, index, seen = card["uuid"], card["index"], card["seen"]
    name = f"GPU at {card['pci_bus_id']}" if index is None else f"GPU {index}"
    last = "" if seen is None else f", it was last seen at {gauges.clock(seen)} UTC"
    remedy = f"if it was taken out: sudo g-mon forget {uuid}"
    return Missing(uuid, printable(f"{name} ({uuid}) isn't in the newest sample{last}; {remedy}"))


def _sample_of(text: str, name: str) -> float | None:
    found = re.search(rf"^{name} (\S+)$", text, re.M)
    try:
        return float(found[1]) if found else None
    except ValueError:
        return None
