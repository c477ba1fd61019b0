# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module model_catalog does besides calling the library."""

from __future__ import annotations

import os
import signal

import pytest

from ansible_collections.hx_infra.llm.plugins.modules import model_catalog


@pytest.fixture
def handlers():
    """Give the signals back after the test."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_are_noted_instead_of_ending_the_program(handlers):
    asked = model_catalog._signals()
    assert asked() == ""
    for number in reversed(handlers):
        os.kill(os.getpid(), number)
    assert asked() == "SIGTERM"


def test_a_token_is_never_shown():
    assert model_catalog.SOURCE_SPEC["token"]["no_log"] is True
