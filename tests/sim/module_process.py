# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a module of the collection as a process, with its options on standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUNNER = """
import sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
from ansible_collections.hx_infra.llm.plugins.modules import {name}
{name}.main()
"""


def start_module(
    name: str, args: Mapping[str, Any], env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a module; ``env`` is added to the environment."""
    process = subprocess.Popen(
        [sys.executable, "-B", "-c", RUNNER.format(name=name)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections"), **(env or {})},
        text=True,
    )
    assert process.stdin
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": args}))
    process.stdin.close()
    process.stdin = None
    return process


def result_of(process: subprocess.Popen[str], timeout_s: float = 120.0) -> dict[str, Any]:
    """Wait for a module and return its result, failed or not."""
    output, errors = process.communicate(timeout=timeout_s)
    assert output.lstrip().startswith("{"), errors or output
    return dict(json.loads(output))


def run_module(name: str, args: Mapping[str, Any], timeout_s: float = 120.0) -> dict[str, Any]:
    """Run a module and return its result, failed or not."""
    return result_of(start_module(name, args), timeout_s)
