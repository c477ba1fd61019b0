# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let Python remember what Ansible's modules compile to; for the tests and the lab alone.

A module comes to its host as a zip archive of sources, which Python compiles anew in each task: a
third of the processor time of a task that does little. Here the code of a source is kept under the
source's own hash, so that a changed source is another one.
"""

from __future__ import annotations

import _imp
import os
import zipimport
from importlib import _bootstrap_external as external

FOLDER = os.environ.get("HX_MODULE_CACHE") or "/var/cache/hx-llm-lab-modules"
compile_source = zipimport._compile_source
known = []  # whether the folder can be used; a process asks once, not for each of a hundred sources


def usable():
    """Return whether the folder is there, ours, and closed to everybody else."""
    if not known:
        known.append(look())
    return known[0]


def look():
    """Look at the folder, and make it when it isn't there."""
    try:
        os.mkdir(FOLDER, 0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    found = os.lstat(FOLDER)
    return found.st_uid == os.geteuid() and found.st_mode & 0o170777 == 0o040700


def remembered(pathname, source):
    """Return the code of a source, as zipimport's own function does."""
    if not usable():
        return compile_source(pathname, source)
    key = _imp.source_hash(external._RAW_MAGIC_NUMBER, source)
    path = f"{FOLDER}/{key.hex()}.pyc"
    try:
        return external.SourcelessFileLoader("module", path).get_code("module")
    except (OSError, EOFError, ImportError, ValueError):
        code = compile_source(pathname, source)
    try:
        with open(f"{path}.{os.getpid()}", "xb") as file:
            file.write(external._code_to_hash_pyc(code, key))
        os.rename(file.name, path)
    except OSError:
        pass  # a full disk, or another process is at it: compiled it is all the same
    return code


zipimport._compile_source = remembered
