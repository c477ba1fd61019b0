# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host of the scenario as its suites see it."""

from __future__ import annotations

import csv
import json
import re
import time
from urllib.parse import quote

LOGS = "/opt/hx-infrastructure/llm-02/logs/gpu"
TEXTFILES = "/var/lib/hxmon/textfile"
PROFILE = "/etc/sim-gpu/profile.conf"


def wait_for(condition, seconds=90):
    """Wait until something holds; fail when it never does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(1)
    raise AssertionError(f"it didn't come within {seconds} s")


class Host:
    """The host, and what its collector writes."""

    def __init__(self, host):
        self.host = host
        self.run = host.run
        self.output = host.check_output

    def text(self, name):
        return self.host.file(f"{LOGS}/{name}").content_string

    def rows(self):
        return list(csv.DictReader(self.text("nvidia-smi-ping.csv").splitlines()))

    def events(self):
        return [line.split(" ", 1)[1] for line in self.text("nvidia-smi-ping.events").splitlines()]

    def metric(self, name, textfile="gpu_telemetry.prom"):
        """Return the first series whose name and labels begin with a text; None without one."""
        text = self.host.file(f"{TEXTFILES}/{textfile}").content_string
        found = re.search(rf"^{re.escape(name)}.* (\S+)$", text, re.M)
        return float(found[1]) if found else None

    def show(self, unit, what):
        return self.output(f"systemctl show -P {what} {unit}")

    def ask(self, query):
        """Return what Prometheus knows: [(labels, value)]."""
        url = f"http://127.0.0.1:9090/api/v1/query?query={quote(query)}"
        answer = json.loads(self.output(f"curl --silent --fail --max-time 10 '{url}'"))
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]

    def exposure(self):
        report = self.output("systemd-analyze security --no-pager gpu-telemetry.service")
        return float(re.search(r"exposure level for \S+: (\S+)", report)[1])

    def use(self, profile):
        """Let the host have other GPUs, for NVML sessions that begin from now on."""
        self.output(f"cp /lab/sim_gpu/profiles/{profile}.conf {PROFILE}.new")
        self.output(f"mv {PROFILE}.new {PROFILE}")
