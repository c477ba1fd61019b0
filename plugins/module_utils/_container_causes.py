# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Why a container does not see the GPUs, told from what engine and driver tool said."""

from __future__ import annotations

import re

_UUID = re.compile(r"\(UUID: (GPU-[0-9A-Za-z-]+)\)")

# Words in lower case, the cause, what to do. The first that fits decides: the more special ones
# stand first. "{engine}" is the engine's name.
_CAUSES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("could not select device driver",),
        "Docker has no GPU driver: the NVIDIA container toolkit is not installed, or Docker was "
        "not restarted after it was",
        "Run the container_runtime role; it installs the toolkit and restarts Docker.",
    ),
    (
        ("unknown or invalid runtime name: nvidia", "unknown runtime specified nvidia"),
        "Docker's configuration has no runtime nvidia",
        "Run the container_runtime role; it adds the runtime to daemon.json.",
    ),
    (
        ("additionalgids",),
        "the CDI specification is of a newer form than {engine} reads (field additionalGids)",
        "Upgrade {engine}, or write the specification with a container toolkit before 1.20.",
    ),
    (
        ("unresolvable cdi devices",),
        "{engine} finds no CDI specification that names the device, or cannot read the one that is "
        "there",
        "Run the container_runtime role; if the specification is fresh, compare its cdiVersion "
        "with what this version of {engine} reads.",
    ),
    (
        ("driver/library version mismatch",),
        "the driver's libraries in the container are of another version than the kernel module",
        "After a driver upgrade: reboot, then run the container_runtime role.",
    ),
    (
        ("failed to initialize nvml: unknown error",),
        "the container lost its access to the GPU's devices, as systemd's daemon-reload does to "
        "containers while /dev/char has no links to the GPU's devices",
        "Run the container_runtime role, which makes the links, then restart the container.",
    ),
    (
        ("couldn't find libnvidia-ml", "libnvidia-ml.so", "nvml shared library not found"),
        "the driver's library libnvidia-ml is not in the container",
        "Run the container_runtime role, so that the CDI specification names the libraries of the "
        "present driver; with Docker's runtime the image has to ask for the capability 'utility'.",
    ),
    (
        ("nvidia-container-cli: initialization error", "driver not loaded"),
        "the toolkit cannot reach the host's driver",
        "Repair the driver on the host first: nvidia-smi has to work there.",
    ),
    (
        ("couldn't communicate with the nvidia driver",),
        "the container has the driver's tool but not its devices",
        "Run the container_runtime role, so that the CDI specification names the present devices.",
    ),
    (
        ("failed to initialize nvml",),
        "NVML does not start in the container",
        "Compare nvidia-smi on the host with the one in the container.",
    ),
    (
        ("stat failed", "error stat", "no such file or directory: failed to"),
        "the CDI specification names a file of the host that is gone",
        "Run the container_runtime role; it writes the specification anew.",
    ),
    (
        ("image not known", "no such image", "unable to find image", "manifest unknown"),
        "the image for the proof is not on the host",
        "Load it from an archive or pull it: container_runtime_proof_image.",
    ),
    (
        (
            "nvidia-smi` not found",
            '"nvidia-smi": executable file not found',
            "nvidia-smi: not found",
        ),
        "the container got nothing of the driver: no nvidia-smi is in it",
        "Run the container_runtime role; the CDI specification or the runtime does not hand in the "
        "driver's tools.",
    ),
    (
        ("cannot connect to the docker daemon", "is the docker daemon running"),
        "Docker's daemon does not answer",
        "Start docker.service and look at journalctl -u docker.",
    ),
    (
        ("no devices were found",),
        "the container has the driver but no GPU",
        "Run the container_runtime role, so that the CDI specification names the present GPUs.",
    ),
)


def cause(text: str, engine: str) -> tuple[str, str]:
    """Return what is wrong and what to do; the cause is empty when the words are not known."""
    said = text.lower()
    for words, why, remedy in _CAUSES:
        if any(word in said for word in words):
            return why.format(engine=engine), remedy.format(engine=engine)
    return "", ""


def listed_uuids(text: str) -> list[str]:
    """Return the UUIDs in what ``nvidia-smi -L`` prints, in its order."""
    return _UUID.findall(text)


def compare(host: list[str], inside: list[str]) -> str:
    """Say how the GPUs in a container differ from the host's; empty when they are the same."""
    missing = [uuid for uuid in host if uuid not in inside]
    foreign = [uuid for uuid in inside if uuid not in host]
    parts = []
    if missing:
        parts.append(f"not in the container: {', '.join(missing)}")
    if foreign:
        parts.append(f"not on the host: {', '.join(foreign)}")
    if not parts and len(inside) != len(host):
        parts.append(f"listed {len(inside)} times for {len(host)} GPUs")
    return "; ".join(parts)
