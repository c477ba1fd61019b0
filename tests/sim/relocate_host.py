# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host in a directory for the tests of a store's move: a real store, a unit that is a file.

The unit and the API are simulated here; files, links, renames and kills are real.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _copytree,
    _fsops,
    _relocate_commit,
    _relocate_copy,
    _relocate_run,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import file_sha256
from ansible_collections.hx_infra.llm.plugins.module_utils._open_files import open_inodes
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_module import (
    HostAccess,
    relocate,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_observe import (
    blob_digest,
    closure_problems,
)

CALLS = ("rename", "symlink", "unlink", "link", "mkdir", "rmdir", "chmod")


def make_store(root: Path, models: dict[str, list[bytes]]) -> None:
    """Write a store with one manifest per model; equal layers become one shared blob."""
    blobs = root / "blobs"
    blobs.mkdir(parents=True)

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / f"sha256-{digest}").write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content), "mediaType": "layer"}

    for name, layers in models.items():
        model, _mark, tag = name.partition(":")
        manifest = {"config": blob(f"config of {name}".encode()), "layers": list(map(blob, layers))}
        path = root / "manifests/registry.ollama.ai/library" / model / tag
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(manifest))
    with open(blobs / f"sha256-{'ab' * 32}-partial", "wb") as partial:
        partial.truncate(300_000)
        partial.seek(100_000)
        partial.write(b"begun")
    os.utime(blobs / f"sha256-{'ab' * 32}-partial", (1_700_000_000, 1_700_000_000))


SHARED = b"license text " * 50
MODELS = {
    "llama3.2:3b": [b"weights of llama" * 4000, SHARED],
    "qwen3:1.7b": [b"weights of qwen" * 3000, SHARED],
    "mistral-small3.2:latest": [b"weights of mistral" * 9000],
}


def seen_by_root() -> tuple[set[tuple[int, int]], bool]:
    """List the open files as root, who sees all of them, would."""
    return open_inodes()[0], True


def contents(root: Path | str) -> dict[str, str]:
    """Return the digest of every file below a directory."""
    base = Path(root)
    return {
        str(path.relative_to(base)): file_sha256(str(path))
        for path in base.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


class Host:
    """A host whose root is a directory.

    Args:
        root: where everything but the target stands.
        bulk: directory of the target's file system.
    """

    def __init__(self, root: Path, bulk: Path) -> None:
        self.root = root
        self.target = bulk / "ollama/models"
        self.old = root / "opt/models/production"
        self.canonical = root / "mnt/active_llm_models"
        self.journal_dir = root / "var/lib"
        self.unit_file = root / "unit"
        self.calls_file = root / "calls"
        self.broken_start = root / "broken"
        root.joinpath("mnt").mkdir(parents=True)
        make_store(self.old, MODELS)
        self.unit_file.write_text("active")
        self.original = contents(self.old)
        self.pause: Callable[[float], None] = time.sleep

    def params(self, **changes: Any) -> dict[str, Any]:
        """Return the module's parameters for this host."""
        values: dict[str, Any] = {
            "target": str(self.target),
            "canonical": str(self.canonical),
            "old_paths": [str(self.old)],
            "owner": pwd.getpwuid(os.getuid()).pw_name,
            "group": grp.getgrgid(os.getgid()).gr_name,
            "unit": "ollama.service",
            "url": "http://engine",
            "mount_path": None,
            "mount_now": None,
            "reserve_bytes": 0,
            "partial_minutes": 0,
            "pull_wait_s": 0,
            "allow_damaged": False,
            "stop_timeout": 5,
            "start_timeout": 1,
            "journal_dir": str(self.journal_dir),
            "progress_file": None,
            "host": "llm-01",
        }
        return {**values, **changes}

    def command(self, argv: Sequence[str]) -> tuple[int, str, str]:
        """Play systemctl for the one unit; stops and starts are noted."""
        verb = argv[1]
        state = self.unit_file.read_text()
        if verb == "is-active":
            return (0 if state == "active" else 3), f"{state}\n", ""
        if verb in ("start", "stop"):
            with open(self.calls_file, "a", encoding="ascii") as stream:
                stream.write(f"{verb}\n")
            self.unit_file.write_text("active" if verb == "start" else "inactive")
        return 0, "", ""

    def fetch(self, url: str, _timeout: float) -> bytes:
        """Answer as the engine would that reads the old path."""
        if self.unit_file.read_text() != "active":
            raise OSError("connection refused")
        if url.endswith("/api/version"):
            return b'{"version": "0.11.4"}'
        if self.broken_start.exists() and self.old.is_symlink():
            return b'{"models": []}'
        manifests = self.old / "manifests/registry.ollama.ai/library"
        models = [
            {"name": f"{path.parent.name}:{path.name}", "digest": file_sha256(str(path))}
            for path in sorted(manifests.glob("*/*"))
        ]
        return json.dumps({"models": models}).encode()

    def run(
        self,
        check: bool = False,
        on_step: Callable[[str], None] = lambda _step: None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Run the module's code."""
        access = HostAccess(self.command, self.fetch, on_step, seen_by_root, self.pause)
        return relocate(self.params(**changes), check, access)

    def calls(self) -> list[str]:
        """Return the stops and starts so far."""
        return self.calls_file.read_text().split() if self.calls_file.exists() else []

    def check_whole(self, path: Path) -> None:
        """Assert that a path leads to a whole store: every manifest complete, every blob right."""
        assert closure_problems(str(path)) == []
        names = [f"{p.parent.name}:{p.name}" for p in path.glob("manifests/*/*/*/*")]
        assert sorted(names) == sorted(MODELS)
        for blob in (path / "blobs").iterdir():
            wanted = blob_digest(blob.name)
            assert not wanted or file_sha256(str(blob)) == wanted

    def check_survived(self) -> None:
        """Assert what must hold at every instant, also right after a kill."""
        self.check_whole(self.old)  # the path that the engine is configured with
        if self.canonical.exists():
            self.check_whole(self.canonical)

    def check_arrived(self) -> None:
        """Assert the declared state."""
        assert self.target.is_dir()
        assert not self.target.is_symlink()
        assert os.readlink(self.canonical) == str(self.target)
        assert os.readlink(self.old) == str(self.canonical)
        assert contents(self.target) == self.original
        assert not Path(f"{self.target}.hx-staging").exists()
        assert list(self.journal_dir.glob("relocate-*models.json")) == []

    def retained(self) -> list[Path]:
        """Return the old trees that are kept."""
        return sorted(self.old.parent.glob("*.hx-retained-*"))


def killed(action: Callable[[], Any]) -> bool:
    """Run something in a child process; return whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    _pid, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def kill_at_step(host: Host, number: int) -> bool:
    """Run and kill the process at the given step; return whether there is such a step."""
    seen = 0

    def on_step(_name: str) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return killed(lambda: host.run(on_step=on_step))


def kill_at_call(host: Host, number: int, after: bool) -> bool:
    """Run and kill the process before, or after, the given call that changes the file system."""
    seen = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            mine = seen
            try:
                return function(*args, **kwargs)
            finally:
                if mine == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    def action() -> None:
        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        exchange = counted(_fsops.exchange)
        for module in (_copytree, _fsops, _relocate_commit, _relocate_copy, _relocate_run):
            if hasattr(module, "exchange"):
                module.exchange = exchange
        host.run()

    return killed(action)
