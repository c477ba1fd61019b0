# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of the catalog shows while it works."""

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_progress import CatalogProgress


class Writer:
    def __init__(self):
        self.told = []

    def update(self, item, phase, done=None, total=None, *, unit="", note=""):
        self.told.append((item, phase, done, total, note))


@pytest.fixture
def writer():
    return Writer()


@pytest.fixture
def progress(writer):
    return CatalogProgress(writer)


def test_one_model(writer, progress):
    progress.update("one:1b", "pulling manifest")
    progress.update("one:1b", "pulling", 3, 9)
    progress.note("one:1b", "stalled for 10 s")
    progress.update("one:1b", "pulling", 4, 9)
    assert writer.told == [
        ("one:1b", "pulling manifest", None, None, ""),
        ("one:1b", "pulling", 3, 9, ""),
        ("one:1b", "pulling", 3, 9, "stalled for 10 s"),
        ("one:1b", "pulling", 4, 9, ""),
    ]


def test_several_models_share_a_line_that_names_them(writer, progress):
    progress.update("one:1b", "pulling", 37, 100)
    progress.update("two:1b", "copying", 20, 200, "slow")
    progress.update("three:1b", "proving")
    assert writer.told[-1] == (
        "3 models",
        "working",
        57,
        300,
        "one:1b pulling 30 %, two:1b copying 10 % (slow), three:1b proving",
    )
    progress.end("one:1b")
    progress.end("three:1b")
    progress.update("two:1b", "copying", 21, 200)
    assert writer.told[-1] == ("two:1b", "copying", 21, 200, "")


def test_a_note_about_something_that_has_not_begun(writer, progress):
    progress.note("one:1b", "stalled for 10 s")
    assert writer.told == [("one:1b", "working", None, None, "stalled for 10 s")]
