# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""No store is moved while it is being filled, and none is filled while it is being moved."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ansible_collections.hx_infra.llm.plugins.module_utils._engine_service import waiting
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._open_files import open_inodes
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_guard import (
    Inodes,
    downloads_going_on,
    pulls_going_on,
    refusal,
    runs_going_on,
    several,
    wait_for_pulls,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate import (
    Declared,
    Observed,
    Plan,
    plan_relocation,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import MoveLock


@dataclass(frozen=True)
class Patience:
    """How long a move waits for what fills the store, and how it sees that.

    Attributes:
        wait_s: seconds; with 0 the move is refused at once.
        inodes: device and inode of every open file, and whether all processes could be seen.
        pause: waits some seconds.
    """

    wait_s: float = 0.0
    inodes: Inodes = open_inodes
    pause: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Settled:
    """The plan for a store that nobody fills, and what it had to wait for.

    In check mode it is the plan that a real run has once nobody fills the store any more.
    """

    found: Observed
    plan: Plan
    waits_for: list[str] = field(default_factory=list)
    waited_s: float = 0.0


def settle(
    declared: Declared, look: Callable[[], Observed], patience: Patience, check_mode: bool
) -> Settled:
    """Plan a move, and wait until nobody fills the store. Check mode waits for nothing.

    Args:
        declared: what is wanted.
        look: reads everything that the plan depends on.
        patience: how long to wait.
        check_mode: whether to look only.

    Raises:
        HostError: the move isn't possible, or something still fills the store.
    """
    wait_s = patience.wait_s
    found = look()
    # What is refused anyway isn't waited for first.
    plan = plan_relocation(declared, _unfilled(found) if wait_s else found)
    place = plan.source or declared.target
    tree = found.trees.get(place)
    moves = bool(plan.source)

    def going_on(root: str) -> list[str]:
        # A store that stays breaks no download off; another run may be at work in it all the same.
        return pulls_going_on(root, inodes=patience.inodes) if moves else runs_going_on(root)

    with _on(declared.host):
        waits_for = going_on(tree.at) if tree is not None and plan.steps else []
    if tree is None or not waits_for:
        return Settled(found, plan_relocation(declared, found))
    if check_mode and wait_s:
        return Settled(found, _postponed(plan, waits_for, wait_s), waits_for)
    with _on(declared.host):
        left, waited_s = wait_for_pulls(tree.at, wait_s, look=going_on, pause=patience.pause)
        if left:
            raise refusal(f"the store {place}", "moved" if moves else "touched", left, waited_s)
    found = look()
    plan = _postponed(plan_relocation(declared, found), waits_for, wait_s)
    return Settled(found, plan, waits_for, round(waited_s, 1))


class StoreGuard:
    """Keep others from a store while it is moved, as a context manager.

    Args:
        declared: what is wanted.
        patience: how what fills the store is seen.
    """

    def __init__(self, declared: Declared, patience: Patience) -> None:
        self._host = declared.host
        self._patience = patience
        self._held = contextlib.ExitStack()

    def __enter__(self) -> StoreGuard:
        return self

    def __exit__(self, *_unused: object) -> None:
        self._held.close()

    def hold(self, root: str) -> None:
        """Keep others from a directory until the end, whatever its name becomes.

        Raises:
            HostError: another run works on it.
        """
        if os.path.isdir(root):
            with _on(self._host):
                self._held.enter_context(MoveLock(root, pause=self._patience.pause))

    def check_unfilled(self, root: str) -> None:
        """Look a last time, right before the engine is stopped.

        This isn't waited for: the move is proven by the models that were listed at its beginning.

        Raises:
            HostError: a download is writing.
        """
        with _on(self._host):
            downloads = downloads_going_on(root, inodes=self._patience.inodes)
            if downloads:
                raise refusal(f"the store {root}", "moved", downloads, 0.0)


@contextlib.contextmanager
def _on(host: str) -> Iterator[None]:
    """Name the host in an error that is about its store."""
    try:
        yield
    except HostError as error:
        raise HostError(f"{host}: {error.message}", error.remedy) from error


def _unfilled(found: Observed) -> Observed:
    """Return what will be found once nobody fills the stores any more."""
    trees = {path: replace(tree, partials=()) for path, tree in found.trees.items()}
    return replace(found, trees=trees)


def _postponed(plan: Plan, waits_for: Sequence[str], wait_s: float) -> Plan:
    """Return a plan that says what its first step has to wait for."""
    if not plan.steps:
        return plan
    first, *others = plan.steps
    sentence = f"{first.sentence} ({waiting(several(waits_for), wait_s)})"
    return replace(plan, steps=(replace(first, sentence=sentence), *others))
