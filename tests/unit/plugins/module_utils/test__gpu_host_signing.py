# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from gpu_host_samples import MODINFO, planted

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_host_signing as signing
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import UnknownError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

RELEASE = "6.1.0-28-amd64"
ON, OFF = b"\x06\0\0\0\x01", b"\x06\0\0\0\x00"
BOOT = f"sys/firmware/efi/efivars/{signing.SECURE_BOOT}"
SHIM = f"sys/firmware/efi/efivars/{signing.SHIM_STATE}"
MODULE = {
    "proc/sys/kernel/osrelease": f"{RELEASE}\n",
    f"lib/modules/{RELEASE}/modules.dep": "updates/dkms/nvidia.ko:\n",
    f"lib/modules/{RELEASE}/updates/dkms/nvidia.ko": "",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({BOOT: ON}, True),
        ({BOOT: OFF}, False),
        ({BOOT: ON, SHIM: b"\x02\0\0\0\x01"}, False),  # mokutil --disable-validation
        ({BOOT: ON, SHIM: b"\x07\0\0\0\x01"}, True),  # not shim's own: it would be lost at a reset
        ({BOOT: ON, SHIM: b"\x02\0\0\0\x00"}, True),
        ({"sys/firmware/efi/efivars/Boot0000-8be4df61": b"x"}, False),
        ({"sys/firmware/acpi": None}, False),
    ],
)
def test_enabled(tmp_path, files, expected):
    assert signing.enabled(planted(tmp_path, files)) is expected


@pytest.mark.parametrize("files", [{"etc": None}, {"sys/firmware/efi/efivars": None}])
def test_firmware_that_cannot_be_asked(tmp_path, files):
    with pytest.raises(UnknownError):
        signing.enabled(planted(tmp_path, files))


# The first two: acidanthera/bugtracker issue 2237, JafarAkhondali/acer-predator-turbo issue 113;
# the others after kernel/module/signing.c and security/lockdown/lockdown.c.
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service", True),
        ("insmod: ERROR: could not insert module src/facer.ko: Key was rejected by service", False),
        ("Loading of module with unavailable key is rejected", True),
        ("nvidia: loading of module with unavailable key is rejected", True),
        ("vboxdrv: loading of unsigned module is rejected", False),
        ("Failed to insert module 'nvidia_current': Key was rejected by service", True),
        ("Failed to insert module 'zfs': Key was rejected by service", False),
        (
            "Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7",
            True,
        ),
        ("Access is rejected by the filter", False),
        ("", False),
    ],
)
def test_refused(line, expected):
    assert signing.refused(f"audit: something\n{line}\nusb 1-1: new device") is expected


def journal(out, rc=0, err=""):
    return {
        "journalctl": Outcome(rc, out, err),
        "modinfo": MODINFO.format(version="575.64.03"),
    }


def test_a_refused_module(tmp_path):
    host = planted(
        tmp_path,
        {**MODULE, BOOT: ON},
        journal("Loading of module with unavailable key is rejected\n"),
    )
    notes = []
    assert signing.secure_boot(host, False, notes) == {
        "enabled": True,
        "signer": "DKMS module signing key",
        "refused": True,
    }
    assert notes == []


def test_a_loaded_module_was_not_refused_whatever_the_journal_says(tmp_path):
    host = planted(tmp_path, {**MODULE, BOOT: ON}, journal("Key was rejected by service\n"))
    assert signing.secure_boot(host, True, [])["refused"] is False
    assert not [call for call in host.run.calls if call.startswith("journalctl")]


@pytest.mark.parametrize("rc", [0, 1])
def test_a_journal_without_such_a_message(tmp_path, rc):
    host = planted(tmp_path, {**MODULE, BOOT: ON}, journal("", rc))
    assert signing.secure_boot(host, False, [])["refused"] is False


def test_an_unsigned_module_has_no_signer(tmp_path):
    answers = {**journal(""), "modinfo": "version:        575.64.03\n"}
    assert "signer" not in signing.secure_boot(planted(tmp_path, MODULE, answers), False, [])


@pytest.mark.parametrize(
    "answer",
    [
        Outcome(None, "", ""),
        Outcome(1, "", "No journal files were opened due to insufficient permissions."),
        Outcome(0, "", "Hint: You are currently not seeing messages from other users."),
    ],
)
def test_a_journal_that_cannot_be_read_is_named(tmp_path, answer):
    notes = []
    host = planted(tmp_path, {**MODULE, BOOT: OFF}, {**journal(""), "journalctl": answer})
    found = signing.secure_boot(host, False, notes)
    assert "refused" not in found
    assert found["enabled"] is False
    assert len(notes) == 1


def test_a_journalctl_without_patterns_is_read_whole(tmp_path):
    answers = {
        "journalctl --boot --no-pager --output=cat --lines": Outcome(
            1, "", "Compiled without pattern matching support\n"
        ),
        "journalctl --boot --no-pager --output=cat --dmesg": "usb\nnvidia: loading of unsigned "
        "module is rejected\n",
    }
    assert signing.secure_boot(planted(tmp_path, {**MODULE, BOOT: ON}, answers), False, [])[
        "refused"
    ]


def test_nothing_known_is_nothing_said(tmp_path):
    notes = []
    assert signing.secure_boot(planted(tmp_path, {"etc": None}), None, notes) == {}
    assert notes == ["/sys/firmware is not there", "journalctl is not installed"]
