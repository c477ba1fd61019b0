# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host of the nightly test: its settings, its state and its metrics, and runs of the program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles" / "nightly_smoke" / "files"
# On a host the role installs below the programs what they import of the collection.
COLLECTION = {"PYTHONPATH": str(ROOT / "collections")}


class Host:
    """Settings, state and metrics of one host."""

    def __init__(self, folder):
        self.folder = folder
        self.config = folder / "nightly-smoke.json"
        self.state = folder / "state"
        self.metrics_path = folder / "nightly_smoke.prom"
        self.state.mkdir()

    def argv(self, *more):
        places = ["--state", str(self.state), "--textfile", str(self.metrics_path)]
        program = [sys.executable, "-B", str(FILES / "nightly_smoke.py")]
        return [*program, "--config", str(self.config), *places, *more]

    def write(self, *engines, **settings):
        limits = {"call_seconds": 5, "load_seconds": 10, "wait_seconds": 0, "budget_seconds": 60}
        found = {"host": "llm-02", "engines": list(engines), **limits, **settings}
        self.config.write_text(json.dumps(found))

    def start(self, *more, **environment):
        return subprocess.Popen(
            self.argv(*more),
            env={**os.environ, **COLLECTION, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *engines, more=(), environment=None, **settings):
        self.write(*engines, **settings)
        child = self.start(*more, **(environment or {}))
        output = child.communicate(timeout=90)[0]
        return child.returncode, output

    @property
    def record(self):
        return json.loads((self.state / "last-run.json").read_text())

    @property
    def checks(self):
        return {check["subject"]: check for check in self.record["checks"]}

    def metric(self, name):
        text = self.metrics_path.read_text()
        found = re.search(rf"^hx_infra_nightly_smoke_{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None


def engine(url, **more):
    return {"name": "ollama", "kind": "ollama", "url": url, "min_gpu_ratio": 0, **more}


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)
