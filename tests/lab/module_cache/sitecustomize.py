# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let Python remember what Ansible works out anew in each run; for the tests and the lab alone.

A module comes to its host as a zip archive of sources, which Python compiles anew in each task: a
third of the processor time of a task that does little. Here the code of a source is kept under the
source's own hash, so that a changed source is another one.

On the controller, each run parses all of these sources to find out which others they import: half
a second of processor time for each module that it uses. What a source imports is kept in the same
way; the archives are the same as without. And each task parses the play's vars_files, and each
import of a role copies its files text by text: two thirds of the time until the first task.

Every Python of the lab begins with this file: it imports nothing that they don't all have already.
"""

from __future__ import annotations

import _imp
import importlib
import os
import sys
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


def keep(path, data):
    """Write a file of the folder whole or not at all."""
    try:
        with open(f"{path}.{os.getpid()}", "xb") as file:
            file.write(data)
        os.rename(file.name, path)
    except OSError:
        pass  # a full disk, or another process is at it: worked out it is all the same


def hash_of(source):
    """Return the hash that names what is kept of a source, as bytes."""
    return _imp.source_hash(external._RAW_MAGIC_NUMBER, source)


def remembered(pathname, source):
    """Return the code of a source, as zipimport's own function does."""
    if not usable():
        return compile_source(pathname, source)
    key = hash_of(source)
    path = f"{FOLDER}/{key.hex()}.pyc"
    try:
        return external.SourcelessFileLoader("module", path).get_code("module")
    except (OSError, EOFError, ImportError, ValueError):
        code = compile_source(pathname, source)
    keep(path, external._code_to_hash_pyc(code, key))
    return code


class Parsed:
    """A source that is parsed when somebody looks into its tree."""

    def __init__(self, parse, name, source):
        self.source = source if isinstance(source, bytes) else source.encode()
        self.tree = lambda: parse(name, source)

    @property
    def body(self):
        """What ansible-core reads a module's metadata from."""
        return self.tree().body


def teach_builder(builder):
    """Let ansible-core's builder of archives look here first for what a source imports."""
    # Before ansible-core 2.19 there is no function to take the place of.
    if not usable() or not hasattr(builder, "_compile_module_ast"):
        return
    json = importlib.import_module("json")
    parse, find = builder._compile_module_ast, builder.ModuleDepFinder.__init__

    def find_once(self, module, parsed, is_package=False):
        key = hash_of(f"{module} {is_package}\n".encode() + parsed.source)
        path = f"{FOLDER}/{key.hex()}.imports"
        try:
            with open(path, encoding="utf-8") as file:
                found = [{tuple(parts) for parts in names} for names in json.load(file)]
            self.submodules, self.optional_imports = found
        except (OSError, ValueError, TypeError):
            find(self, module, parsed.tree(), is_package)
            found = [sorted(self.submodules), sorted(self.optional_imports)]
            keep(path, json.dumps(found).encode())

    builder._compile_module_ast = lambda name, source: Parsed(parse, name, source)
    builder.ModuleDepFinder.__init__ = find_once


def teach_loader(loader):
    """Let ansible-core's loader of files parse a play's vars_files once, and copy no text."""
    tags = sys.modules.get("ansible.module_utils._internal._datatag")
    if not tags:  # before ansible-core 2.19
        return
    load = loader.DataLoader.load_from_file

    def load_once(self, file_name, cache="all", **options):
        return load(self, file_name, "all" if cache == "vaulted" else cache, **options)

    loader.DataLoader.load_from_file = load_once
    tags._AnsibleTaggedStr.__deepcopy__ = lambda self, _memo: self  # a text doesn't change


LESSONS = {
    "ansible.executor.module_common": teach_builder,
    "ansible.parsing.dataloader": teach_loader,
}


class Watcher:
    """Is asked for each module that is imported, and teaches those that it waits for."""

    @staticmethod
    def find_spec(name, _path=None, _target=None):
        teach = LESSONS.pop(name, None)
        if not teach:
            return None
        spec = importlib.import_module("importlib.util").find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            teach(module)

        spec.loader.exec_module = exec_module
        return spec


zipimport._compile_source = remembered
sys.meta_path.insert(0, Watcher)
