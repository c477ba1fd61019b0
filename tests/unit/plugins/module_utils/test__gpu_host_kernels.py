# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from gpu_host_samples import MODINFO, planted

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_host_grub as grub
from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_host_kernels as kernels
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import UnknownError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

OLD, NEW = "6.1.0-9-amd64", "6.1.0-28-amd64"  # as text the old one sorts behind the new one
DEP = "updates/dkms/nvidia{}.ko.xz: kernel/drivers/acpi/video.ko.xz\nkernel/drivers/nvidiafb.ko:\n"
MENU = """### BEGIN /etc/grub.d/00_header ###
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${{next_entry}}" ] ; then
   set default="${{next_entry}}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="{default}"
fi

if [ x"${{feature_menuentry_id}}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi

function savedefault {{
  if [ -z "${{boot_once}}" ]; then
    saved_entry="${{chosen}}"
  fi
}}
### BEGIN /etc/grub.d/10_linux ###
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple-1' {{
\tload_video
\tinsmod gzio
\tif [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
\techo\t'Loading Linux 6.1.0-28-amd64 ...'
\tlinux\t/boot/vmlinuz-6.1.0-28-amd64 root=UUID=1 ro  quiet
\tinitrd\t/boot/initrd.img-6.1.0-28-amd64
}}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-1' {{
\tmenuentry 'Debian GNU/Linux, with Linux 6.1.0-28-amd64' $menuentry_id_option 'gnulinux-28' {{
\t\tlinux\t/boot/vmlinuz-6.1.0-28-amd64 root=UUID=1 ro  quiet
\t}}
\tmenuentry 'Debian GNU/Linux, with Linux 6.1.0-9-amd64' $menuentry_id_option 'gnulinux-9' {{
\t\tlinux\t/boot/vmlinuz-6.1.0-9-amd64 root=UUID=1 ro  quiet
\t}}
}}
menuentry "UEFI Firmware Settings" $menuentry_id_option 'uefi-firmware' {{
\tfwsetup
}}
"""
SUBMENU = "gnulinux-advanced-1"


def kernel(release, suffix="", listed=True, file=True, image=True):
    base = f"lib/modules/{release}"
    files = {f"{base}/modules.dep": DEP.format(suffix) if listed else "kernel/a.ko:\n"}
    if file:
        files[f"{base}/updates/dkms/nvidia{suffix}.ko.xz"] = ""
    if image:
        files[f"boot/vmlinuz-{release}"] = ""
    return files


def info(version="575.64.03"):
    return {"modinfo": MODINFO.format(version=version)}


def seen(tmp_path, files, answers=None, running=OLD):
    files = {"proc/sys/kernel/osrelease": f"{running}\n", **files}
    notes = []
    found, choice = kernels.kernels(planted(tmp_path, files, answers or info()), notes)
    return found, choice, notes


def test_next_kernel_lacks_the_module(tmp_path):
    files = {**kernel(OLD), **kernel(NEW, listed=False, file=False)}
    files["boot/grub/grub.cfg"] = MENU.format(default="0")
    found, choice, notes = seen(tmp_path, files)
    assert found == [
        {
            "release": OLD,
            "running": True,
            "default": False,
            "has_module": True,
            "module_version": "575.64.03",
        },
        {"release": NEW, "running": False, "default": True, "has_module": False},
    ]
    assert (choice.release, choice.decided_by) == (NEW, "default")
    assert notes == []


def test_all_is_well(tmp_path):
    files = {**kernel(OLD), **kernel(NEW), "boot/grub/grub.cfg": MENU.format(default="0")}
    found, _choice, _notes = seen(tmp_path, files, running=NEW)
    assert [entry["has_module"] for entry in found] == [True, True]
    assert found[1]["running"]
    assert found[1]["default"]


@pytest.mark.parametrize("suffix", ["", "-current", "-current-open", "-legacy-390xx", "-tesla-470"])
def test_names_that_distributions_give_the_module(tmp_path, suffix):
    found, _choice, _notes = seen(tmp_path, kernel(OLD, suffix))
    assert found[0]["has_module"]


@pytest.mark.parametrize("name", ["nvidia-drm", "nvidia-uvm", "nvidiafb", "nvidia-current-modeset"])
def test_its_companions_are_not_the_module(tmp_path, name):
    files = {f"lib/modules/{OLD}/modules.dep": f"updates/{name}.ko:\n"}
    files[f"lib/modules/{OLD}/updates/{name}.ko"] = ""
    found, _choice, _notes = seen(tmp_path, files)
    assert not found[0]["has_module"]


def test_a_module_that_depmod_does_not_know_is_not_found(tmp_path):
    found, _choice, _notes = seen(tmp_path, kernel(OLD, listed=False))
    assert found[0]["has_module"] is False
    assert "depmod has not run" in found[0]["message"]


def test_a_module_that_is_listed_but_gone(tmp_path):
    found, _choice, _notes = seen(tmp_path, kernel(OLD, file=False))
    assert found[0]["has_module"] is False
    assert "which is not there" in found[0]["message"]


def test_without_modules_dep_the_file_counts(tmp_path):
    files = {f"lib/modules/{OLD}/updates/dkms/nvidia.ko": ""}
    found, _choice, _notes = seen(tmp_path, files)
    assert found[0]["has_module"]


@pytest.mark.parametrize(
    ("answers", "note"),
    [
        ({"other": ""}, "modinfo is not installed"),
        ({"modinfo": Outcome(1, "", "could not get modinfo")}, "modinfo could not read"),
        ({"modinfo": Outcome(None, "", "")}, "modinfo could not read"),
    ],
)
def test_a_version_that_cannot_be_read_is_absent_and_named(tmp_path, answers, note):
    found, _choice, notes = seen(tmp_path, kernel(OLD), answers)
    assert found[0]["has_module"]
    assert "module_version" not in found[0]
    assert len(notes) == 1
    assert note in notes[0]


def test_what_a_removed_kernel_leaves_behind_does_not_count(tmp_path):
    files = {**kernel(NEW), **kernel(OLD, image=False)}
    found, choice, _notes = seen(tmp_path, files, running=NEW)
    assert [entry["release"] for entry in found] == [NEW]
    assert choice.decided_by == "only"


def test_a_running_kernel_that_was_removed_still_counts(tmp_path):
    found, _choice, _notes = seen(tmp_path, kernel(NEW))
    assert [(entry["release"], entry["has_module"]) for entry in found] == [
        (OLD, False),
        (NEW, True),
    ]


def test_without_a_boot_loader_the_newest_is_taken_and_that_is_said(tmp_path):
    _found, choice, _notes = seen(tmp_path, {**kernel(OLD), **kernel(NEW)})
    assert (choice.release, choice.decided_by) == (NEW, "newest")
    assert "no boot loader's list was found" in choice.message


def test_a_configuration_that_cannot_be_read_is_named(tmp_path):
    files = {**kernel(OLD), **kernel(NEW), "boot/grub/grub.cfg": None}
    _found, choice, notes = seen(tmp_path, files)
    assert choice.decided_by == "newest"
    assert "grub.cfg" in notes[0]


@pytest.mark.parametrize("files", [{"etc": None}, {"lib/modules": None}])
def test_in_a_container_nothing_is_known(tmp_path, files):
    with pytest.raises(UnknownError, match="/lib/modules"):
        seen(tmp_path, files)


@pytest.mark.parametrize(
    ("default", "environment", "release", "by"),
    [
        ("0", "", NEW, "default"),
        ("1>1", "", OLD, "default"),
        ("1", "", NEW, "default"),
        ("gnulinux-advanced-1>gnulinux-9", "", OLD, "default"),
        (
            "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-9-amd64",
            "",
            OLD,
            "default",
        ),
        ("${saved_entry}", f"saved_entry={SUBMENU}>gnulinux-9\n", OLD, "saved_entry"),
        ("${saved_entry}", "", NEW, "saved_entry"),
        ("0", f"next_entry={SUBMENU}>gnulinux-9\n", OLD, "next_entry"),
        ("0", "next_entry=\n", NEW, "default"),
    ],
)
def test_what_grub_boots(tmp_path, default, environment, release, by):
    files = {
        "boot/grub/grub.cfg": MENU.format(default=default),
        "boot/grub/grubenv": f"# GRUB Environment Block\n{environment}####",
    }
    choice = grub.configured_kernel(planted(tmp_path, files))
    assert (choice.release, choice.decided_by) == (release, by)
    assert choice.message.startswith("/boot/grub/grub.cfg: ")


@pytest.mark.parametrize("default", ["7", "no such entry", "uefi-firmware"])
def test_a_default_that_leads_to_no_kernel_decides_nothing(tmp_path, default):
    files = {"boot/grub/grub.cfg": MENU.format(default=default)}
    assert grub.configured_kernel(planted(tmp_path, files)) is None


def loader_entry(release):
    text = f"title Red Hat ({release})\nversion {release}\nlinux /vmlinuz-{release}\n# comment\n\n"
    return {f"boot/loader/entries/abc-{release}.conf": text}


@pytest.mark.parametrize(
    ("saved", "release"), [("abc-5.14.0-427.el9.x86_64", "5.14.0-427.el9.x86_64"), ("0", "newest")]
)
def test_boot_loader_specification(tmp_path, saved, release):
    newest = "5.14.0-503.el9.x86_64"
    files = {
        **loader_entry("5.14.0-427.el9.x86_64"),
        **loader_entry(newest),
        **loader_entry("5.14.0-70.el9.x86_64"),
        "boot/grub2/grub.cfg": 'set default="${saved_entry}"\ninsmod blscfg\nblscfg\n',
        "boot/grub2/grubenv": f"saved_entry={saved}\n",
    }
    choice = grub.configured_kernel(planted(tmp_path, files))
    assert choice.release == (newest if release == "newest" else release)


def test_releases_sort_by_their_numbers():
    releases = ["6.1.0-9-amd64", "6.1.0-28-amd64", "5.10.0-30-amd64", "6.12.3+deb13-amd64"]
    expected = ["5.10.0-30-amd64", "6.1.0-9-amd64", "6.1.0-28-amd64", "6.12.3+deb13-amd64"]
    assert sorted(releases, key=grub.version_key) == expected
