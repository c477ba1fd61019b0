# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Reading a host for the container toolkit's plan, and carrying the plan out."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._container_cdi import parse_spec
from ansible_collections.hx_infra.llm.plugins.module_utils._container_daemon import merge
from ansible_collections.hx_infra.llm.plugins.module_utils._container_engine import (
    Engine,
    ended,
    version_tuple,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._container_host import (
    HostGpus,
    find_spec,
    missing_char_links,
    stale,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._container_plan import (
    DOCKER_CDI,
    Found,
    Step,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    make_directories,
    write_atomic,
)

RELOAD_TRIES, RELOAD_PAUSE_S = 20, 0.25


def read_text(path: str) -> str:
    """Return a file's text; empty when there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def observe(wanted: Wanted, engine: Engine, gpus: HostGpus, dirs: Sequence[str]) -> Found:
    """Read what stands on the host. An engine that is not installed has nothing running."""
    spec = find_spec(dirs, wanted.host) if wanted.mode == "cdi" else None
    installed = shutil.which(wanted.engine) is not None
    version = engine.version() if installed else ""
    info: dict[str, Any] = {}
    daemon = None
    if wanted.engine == "docker":
        info = engine.docker_info() if installed else {}
        daemon = merge(
            wanted.daemon_json,
            read_text(wanted.daemon_json),
            runtime=wanted.mode == "runtime",
            cdi=wanted.mode == "cdi",
            host=wanted.host,
        )
    return Found(
        gpus=gpus,
        spec=spec,
        stale=tuple(stale(spec, gpus)) if wanted.mode == "cdi" else (),
        links_missing=tuple(missing_char_links()),
        engine_version=version,
        running=tuple(engine.running()) if installed and wanted.engine == "docker" else (),
        live_restore=bool(info.get("LiveRestoreEnabled")),
        knows_runtime="nvidia" in (info.get("Runtimes") or {}),
        knows_cdi=bool(info.get("CDISpecDirs")) and version_tuple(version) >= DOCKER_CDI,
        daemon=daemon,
    )


class ToolkitRun:
    """Carries the steps of a plan out, one after another."""

    def __init__(self, wanted: Wanted, found: Found, engine: Engine, program: str, keep: str):
        self.wanted = wanted
        self.found = found
        self.engine = engine
        self.program = program
        self.keep = keep
        self.kept: list[str] = []

    def apply(self, steps: Sequence[Step]) -> None:
        """Carry the steps out.

        Raises:
            HostError: one of them failed; the ones before it stay done.
        """
        for step in steps:
            getattr(self, f"_{step.action}")(step.target)

    def _link_devices(self, _target: str) -> None:
        self._call([self.program, "system", "create-dev-char-symlinks", "--create-all"])

    def _write_spec(self, target: str) -> None:
        """Have the toolkit write it elsewhere, read it, and only then put it in place."""
        form = "json" if target.endswith(".json") else "yaml"
        make_directories(self.keep, 0o700)
        with tempfile.TemporaryDirectory(dir=self.keep) as work:
            fresh = os.path.join(work, f"nvidia.{form}")
            # Releases that take one strategy only use the last: the UUIDs.
            self._call(
                [
                    self.program,
                    "cdi",
                    "generate",
                    f"--format={form}",
                    f"--output={fresh}",
                    "--device-name-strategy=index",
                    "--device-name-strategy=uuid",
                ]
            )
            text = read_text(fresh)
        wrong = stale(parse_spec(target, text), self.found.gpus)
        if wrong:
            raise HostError(
                f"{self.wanted.host}: nvidia-ctk wrote a specification that does not fit the host: "
                f"{'; '.join(wrong)}. {target} was left as it is.",
                "Upgrade the container toolkit, or reboot when the driver was upgraded just now.",
            )
        self._replace(target, text)

    def _write_daemon_json(self, target: str) -> None:
        daemon = self.found.daemon
        if daemon is None:
            raise ValueError("a plan without a merge has no such step")
        self._check_daemon_json(daemon.text)
        self._replace(target, daemon.text)

    def _check_daemon_json(self, text: str) -> None:
        """Let the daemon itself judge the file, where it can (from 23.0 on)."""
        if version_tuple(self.found.engine_version) < (23, 0):
            return
        make_directories(self.keep, 0o700)
        with tempfile.TemporaryDirectory(dir=self.keep) as work:
            path = os.path.join(work, "daemon.json")
            write_atomic(path, text.encode())
            self._call(["dockerd", "--validate", f"--config-file={path}"])

    def _replace(self, target: str, text: str) -> None:
        old, mode = read_text(target), 0o644
        make_directories(os.path.dirname(target))
        if old:
            mode = stat.S_IMODE(os.stat(target).st_mode)
            make_directories(self.keep, 0o700)
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            kept = os.path.join(self.keep, f"{os.path.basename(target)}.{stamp}")
            write_atomic(kept, old.encode(), mode=0o600)
            self.kept.append(kept)
        write_atomic(target, text.encode(), mode=mode)

    def _reload(self, unit: str) -> None:
        """Reload, and wait: the daemon reads its configuration after systemctl has returned."""
        self._call(["systemctl", "reload", unit])
        for _attempt in range(RELOAD_TRIES):
            if "nvidia" in (self.engine.docker_info().get("Runtimes") or {}):
                return
            time.sleep(RELOAD_PAUSE_S)

    def _restart(self, unit: str) -> None:
        self._call(["systemctl", "restart", unit])

    def _call(self, argv: Sequence[str]) -> None:
        outcome = self.engine.run(argv, self.engine.timeout_s)
        if outcome.rc != 0:
            raise HostError(
                f"{self.wanted.host}: {' '.join(argv)} {ended(outcome)}.",
                "Correct the cause and run again, the next run goes on from here.",
            )
