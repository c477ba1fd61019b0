# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the real module model_files as a process against the stand-in of a hub."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

from module_process import start_module
from sim_hub import COMMIT, SimHub

MODEL = "org/tiny"


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


FILES = {
    "config.json": b'{"model_type": "llama"}\n',
    "tokenizer.json": b'{"version": "1.0"}\n',
    "tokenizer.model": b"\x01\x02",
    "chat_template.jinja": b"{{ messages }}",
    "model-00001-of-00002.safetensors": content(1, 300_000),
    "model-00002-of-00002.safetensors": content(2, 200_000),
    "sub/extra.json": b"{}",
    "README.md": b"# not wanted\n",
    "pytorch_model.bin": b"pickle",
    "modeling_tiny.py": b"print('not wanted')\n",
}
WANTED = sorted(set(FILES) - {"README.md", "pytorch_model.bin", "modeling_tiny.py"})
FIRST, SECOND = WANTED[2], WANTED[3]


class Host:
    """A host with a directory for models, and the module with the options that tests share."""

    def __init__(self, root: Path, hub: SimHub) -> None:
        self.hub = hub
        self.models = root / "models"
        self.models.mkdir(parents=True)
        self.dest = self.models / "tiny"
        self.staging = self.models / ".tiny.hx-new"
        hub.put(MODEL, FILES)

    def source(self, **more: Any) -> dict[str, Any]:
        base = {"hub": MODEL, "revision": COMMIT, "endpoint": self.hub.url, "insecure": True}
        return {**base, **more}

    def start(
        self, check: bool = False, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        args = {
            "name": "tiny",
            "dest": str(self.dest),
            "source": self.source(),
            "stall_timeout_s": 1,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            **options,
        }
        return start_module("model_files", args, {"no_proxy": "127.0.0.1", **(env or {})})

    def run(self, **options: Any) -> dict[str, Any]:
        output, errors = self.start(**options).communicate(timeout=120)
        assert output.lstrip().startswith("{"), errors or output
        self.output = output
        return json.loads(output)

    def good(self, **options: Any) -> dict[str, Any]:
        result = self.run(**options)
        assert not result.get("failed"), result
        return result

    def bad(self, **options: Any) -> str:
        result = self.run(**options)
        assert result.get("failed"), result
        return str(result["msg"])

    def converged(self, **options: Any) -> None:
        """Make sure that a further run finds nothing to do and asks nobody."""
        asked = len(self.hub.seen)
        again = self.good(**options)
        assert (again["changed"], again["actions"]) == (False, [])
        assert [step["action"] for step in again["plan"]] == ["adopt"]
        assert again["diff"]["before"] == again["diff"]["after"]
        assert len(self.hub.seen) == asked

    def files(self, root: Path | None = None) -> dict[str, bytes]:
        top = root or self.dest
        return {
            str(path.relative_to(top)): path.read_bytes()
            for path in sorted(top.rglob("*"))
            if path.is_file() and path.name != ".hx-model.json"
        }

    def whole(self, names: list[str] | None = None) -> None:
        assert self.files() == {name: FILES[name] for name in names or WANTED}
        beside = {path.name for path in self.models.iterdir()} - {"tiny", ".tiny.hx-lock"}
        assert beside == set()

    def everything(self) -> dict[str, Any]:
        return {
            str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode, path.lstat().st_ino)
            for path in sorted(self.models.rglob("*"))
        }
