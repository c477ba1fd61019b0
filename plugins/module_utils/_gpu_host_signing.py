# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Secure Boot: whether it is on, who signed the driver's module, whether the kernel refused it."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import (
    NOT_FOUND,
    Host,
    UnknownError,
    said,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_kernels import (
    module_file,
    module_info,
    running_release,
)

VARIABLES = "/sys/firmware/efi/efivars"
SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"  # EFI's global variables
# Set by shim after "mokutil --disable-validation"; the kernel then takes Secure Boot for off
# (efi_get_secureboot in drivers/firmware/efi/libstub/secureboot.c).
SHIM_STATE = "MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23"
NON_VOLATILE = 0x1  # attribute; shim's own variable lacks it, a forged one can't

# modprobe's words for EKEYREJECTED; the kernel's own (kernel/module/signing.c), with the module's
# name in some releases; and those of lockdown (security/lockdown/lockdown.c).
_PATTERN = "Key was rejected by service|oading of .* is rejected|unsigned module loading"
_REFUSED = re.compile(
    r"insert (?:module )?'?(?P<inserted>[^':]+)'?: Key was rejected by service"
    r"|(?:(?P<named>[\w-]+): l|L)oading of (?:unsigned module|module with [\w ]+) is rejected"
    r"|Lockdown: \S+ unsigned module loading is restricted"
    r"|Key was rejected by service"
)


def secure_boot(host: Host, loaded: bool | None, notes: list[str]) -> dict[str, Any]:
    """Return ``enabled``, ``signer`` and ``refused``; what can't be known is noted.

    Args:
        host: the host.
        loaded: whether the module is loaded; None when that isn't known.
        notes: gets a sentence for each thing that can't be known.
    """
    found: dict[str, Any] = {}
    try:
        found["enabled"] = enabled(host)
    except UnknownError as error:
        notes.append(str(error))
    try:
        release = running_release(host)
        path = module_file(host, release)[0] if release else ""
        signer = module_info(host, path, notes).get("signer") if path else ""
        if signer:
            found["signer"] = signer
    except UnknownError as error:
        notes.append(str(error))
    if loaded:  # whatever was refused before, it is loaded now
        found["refused"] = False
        return found
    try:
        found["refused"] = refused(_journal(host))
    except UnknownError as error:
        notes.append(str(error))
    return found


def enabled(host: Host) -> bool:
    """Tell whether Secure Boot is on, for the kernel.

    Raises:
        UnknownError: the firmware's variables aren't there to be read.
    """
    if host.names("/sys/firmware") is None:
        raise UnknownError("/sys/firmware is not there")
    if host.names("/sys/firmware/efi") is None:
        return False  # started by a BIOS
    if not host.names(VARIABLES):
        raise UnknownError(f"{VARIABLES} is not mounted")
    state = host.data(f"{VARIABLES}/{SECURE_BOOT}")
    if state is None:
        return False
    shim = host.data(f"{VARIABLES}/{SHIM_STATE}") or b""
    switched_off = len(shim) > 4 and shim[4] == 1 and not shim[0] & NON_VOLATILE
    return len(state) > 4 and state[4] == 1 and not switched_off


def refused(log: str) -> bool:
    """Tell whether messages of this boot say that NVIDIA's module was refused.

    A message that names no module counts, one that names another doesn't.
    """
    for line in log.splitlines():
        match = _REFUSED.search(line)
        if match is None:
            continue
        name = match["inserted"] or match["named"]
        if name is None or os.path.basename(name).startswith("nvidia"):
            return True
    return False


def _journal(host: Host) -> str:
    """Return the messages of this boot in which a module is refused."""
    argv = ("journalctl", "--boot", "--no-pager", "--output=cat", "--lines=200")
    outcome = host.call(*argv, f"--grep={_PATTERN}")
    if outcome.rc not in (0, None, NOT_FOUND) and "pattern matching" in outcome.err:
        outcome = host.call("journalctl", "--boot", "--no-pager", "--output=cat", "--dmesg")
    silent = not outcome.out.strip() and "No entries" not in outcome.out
    # journalctl ends with 1 when its pattern matches nothing, and says nothing then
    if outcome.rc == 1 and silent and not outcome.err.strip():
        return ""
    if outcome.rc != 0:
        raise UnknownError(said(outcome, "journalctl", host.timeout_s))
    if "not seeing messages" in outcome.err or "No journal files" in outcome.err:
        raise UnknownError(outcome.err.strip().splitlines()[0])
    return outcome.out
