# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restarts a host of the lab."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parents[3] / "tests" / "lab" / "engine.sh"


@pytest.fixture(scope="session")
def reboot():
    """Return a function that restarts a host and waits for its systemd."""

    def restart(host):
        engine = subprocess.run([ENGINE], check=True, capture_output=True, text=True)
        container = f"hx-llm-lab-{host}"
        for command in (
            ["restart", "--time", "30", container],
            ["exec", container, "systemctl", "is-system-running", "--wait"],
        ):
            for _attempt in range(10):
                done = subprocess.run(
                    [engine.stdout.strip(), *command], check=False, capture_output=True, text=True
                )
                if done.returncode == 0:
                    break
        assert "running" in done.stdout, done

    return restart
