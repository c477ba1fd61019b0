# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The NVML reader's text, and what of it needs no NVML."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _gpu_nvml,
    _gpu_nvml_child,
    _gpu_nvml_full,
)

SAFE_ARGUMENT_BYTES = 128 * 1024  # Linux, MAX_ARG_STRLEN: the longest single argument


def defined(module):
    """Return the names that a text gives a meaning, without what it imports."""
    names = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets += [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            names |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def test_the_two_texts_do_not_touch_each_other():
    assert not defined(_gpu_nvml_child) & defined(_gpu_nvml_full)


def test_the_whole_text_is_a_program_that_one_argument_can_hold():
    text = _gpu_nvml.program()
    compile(text, "reader", "exec")
    assert len(text.encode()) < SAFE_ARGUMENT_BYTES
    assert text.count(_gpu_nvml.FUTURE) == 1


@pytest.mark.parametrize(
    ("text", "sets"),
    [(inspect.getsource(_gpu_nvml_child), "sample"), (_gpu_nvml.program(), "full,sample")],
)
def test_sets_of_readings(text, sets):
    argv = [sys.executable, "-I", "-B", "-c", text, "--help"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert f"--set {{{sets}}}" in ended.stdout


def test_a_sample_is_part_of_everything():
    space = {"__name__": "reader"}
    exec(compile(_gpu_nvml.program(), "reader", "exec"), space)  # noqa: S102 - our own text
    assert set(space["SETS"]["sample"]) < set(space["SETS"]["full"])
    assert len(space["SETS"]["full"]) == len(set(space["SETS"]["full"]))


def test_without_the_binding(tmp_path):
    argv = [sys.executable, "-I", "-S", "-B", "-c", _gpu_nvml.program()]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert '"state": "no_binding"' in ended.stdout


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], {}),
        (["nvidia_ml_py-13.615.71.dist-info"], {"nvidia-ml-py": "13.615.71"}),
        (["nvidia-ml-py-12.535.161.egg-info"], {"nvidia-ml-py": "12.535.161"}),
        (
            ["pynvml-13.0.1.dist-info", "nvidia_ml_py-13.580.82.dist-info", "pynvml.py"],
            {"nvidia-ml-py": "13.580.82", "pynvml": "13.0.1"},
        ),
        (["pynvml_utils-1.0.dist-info", "my_pynvml-2.dist-info", "pynvml-11.5.0"], {}),
    ],
)
def test_installed_packages(tmp_path, names, found):
    for name in names:
        (tmp_path / name).mkdir()
    folders = [str(tmp_path / "not-there"), str(tmp_path)]
    assert _gpu_nvml_full.installed_packages(folders) == found


@pytest.mark.parametrize(
    ("names", "package", "noted"),
    [
        (["nvidia_ml_py-13.615.71.dist-info"], "nvidia-ml-py", False),
        (["nvidia_ml_py-13.615.71.dist-info", "pynvml-13.0.1.dist-info"], "nvidia-ml-py", True),
        (["pynvml-11.5.0.dist-info"], "pynvml", True),
        ([], None, False),
    ],
)
def test_about_the_binding(tmp_path, monkeypatch, names, package, noted):
    for name in names:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    about = _gpu_nvml_full.about_binding()
    assert about.get("package", {}).get("name") == package
    assert [note["what"] for note in about.get("notes", [])] == ["package"] * noted


class Clock:
    """A wall clock that moves while somebody waits, and what stdin does then."""

    def __init__(self, monkeypatch, now, jumps=(), ends=False):
        self.now, self.jumps, self.ends = now, list(jumps), ends
        self.waited = []
        monkeypatch.setattr(_gpu_nvml_child.time, "time", lambda: self.now)
        monkeypatch.setattr(_gpu_nvml_child.select, "select", self.select)
        monkeypatch.setattr(_gpu_nvml_child.os, "read", lambda *_arguments: b"")

    def select(self, readable, _writable, _odd, seconds):
        self.waited.append(seconds)
        self.now += seconds + (self.jumps.pop(0) if self.jumps else 0)
        return (readable if self.ends else []), [], []


@pytest.mark.parametrize(
    ("now", "jumps", "at"),
    [
        (1003.0, [], 1010.0),
        (1010.0, [], 1020.0),  # a multiple that has just gone by is not taken twice
        (1003.0, [-0.5], 1010.0),  # woken too early
        (1003.0, [3600.0], 4610.0),  # the clock was set forward: the latest multiple
        (1003.0, [-500.0], 520.0),  # ... back: the next one there is now
    ],
)
def test_next_multiple(monkeypatch, now, jumps, at):
    clock = Clock(monkeypatch, now, jumps)
    assert _gpu_nvml_child.next_multiple(10.0) == at
    assert max(clock.waited) <= 10.0


def test_the_input_ends_while_it_waits(monkeypatch):
    Clock(monkeypatch, 1003.0, ends=True)
    assert _gpu_nvml_child.next_multiple(10.0) is None
