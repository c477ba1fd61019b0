# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_stable as stable

UNIT = "citadel-llm@tiny.service"
LISTED = """\
citadel-llm@other.service loaded active running vLLM inference service other
citadel-llm@tiny.service  loaded active running vLLM inference service tiny
"""
MIB = 1024**2


def test_what_is_looked_at(tmp_path):
    asked = []

    def run(argv):
        asked.append(argv)
        return 0, LISTED, ""

    (tmp_path / "vmstat").write_text("nr_free_pages 5\noom_kill 7\noom_kill_other 9\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 2048 kB\n")
    found = stable.look(UNIT, run, str(tmp_path))
    assert found == stable.Sight(frozenset([UNIT, "citadel-llm@other.service"]), 7, 2 * MIB)
    [argv] = asked
    assert argv[-1] == "citadel-llm@*.service"
    assert "--state=active" in argv


def test_a_host_that_does_not_tell(tmp_path):
    found = stable.look(UNIT, lambda _argv: (1, "", "no"), str(tmp_path))
    assert found == stable.Sight(frozenset(), None, None)
    assert stable.unstable(UNIT, found, found) == ""
    assert stable.killed_between(found, stable.Sight(oom_kills=3)) is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (stable.Sight(), stable.Sight(), ""),
        # Itself may be away for a moment, and others may have come.
        (stable.Sight(frozenset([UNIT])), stable.Sight(frozenset(["x@b.service"])), ""),
        (stable.Sight(frozenset(["a", "b"])), stable.Sight(frozenset(["b"])), "a was active"),
        (stable.Sight(oom_kills=3), stable.Sight(oom_kills=5), "has killed 2 times"),
        (stable.Sight(memory=9), stable.Sight(memory=stable.MEMORY_FLOOR), ""),
        (stable.Sight(), stable.Sight(memory=255 * MIB), "255 MiB of memory are available"),
    ],
)
def test_a_host_is_stable_or_it_is_said_why_not(before, after, said):
    found = stable.unstable(UNIT, before, after)
    assert found.startswith(said) if said.startswith("a was") else said in found
    assert bool(found) is bool(said)


def test_the_sentence_says_only_what_was_looked_at():
    least = {"stable_seconds": 5.0, "main_pid": 7, "restarts": 0, "active_units": []}
    assert stable.sentence(UNIT, least) == (
        f"{UNIT} serves again: for 5 s it stayed active with process 7 and 0 restarts;"
        " other vLLM services active as before: none there."
    )
