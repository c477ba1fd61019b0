# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What NVIDIA's Xid messages mean, as data that an inventory overrides.

The sources disagree, NVIDIA's own two tables among them, so each row keeps what each of them says:

- ``dcgm``: NVIDIA/DCGM 4.6, the Xid maps of ``modules/health/DcgmHealthWatch.cpp``;
- ``nvsentinel``: NVIDIA/NVSentinel, ``xiderrorsmapping.csv``;
- ``others``: facebookresearch/gcm, Azure/azurehpc-health-checks (Azure), NVIDIA/k8s-device-plugin
  (plugin).

A dash means that the source doesn't name the code. Names are those of NVIDIA's Xid catalog,
docs.nvidia.com/deploy/xid-errors.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    CRITICAL,
    INFO,
    NONE,
    REBOOT,
    RESET_GPU,
    RESTART_APP,
    SERVICE,
    WARN,
)


@dataclass(frozen=True)
class Xid:
    """One code.

    Attributes:
        code: the number.
        words: its name.
        severity: what it means when it came up, ``INFO``, ``WARN`` or ``CRITICAL``.
        action: what to do next, one of ``_gpu_policy_checks.ACTIONS``.
        dcgm, nvsentinel, others: what the sources say.
        repeated: what it means when it came up more than once in a boot; empty for the same.
    """

    code: int
    words: str
    severity: str
    action: str
    dcgm: str = "-"
    nvsentinel: str = "-"
    others: str = "-"
    repeated: str = ""


XIDS: tuple[Xid, ...] = (
    Xid(13, "graphics engine exception", WARN, RESTART_APP,
        "-", "restart app", "gcm warns, plugin ignores"),
    Xid(31, "GPU memory page fault", WARN, RESTART_APP,
        "warns", "restart app", "gcm warns, plugin ignores"),
    Xid(43, "GPU stopped processing", WARN, RESTART_APP,
        "warns", "ignore", "gcm warns, plugin ignores"),
    Xid(45, "preemptive cleanup after an earlier error", INFO, NONE,
        "-", "own workflow", "gcm warns, plugin ignores"),
    Xid(48, "double-bit ECC error", CRITICAL, RESET_GPU,
        "fails", "own workflow, fatal", "gcm critical, Azure fails, plugin unhealthy"),
    Xid(56, "display engine error", WARN, SERVICE, "-", "-", "Azure fails"),
    Xid(57, "error while programming the memory interface", WARN, SERVICE, "-", "-", "Azure fails"),
    Xid(58, "unstable memory interface", WARN, SERVICE, "-", "-", "Azure fails"),
    Xid(62, "internal micro-controller halt", CRITICAL, RESET_GPU,
        "warns (thermal)", "reset, fatal", "gcm critical, Azure fails, plugin unhealthy"),
    Xid(63, "page retired or row remapped", WARN, RESET_GPU,
        "warns", "ignore", "gcm warns, Azure fails"),
    Xid(64, "page not retired or row not remapped", CRITICAL, SERVICE,
        "fails", "reset, fatal", "gcm critical, Azure fails"),
    Xid(65, "video processor exception", WARN, SERVICE, "-", "-", "Azure fails"),
    Xid(68, "video decoder exception", WARN, RESTART_APP,
        "-", "restart app", "gcm warns, Azure fails, plugin ignores"),
    Xid(69, "graphics engine class error", WARN, RESTART_APP, "-", "restart app", "Azure fails"),
    Xid(73, "video encoder error", WARN, SERVICE, "-", "-", "Azure fails"),
    Xid(74, "NVLink error", CRITICAL, SERVICE,
        "fails", "NVLink workflow", "gcm critical, Azure fails"),
    Xid(79, "GPU has fallen off the bus", CRITICAL, REBOOT,
        "fails", "restart bare metal", "gcm critical, Azure fails"),
    Xid(80, "corrupted data sent to the GPU", WARN, SERVICE, "-", "-", "Azure fails"),
    Xid(81, "VGA subsystem error", WARN, SERVICE, "-", "-", "Azure fails"),
    Xid(92, "high rate of single-bit ECC errors", WARN, SERVICE,
        "-", "ignore", "gcm warns, Azure fails"),
    Xid(93, "InfoROM near its wear limit", INFO, NONE, "warns, Volta only", "ignore", "-"),
    Xid(94, "contained ECC error", WARN, RESTART_APP, "warns", "restart app", "gcm critical"),
    Xid(95, "uncontained ECC error", CRITICAL, RESET_GPU, "fails", "reset, fatal", "gcm critical"),
    Xid(109, "context switch timeout", WARN, RESET_GPU,
        "-", "reset, fatal", "gcm warns, plugin ignores", repeated=CRITICAL),
    Xid(119, "timeout of the GPU's system processor (GSP)", CRITICAL, RESET_GPU,
        "fails", "reset, fatal", "gcm critical, Azure fails"),
    Xid(120, "error of the GPU's system processor (GSP)", CRITICAL, RESET_GPU,
        "fails", "reset, fatal", "gcm critical, Azure fails"),
    Xid(140, "unrecovered ECC error", CRITICAL, RESET_GPU,
        "fails", "reset, fatal", "gcm critical"),
    Xid(154, "recovery action changed, see gpu_recovery_action", INFO, NONE,
        "-", "follow the other Xid", "Health Validation informs"),
)  # fmt: skip

# A code that no row names: NVIDIA adds some with every driver branch.
UNNAMED = ("not in the table", WARN, SERVICE)

# Not a sign of bad hardware when it comes again after a reboot (gpud, threshold.go).
NEVER_ESCALATES = frozenset({94})
