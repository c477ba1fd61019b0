# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Whether a running engine still has the environment that systemd would give it now.

Asked of the process itself: the time of a file's last change says that somebody wrote it, not
that it means something else to the engine.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.hx_infra.llm.plugins.module_utils._env_load import load, settings
from ansible_collections.hx_infra.llm.plugins.module_utils._model_config import (
    hide_credentials,
    is_secret,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import Verdict, judge

Runner = Callable[[list[str]], "tuple[int, str, str]"]

PROPERTIES = ("Environment", "EnvironmentFiles", "PassEnvironment", "UnsetEnvironment")
NOT_SET = "not set"

_FILE = re.compile(r"^(.*) \(ignore_errors=(?:yes|no)\)$")
# Variables that mean something to an engine: only of these it is asked whether they should go.
_ENGINES = re.compile(
    r"(?:OLLAMA|CUDA|NVIDIA|GGML|LLAMA|HIP|ROCR|HSA|GPU|VLLM|NCCL|HF)_\w+|\w+_PROXY", re.IGNORECASE
)


@dataclass(frozen=True)
class UnitEnvironment:
    """What a loaded unit says about its environment.

    Attributes:
        own: variables that the unit itself sets.
        files: its environment files in order, later ones win.
        left_alone: names that the unit takes away, or takes over from systemd.
    """

    own: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[str] = ()
    left_alone: frozenset[str] = frozenset()


def observe(unit: str, run: Runner) -> UnitEnvironment:
    """Read what systemd has loaded of a unit; it may hold secrets, and is in no result."""
    _rc, out, _err = run(["systemctl", "show", unit, "--property=" + ",".join(PROPERTIES)])
    return parse_show(out)


def parse_show(text: str) -> UnitEnvironment:
    """Parse the output of ``systemctl show``; it has one line for each environment file."""
    own: dict[str, str] = {}
    files: list[str] = []
    left_alone: set[str] = set()
    for line in text.splitlines():
        name, _equals, value = line.partition("=")
        if name == "Environment":
            own.update(_assignments(value))
        elif name == "EnvironmentFiles":
            match = _FILE.match(value)
            files += sorted(glob.glob(match.group(1))) if match else []
        elif name in ("PassEnvironment", "UnsetEnvironment"):
            left_alone.update(item.partition("=")[0] for item in value.split())
    return UnitEnvironment(own, tuple(files), frozenset(left_alone))


def _assignments(text: str) -> dict[str, str]:
    try:
        items = shlex.split(text)
    except ValueError:  # a value that systemd shows in a way of its own counts as not known
        return {}
    pairs = (re.sub(r"\\([$`])", r"\1", item).partition("=") for item in items)
    return {name: value for name, _equals, value in pairs}


def outdated(
    unit: UnitEnvironment,
    process: Mapping[str, str],
    *,
    since: float,
    inherited: Callable[[], Mapping[str, str]],
) -> list[str]:
    """Name the variables that a restart would change, as far as environment files decide them.

    Those that only inform people don't count. One that the files name no more counts when it is
    an engine's, nobody else sets it, and a file was changed after the service's start.

    Args:
        unit: what systemd has loaded.
        process: the environment of the running process.
        since: when the service was started, in seconds since the epoch.
        inherited: returns what systemd itself gives to every service.
    """
    wanted = settings(from_files(unit.files))
    found = [
        name
        for name, value in wanted.items()
        if name not in unit.left_alone and process.get(name) != value
    ]
    known = {*wanted, *unit.own, *unit.left_alone}
    extra = [name for name in settings(process) if _ENGINES.fullmatch(name) and name not in known]
    if extra and any(_changed_at(path) > since for path in unit.files):
        given = inherited()
        found += [name for name in extra if given.get(name) != process[name]]
    return sorted(found)


def from_files(files: Sequence[str]) -> dict[str, str]:
    """Return the variables of some environment files; one that can't be read has none."""
    found: dict[str, str] = {}
    for path in files:
        try:
            with open(path, "rb") as stream:
                found.update(load(stream.read()))
        except OSError:
            continue
    return found


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_ctime
    except OSError:
        return 0.0


def inherited(run: Runner) -> dict[str, str]:
    """Return the environment that systemd gives to every service."""
    _rc, out, _err = run(["systemctl", "show-environment"])
    pairs = (line.partition("=") for line in out.splitlines())
    return {name: value for name, _equals, value in pairs}


def judge_files(path: str, unit: UnitEnvironment, process: Mapping[str, str]) -> Verdict:
    """Judge whether what an environment file says is what the running process has.

    Args:
        path: the file that has to be in force.
        unit: what systemd has loaded.
        process: the environment of the running process.
    """
    loaded = any(_same(path, other) for other in unit.files)
    wanted = settings(from_files(unit.files))
    differing = [
        f"{name} is {_shown(name, process.get(name))}, wanted {_shown(name, wanted[name])}"
        for name in sorted(wanted)
        if name not in unit.left_alone and process.get(name) != wanted[name]
    ]
    evidence = "; ".join(differing) or "the process has every setting of the unit's files"
    if not loaded:
        evidence = f"the unit loads {', '.join(unit.files) or 'no environment file'}"
    return judge(
        "environment_file",
        loaded and not differing,
        subject=path,
        value="in force" if loaded and not differing else "not in force",
        limit="in force",
        evidence=evidence,
    )


def _same(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _shown(name: str, value: str | None) -> str:
    if value is None:
        return NOT_SET
    return "(hidden)" if value and is_secret(name) else hide_credentials(value)
