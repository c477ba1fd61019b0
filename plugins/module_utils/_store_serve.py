# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A store served to other hosts for a while, by a transient unit of systemd.

The unit runs the text of ``_store_server`` as the account that owns the blobs, without privileges
and with everything read only but its own directory below ``/run``. That directory holds program,
settings and token; systemd removes it when the unit ends, which happens after its lifetime at the
latest. Nothing of it survives a restart of the host.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.hx_infra.llm.plugins.module_utils._engine_unit import (
    RUNNING,
    Runner,
    unit_state,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    make_directories,
    write_atomic,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_serve_unit import (
    Place,
    Serving,
    fingerprint,
    program,
    settings,
    unit_command,
)

START_S = 30.0


@dataclass(frozen=True)
class Standing:
    """A unit that runs.

    Attributes:
        port: where it listens.
        left_s: seconds until it ends.
        fingerprint: what it was started as; empty when that can't be read.
    """

    port: int
    left_s: float
    fingerprint: str


def observe(
    run: Runner, place: Place, now: Callable[[], float] = time.monotonic
) -> Standing | None:
    """Return the unit that runs; None when there is none."""
    if unit_state(run, place.unit) not in RUNNING:
        return None
    try:
        with open(place.file("ready.json"), "rb") as stream:
            port = int(json.load(stream)["port"])
        with open(place.file("started.json"), "rb") as stream:
            started = json.load(stream)
        left_s = float(started["ends_at"]) - now()
        return Standing(port, max(0.0, left_s), str(started["fingerprint"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Standing(0, 0.0, "")


def as_wanted(standing: Standing | None, serving: Serving, place: Place) -> bool:
    """Say whether a unit can stay: it is the same, and half of its lifetime is left at least."""
    return (
        standing is not None
        and standing.fingerprint == fingerprint(serving, place)
        and standing.left_s >= serving.lifetime_s / 2
    )


def start(
    run: Runner,
    serving: Serving,
    place: Place,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Standing:
    """Start the unit, in place of one that may run, and wait until it listens.

    Raises:
        HostError: it doesn't.
    """
    stop(run, place)
    try:
        _write_files(serving, place, now() + serving.lifetime_s)
    except OSError as error:
        raise HostError(f"{place.folder} can't be written: {error.strerror}.") from error
    code, _out, errors = run(unit_command(serving, place))
    if code:
        shutil.rmtree(place.folder, ignore_errors=True)
        raise HostError(f"systemd-run couldn't start {place.unit}: {errors.strip()}")
    deadline = now() + START_S
    while not os.path.exists(place.file("ready.json")):
        state = unit_state(run, place.unit)
        if state not in RUNNING or now() > deadline:
            said = _last_words(run, place)
            stop(run, place)
            raise HostError(f"{place.unit} doesn't serve, it is {state}: {said}")
        sleep(0.1)
    standing = observe(run, place, now)
    if standing is None or not standing.port:
        raise HostError(f"{place.unit} ended right after its start: {_last_words(run, place)}")
    return standing


def stop(run: Runner, place: Place) -> None:
    """End the unit and remove what is left of it.

    Raises:
        HostError: it can't be ended.
    """
    if unit_state(run, place.unit) in (*RUNNING, "deactivating"):
        code, _out, errors = run(["systemctl", "stop", place.unit])
        if code:
            raise HostError(f"{place.unit} can't be stopped: {errors.strip()}")
    try:
        shutil.rmtree(place.folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"{place.folder} can't be removed: {error.strerror}.") from error


def remains(run: Runner, place: Place) -> bool:
    """Say whether there is anything to stop or to remove."""
    return unit_state(run, place.unit) in RUNNING or os.path.lexists(place.folder)


def url_of(host: str, port: int) -> str:
    """Return the address that other hosts use."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _write_files(serving: Serving, place: Place, ends_at: float) -> None:
    """Fill the unit's directory, which is the service account's and nobody else's."""
    make_directories(place.parent)
    status = os.lstat(place.parent)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise HostError(f"{place.parent} is no directory of this account's.")
    os.mkdir(place.folder, 0o700)
    started = {"fingerprint": fingerprint(serving, place), "ends_at": ends_at}
    files = {
        "server.py": program(),
        "settings.json": json.dumps(settings(serving, place)),
        "token": serving.token,
        "started.json": json.dumps(started),
    }
    owner = _unless_ours(serving.owner)
    for name, content in files.items():
        write_atomic(place.file(name), content.encode(), 0o600, owner)
    os.chown(place.folder, *owner)  # last: until then nobody else can put anything in its place


def _unless_ours(owner: tuple[int, int]) -> tuple[int, int]:
    """Leave out what needs no change and, without privileges, no permission either."""
    ours = (os.geteuid(), os.getegid())
    return (-1, -1) if owner == ours else owner


def _last_words(run: Runner, place: Place) -> str:
    _code, text, _errors = run(["journalctl", "-u", place.unit, "-n", "5", "-o", "cat"])
    return text.strip() or "it left no message."
