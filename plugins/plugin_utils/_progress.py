# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Run a long module as an Ansible job on the target and show where it stands."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress_lines import (
    ProgressFeed,
    render_state,
)

OUT_OF_TOUCH_S = 120.0  # a host that restarts its network is back by then
RECHECK_S = 15.0  # ask for the job even when its file seems untouched
KILL_GRACE_S = 60  # Ansible ends the job itself this long after we stopped waiting
JOB_KEYS = ("ansible_job_id", "started", "finished", "results_file", "child_pid")

Render = Callable[[dict[str, Any]], str]


def read_deadline(arguments: Mapping[str, Any], default: float) -> float:
    """Return a task's ``deadline_s`` in seconds; the default for what the module will refuse."""
    try:
        return float(arguments.get("deadline_s", default))
    except (TypeError, ValueError):  # the module says what is wrong with it
        return default


class _JobGoneError(Exception):
    """A job ended without leaving a result."""


@dataclass(frozen=True)
class _Job:
    """An Ansible job on a host, with what is needed to ask for it.

    Attributes:
        host: where it runs, which isn't the play's host when the task is delegated.
        label: how a line about it begins.
    """

    action: Any
    task_vars: dict[str, Any]
    host: str
    label: str
    jid: str
    file: str
    progress_file: str

    def look(self) -> tuple[str, str]:
        """Read the progress file and a fingerprint of the job's file in one cheap command."""
        answer = self.action._low_level_execute_command(
            f"cksum < {shlex.quote(self.file)}; cat {shlex.quote(self.progress_file)}; true"
        )
        head, _newline, tail = str(answer.get("stdout", "")).partition("\n")
        return tail, head.strip()

    def ask(self) -> dict[str, Any]:
        """Ask Ansible's own module for the job's status."""
        return self.action._execute_module(
            module_name="ansible.legacy.async_status",
            module_args={
                "jid": self.jid,
                "mode": "status",
                "_async_dir": self.file.rpartition("/")[0],
            },
            task_vars=self.task_vars,
        )

    def alive(self) -> bool:
        """Tell whether a process of the job is left; where that can't be seen, there is one."""
        name = self.jid.partition(".")[0]  # the argument of Ansible's wrapper
        pattern = shlex.quote(f"[{name[:1]}]{name[1:]}")  # which this command doesn't match itself
        answer = self.action._low_level_execute_command(
            "test -d /proc/self && command -v grep > /dev/null"
            f" && ! grep -qs {pattern} /proc/[0-9]*/cmdline && echo gone; true"
        )
        return str(answer.get("stdout", "")).strip() != "gone"

    def clean(self) -> None:
        """Remove the job's file and the progress file.

        Without Ansible's module for the first, which is a program more to send and to start.
        """
        try:
            path, job = shlex.quote(self.progress_file), shlex.quote(self.file)
            self.action._low_level_execute_command(f"rm -f {job} {path} {path}.new")
        except Exception as error:  # the work is done; a file left behind must not undo that
            Display().warning(f"Could not remove the job file {self.file}: {error}")


def run_with_progress(
    action: Any,
    module_name: str,
    module_args: dict[str, Any],
    task_vars: dict[str, Any],
    *,
    deadline_s: float,
    interval_s: float = 1.0,
    render: Render = render_state,
) -> dict[str, Any]:
    """Run a module that takes ``progress_file`` and display its progress, line by line.

    In check mode the module runs at once and nothing is displayed.

    Args:
        action: the action plugin.
        module_name: full name of the module.
        module_args: its options, without ``progress_file``.
        task_vars: variables of the task.
        deadline_s: seconds after which the controller stops waiting.
        interval_s: shortest time between two lines.
        render: turns the progress file's object into a line without the host's name.

    Raises:
        AnsibleActionFail: the job was killed, or the deadline passed, or the host was out of reach
            for too long; the message names the job that was left on the host.
    """
    if action._task.check_mode:
        return action._execute_module(
            module_name=module_name, module_args=dict(module_args), task_vars=task_vars
        )
    shell = action._connection._shell
    if shell.tmpdir is None:
        action._make_tmp_path()
    progress_file = shell.join_path(shell.tmpdir, "progress.json")
    subject = str(task_vars.get("inventory_hostname", "localhost"))
    host = str(action._task.delegate_to or subject)
    started = _start(
        action, module_name, {**module_args, "progress_file": progress_file}, task_vars, deadline_s
    )
    if "ansible_job_id" not in started or started.get("failed"):
        return started
    job = _Job(
        action=action,
        task_vars=task_vars,
        host=host,
        label=subject if host == subject else f"{subject} at {host}",
        jid=started["ansible_job_id"],
        file=started["results_file"],
        progress_file=progress_file,
    )
    try:
        result = _follow(job, ProgressFeed(render, interval_s), deadline_s, interval_s)
    except _JobGoneError:
        job.clean()
        raise AnsibleActionFail(
            f"{job.host}: the job {job.jid} of {module_name} ended without a result: it was killed,"
            " or the host was restarted. Run again; the next run goes on from where it stood."
        ) from None
    except BaseException as error:
        left = f"The job {job.jid} of {module_name} was left running on {job.host}; Ansible ends"
        left += f" it at most {int(deadline_s) + KILL_GRACE_S} s after its start."
        if isinstance(error, AnsibleActionFail):
            raise AnsibleActionFail(f"{error} {left}") from None
        Display().warning(left)
        raise
    job.clean()
    return {key: value for key, value in result.items() if key not in JOB_KEYS}


def _start(
    action: Any, name: str, args: dict[str, Any], task_vars: dict[str, Any], deadline_s: float
) -> dict[str, Any]:
    asked = action._task.async_val
    action._task.async_val = int(deadline_s) + KILL_GRACE_S
    try:
        return action._execute_module(
            module_name=name, module_args=args, task_vars=task_vars, wrap_async=True
        )
    finally:
        action._task.async_val = asked


def _follow(job: _Job, feed: ProgressFeed, deadline_s: float, interval_s: float) -> dict[str, Any]:
    """Poll until the job's file says that the module has finished."""
    begun = heard = asked = time.monotonic()
    fingerprint = None
    while True:
        time.sleep(interval_s)
        now = time.monotonic()
        try:
            text, seen = job.look()
            silent = seen == fingerprint and now - asked > RECHECK_S
            gone = silent and not job.alive()
            if seen != fingerprint or now - asked > RECHECK_S:
                fingerprint, asked = seen, now
                status = job.ask()
                if status.get("finished"):
                    return status
                if gone:  # asked after its processes were, so this was its last word
                    break
            heard = now
        except Exception as error:
            if now - heard > OUT_OF_TOUCH_S:
                raise AnsibleActionFail(
                    f"{job.host} has not answered for {int(now - heard)} s: {error}."
                ) from error
            Display().vv(f"{job.label} | no answer, asking again: {error}")
            job.action._connection.reset()
            continue
        line = feed.line(_state(text), now)
        if line:
            Display().display(f"{job.label} | {line}")
        if now - begun > deadline_s:
            raise AnsibleActionFail(f"{job.host} has not finished within {int(deadline_s)} s.")
    raise _JobGoneError


def _state(text: str) -> dict[str, Any] | None:
    try:
        state = json.loads(text)
    except ValueError:
        return None
    return state if isinstance(state, dict) else None
