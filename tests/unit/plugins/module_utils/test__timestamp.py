# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._timestamp import utc


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (None, ""),
        (0, "1970-01-01T00:00:00Z"),
        (1_767_225_599.999999, "2025-12-31T23:59:59Z"),
        (1_767_225_600.0, "2026-01-01T00:00:00Z"),
    ],
)
def test_a_moment_is_written_in_utc_wherever_the_host_is(
    monkeypatch: pytest.MonkeyPatch, moment: float | None, text: str
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert utc(moment) == text
    finally:
        monkeypatch.undo()
        time.tzset()
