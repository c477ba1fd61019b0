# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tree that looks like a GPU host, and programs that answer from a table."""

from __future__ import annotations

import os

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import Host
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

OPEN_VERSION = (  # nix-community/nixGL issue 186
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  565.57.01  Release Build  "
    "(dvs-builder@U16-A24-9-2)  Thu Oct 10 12:15:00 UTC 2024\n"
    "GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)\n"
)
PROPRIETARY_VERSION = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
)
LDCONFIG = (
    "3 libs found in cache `/etc/ld.so.cache'\n"
    "\tlibnvidia-ml.so.1 (libc6) => /usr/lib/i386-linux-gnu/libnvidia-ml.so.1\n"
    "\tlibnvidia-ml.so.1 (libc6,x86-64) => /opt/driver/libnvidia-ml.so.1\n"
    "\tlibc.so.6 (libc6,x86-64, OS ABI: Linux 3.2.0) => /lib/x86_64-linux-gnu/libc.so.6\n"
)
MODINFO = (
    "filename:       /lib/modules/6.1.0-28-amd64/updates/dkms/nvidia.ko\n"
    "version:        {version}\n"
    "license:        Dual MIT/GPL\n"
    "sig_id:         PKCS#7\n"
    "signer:         DKMS module signing key\n"
    "sig_key:        11:22\n"
)


class Link(str):
    """The target of a symbolic link in a planted tree."""


def plant(root, files):
    """Write files below a root; a Link becomes a link, None a directory."""
    for name, content in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, Link):
            path.symlink_to(content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)


class Programs:
    """Answers commands from a table of their beginnings; what isn't in it is not installed."""

    def __init__(self, answers):
        self.answers = answers
        self.calls = []

    def __call__(self, argv, timeout_s):
        """Answer one command."""
        line = " ".join(os.path.basename(argv[0]) if n == 0 else a for n, a in enumerate(argv))
        self.calls.append(line)
        for beginning in sorted(self.answers, key=len, reverse=True):
            if line.startswith(beginning):
                answer = self.answers[beginning]
                return answer if isinstance(answer, Outcome) else Outcome(0, answer, "")
        return Outcome(127, "", f"{argv[0]} is not installed")


def planted(tmp_path, files, answers=None):
    """Return a host that is a tree."""
    plant(tmp_path, files)
    run = Programs(answers or {})
    return Host(run=run, root=str(tmp_path), timeout_s=3.0, machine="x86_64")
