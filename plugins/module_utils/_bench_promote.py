# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Changing named baselines: set one from measurements, promote one over another.

Nothing is replaced unless told so, what is replaced by a promotion is kept, and readers see the old
or the new content. Writers wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_baselines import (
    NAME,
    Record,
    check_name,
    file_name,
    line_of,
    merged,
    parse,
    read_file,
    render,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    exchange,
    exchange_missing,
    fsync_directory,
    make_directories,
    write_atomic,
)

PREVIOUS = ".previous"
WITHDRAWN = ".withdrawn"  # what a way back to the previous one has replaced
_UNFINISHED = ".hx-new"


def directory_of(baseline_file: str) -> str:
    """Return where named baselines are by default: beside the CSV file with the first ones."""
    return os.path.join(os.path.dirname(baseline_file), "baselines")


def names_in(directory: str) -> list[str]:
    """Return the names of the baselines in a directory; none when there is no directory."""
    try:
        found = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"{directory} cannot be read: {error}.") from error
    return sorted(name for name in found if NAME.fullmatch(name))


def set_baseline(
    directory: str,
    name: str,
    records: Sequence[Record],
    *,
    replace: bool = False,
    check_mode: bool = False,
) -> dict[str, Any]:
    """Write measurements into a named baseline; other models and stages in it stay.

    Args:
        directory: where baselines are; created when it is missing.
        name: of the baseline.
        records: what was measured.
        replace: whether a record of the same model and stage, or a damaged file, may be replaced.
        check_mode: only say what would be done.

    Returns:
        ``changed``, ``actions``, ``plan`` and ``diff``, the same in check mode.

    Raises:
        HostError: the name is none, or something else would have to be replaced; nothing was
            written then.
    """
    _check_name(name, "baseline", writable=True)
    with _writer(directory, check_mode):
        folder = os.path.join(directory, name)
        _check_folder(folder)
        before: list[Record] = []
        after: list[Record] = []
        files: dict[str, bytes] = {}
        steps: list[dict[str, Any]] = []
        for model in dict.fromkeys(record.identity.model for record in records):
            path = os.path.join(folder, file_name(model))
            old = _old_records(path, replace)
            new = [record for record in records if record.identity.model == model]
            whole = merged(old, new)
            steps += _set_steps(name, path, old, new)
            before, after = before + old, after + whole
            data = render(whole)
            if data != read_file(path):
                files[path] = data
        taken = [step for step in steps if step["action"] == "replace_baseline"]
        if taken and not replace:
            which = ", ".join(f"{step['target']} ({step['stage']})" for step in taken)
            raise HostError(
                f"{directory}: baseline {name} has another measurement of {which}.",
                "Say replace, or give another name.",
            )
        if files and not check_mode:
            make_directories(folder)
            for path, data in files.items():
                write_atomic(path, data)
    words = {"set_baseline": "set", "replace_baseline": "replace"}
    actions = [
        f"{words[step['action']]} baseline {name} of {step['target']} ({step['stage']})"
        for step in steps
    ]
    return _result(f"baseline {name} in {directory}", steps, actions, before, after)


def labels_to_replace(
    directory: str, name: str, model: str, labels: Sequence[str], *, replace: bool
) -> list[str]:
    """Return which loads, by their labels, a baseline already holds of a model.

    Raises:
        HostError: ``set_baseline`` would refuse to write measurements under these loads.
    """
    _check_name(name, "baseline", writable=True)
    folder = os.path.join(directory, name)
    _check_folder(folder)
    known = {
        record.identity.stage.label
        for record in _old_records(os.path.join(folder, file_name(model)), replace)
    }
    there = [label for label in labels if label in known]
    if there and not replace:
        raise HostError(
            f"{directory}: baseline {name} has another measurement of {model}"
            f" ({', '.join(there)}).",
            "Say replace, or give another name.",
        )
    return there


def promote_baseline(
    directory: str, source: str, target: str, *, check_mode: bool = False
) -> dict[str, Any]:
    """Make one baseline hold what another holds; the old one stays as ``<target>.previous``.

    The previous one itself may be promoted: what it replaces is then kept as
    ``<target>.withdrawn``, so that doing it twice is doing it once.

    Returns:
        ``changed``, ``actions``, ``plan`` and ``diff``, the same in check mode.

    Raises:
        HostError: the source is missing or damaged, or the target holds other files; nothing was
            changed then.
    """
    _check_name(source, "the baseline to promote", writable=False)
    _check_name(target, "the baseline to replace", writable=True)
    if source == target:
        raise HostError(f"baseline {source} is to be promoted over itself, wanted another name.")
    kept = target + (WITHDRAWN if source == target + PREVIOUS else PREVIOUS)
    with _writer(directory, check_mode):
        new = _contents(os.path.join(directory, source))
        if not new:
            raise HostError(
                f"{directory} has no baseline {source}, wanted one to promote.",
                f"There are: {', '.join(names_in(directory)) or 'none'}.",
            )
        records = _records(os.path.join(directory, source), new)
        folder = os.path.join(directory, target)
        old = _contents(folder)
        before = _readable(folder, old)
        steps: list[dict[str, Any]] = []
        if new != old:
            _contents(os.path.join(directory, kept))  # refuses before anything is replaced
            moved = [record.identity.model for record in records]
            gone = [record.identity.model for record in before]
            steps = [
                {**step, "path": os.path.join(directory, step["path"])}
                for step in _promote_steps(source, target, kept if old else "", moved, gone)
            ]
            if not check_mode:
                if old:
                    _put_directory(os.path.join(directory, kept), old)
                _put_directory(folder, new)
    actions = [_sentence(step) for step in steps]
    return _result(f"baseline {target} in {directory}", steps, actions, before, records)


def _set_steps(
    name: str, path: str, old: Sequence[Record], new: Sequence[Record]
) -> list[dict[str, Any]]:
    known = {record.identity.stage: record for record in old}
    steps = []
    for record in new:
        there = known.get(record.identity.stage)
        if there == record:
            continue
        steps.append(
            {
                "action": "replace_baseline" if there else "set_baseline",
                "target": record.identity.model,
                "path": path,
                "baseline": name,
                "stage": record.identity.stage.label,
            }
        )
    return steps


def _promote_steps(
    source: str, target: str, kept: str, moved: Sequence[str], gone: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the steps, paths below the directory; ``kept`` is empty when nothing is to be kept."""
    if kept:
        keep = {"action": "keep_baseline", "target": target, "path": kept}
        yield {**keep, "baseline": kept, "source": target}
    dropped = [model for model in dict.fromkeys(gone) if model not in moved]
    for action, models in (
        ("promote_baseline", dict.fromkeys(moved)),
        ("drop_from_baseline", dropped),
    ):
        for model in models:
            path = os.path.join(target, file_name(model))
            step = {"action": action, "target": model, "path": path}
            yield {**step, "baseline": target, "source": source}


def _sentence(step: Mapping[str, Any]) -> str:
    if step["action"] == "keep_baseline":
        return f"keep baseline {step['source']} as {step['baseline']}"
    if step["action"] == "promote_baseline":
        return f"promote {step['target']} from baseline {step['source']} to {step['baseline']}"
    return f"drop {step['target']} from baseline {step['baseline']}: {step['source']} has none"


def _result(
    header: str,
    steps: list[dict[str, Any]],
    actions: list[str],
    before: Iterable[Record],
    after: Iterable[Record],
) -> dict[str, Any]:
    return {
        "changed": bool(steps),
        "actions": actions,
        "plan": steps,
        "diff": {
            "before_header": header,
            "after_header": header,
            "before": _lines(before),
            "after": _lines(after),
        },
    }


def _lines(records: Iterable[Record]) -> str:
    return "".join(f"{line}\n" for line in sorted(line_of(record) for record in records))


def _old_records(path: str, replace: bool) -> list[Record]:
    data = read_file(path)
    if data is None:
        return []
    try:
        return parse(data, path)
    except HostError:
        if replace:
            return []
        raise


def _records(folder: str, files: Mapping[str, bytes]) -> list[Record]:
    found = []
    for name, data in sorted(files.items()):
        found += parse(data, os.path.join(folder, name))
    return found


def _readable(folder: str, files: Mapping[str, bytes]) -> list[Record]:
    """Return what can be read of a baseline that is about to be replaced as a whole."""
    found = []
    for name, data in sorted(files.items()):
        with contextlib.suppress(HostError):
            found += parse(data, os.path.join(folder, name))
    return found


def _check_name(name: str, what: str, *, writable: bool) -> None:
    check_name(name, what)
    if writable and name.endswith((PREVIOUS, WITHDRAWN)):
        raise HostError(
            f"{what} is named {name}, wanted a name without {PREVIOUS} and {WITHDRAWN}: those are"
            " what promotions keep."
        )


def _check_folder(folder: str) -> bool:
    """Tell whether a baseline's directory is there; refuse anything else in its place."""
    try:
        info = os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISDIR(info.st_mode):
        raise HostError(f"{folder} is no directory, wanted one with the files of a baseline.")
    return True


def _contents(folder: str) -> dict[str, bytes]:
    """Return the files of a baseline, by their names."""
    if not _check_folder(folder):
        return {}
    files = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith(".") and name.endswith(_UNFINISHED):
            continue  # of a writer that was killed
        if not name.endswith(".json"):
            raise HostError(
                f"{os.path.join(folder, name)} is no file of a baseline, wanted only such files"
                " there.",
                "Move it away.",
            )
        data = read_file(os.path.join(folder, name))
        if data is not None:
            files[name] = data
    return files


@contextlib.contextmanager
def _writer(directory: str, check_mode: bool) -> Iterator[None]:
    """Keep other writers out, and turn what the system refuses into an error that names it."""
    try:
        if check_mode:
            yield
            return
        _make(directory)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HostError(
            f"{directory} cannot be written: {error}.", "Correct its access or free some space."
        ) from error


def _make(directory: str) -> None:
    """Create a directory that another writer may be creating at the same time."""
    for _turn in range(directory.count(os.sep)):
        try:
            make_directories(directory)
        except FileExistsError:
            continue  # the other one was first, for one of the parents
        return
    make_directories(directory)


def _put_directory(path: str, files: Mapping[str, bytes]) -> None:
    """Make a directory hold exactly these files; its name has the old or the new ones at any time.

    Where the file system can't exchange two names, it is missing for a moment.
    """
    parent, name = os.path.split(path)
    fresh, aside = (os.path.join(parent, f".{name}{end}") for end in (_UNFINISHED, ".hx-old"))
    for left_over in (fresh, aside):
        _remove(left_over)
    os.mkdir(fresh, 0o755)
    for file, data in files.items():
        write_atomic(os.path.join(fresh, file), data)
    if not os.path.lexists(path):
        os.rename(fresh, path)
    else:
        _check_folder(path)
        try:
            exchange(fresh, path)
        except OSError as error:
            if not exchange_missing(error):
                raise
            os.rename(path, aside)
            os.rename(fresh, path)
    for left_over in (fresh, aside):
        _remove(left_over)
    fsync_directory(parent)


def _remove(folder: str) -> None:
    try:
        entries = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in entries:
        os.unlink(os.path.join(folder, name))
    os.rmdir(folder)
