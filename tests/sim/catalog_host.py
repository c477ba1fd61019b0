# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the real module model_catalog against a simulated engine and registry."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from module_process import result_of, start_module

from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._open_files import open_inodes


class Catalog:
    """The module with the options that all tests share."""

    def __init__(self, ollama: Any, registry: Any) -> None:
        self.ollama = ollama
        self.registry = registry
        self.store = ollama.store
        self.state = ollama.folder / "state"

    def start(self, models: list[Any], *, check: bool = False, **options: Any) -> subprocess.Popen:
        """Start the module; a model may be just a name."""
        args = {
            "models": [{"name": item} if isinstance(item, str) else item for item in models],
            "store": str(self.store),
            "url": self.ollama.url,
            "registry": self.registry.host,
            "registry_insecure": True,
            "state_dir": str(self.state),
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            **options,
        }
        return start_module("model_catalog", args)

    def run(self, *models: Any, **options: Any) -> dict[str, Any]:
        """Run the module and return its result, failed or not."""
        return result_of(self.start(list(models), **options))

    def good(self, *models: Any, **options: Any) -> dict[str, Any]:
        """Run the module; it has to succeed."""
        result = self.run(*models, **options)
        assert not result.get("failed"), result["msg"]
        return result

    def bad(self, *models: Any, **options: Any) -> str:
        """Run the module; it has to fail. Return its message."""
        result = self.run(*models, **options)
        assert result.get("failed"), result
        return str(result["msg"])

    def converged(self, *models: Any, **options: Any) -> None:
        """Make sure that a further run finds nothing to do."""
        again = self.good(*models, **options)
        assert (again["changed"], again["actions"], again["outcomes"]) == (False, [], [])
        assert again["diff"]["before"] == again["diff"]["after"]
        assert self.damaged() == []

    def names(self) -> list[str]:
        """Return the models that the engine lists."""
        return sorted(model["name"] for model in self.ollama.get("/api/tags").json()["models"])

    def manifest(self, name: str) -> Path:
        """Return the path of a model's manifest."""
        return self.store / parse_name(name).manifest

    def weights(self, name: str) -> Path:
        """Return the path of a model's largest blob."""
        data = json.loads(self.manifest(name).read_bytes())
        layer = max(data["layers"], key=lambda item: item["size"])
        return self.store / "blobs" / layer["digest"].replace(":", "-")

    def damaged(self) -> list[str]:
        """Return the names of blobs whose content isn't what their name says."""
        return [
            path.name
            for path in (self.store / "blobs").iterdir()
            if len(path.name) == len("sha256-") + 64
            and hashlib.sha256(path.read_bytes()).hexdigest() != path.name[len("sha256-") :]
        ]

    def tree(self, *, lock: bool = False) -> dict[str, tuple[Any, ...]]:
        """Return everything that can be told about the files of the store.

        The lock file, which every run that isn't one in check mode makes, only on request.
        """
        found = {}
        own = {self.store / ".hx", self.store / ".hx" / "lock"}
        for path in sorted(self.store.rglob("*")):
            if path in own and not lock:
                continue
            status = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path)] = (status.st_mode, status.st_uid, status.st_mtime_ns, content)
        return found

    def flip(self, name: str) -> Path:
        """Change one byte in the middle of a model's largest blob, without a trace in its times."""
        path = self.weights(name)
        status = path.stat()
        with path.open("r+b") as file:
            file.seek(status.st_size // 2)
            byte = file.read(1)[0]
            file.seek(status.st_size // 2)
            file.write(bytes([byte ^ 1]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return path

    def aside(self) -> list[Path]:
        """Return the blobs that are set aside."""
        return sorted((self.store / ".hx" / "aside").glob("*"))

    def calls(self) -> int:
        """Return how many requests of the API the engine has answered."""
        return self.ollama.log().count("[GIN]")

    def partials(self) -> list[Path]:
        """Return the files of unfinished downloads."""
        return sorted((self.store / "blobs").glob("*-partial*"))

    def arrived(self) -> int:
        """Return how many bytes of unfinished downloads are on the disk."""
        held = 0
        for path in self.partials():
            with contextlib.suppress(FileNotFoundError):  # it is whole by now
                held += path.stat().st_blocks * 512
        return held

    def downloading(self) -> bool:
        """Tell whether the engine has a file of an unfinished download open."""
        files = {(status.st_dev, status.st_ino) for status in map(os.stat, self.partials())}
        return bool(files & open_inodes()[0])

    def age_partials(self) -> None:
        """Let the unfinished downloads be old."""
        for path in self.partials():
            os.utime(path, (1_700_000_000, 1_700_000_000))


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
