# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operators' command for the GPU telemetry of a host.

``cli`` is the command line, ``units`` asks and steers systemd, ``data`` and ``account`` read the
collector's files, ``status``, ``stats`` and ``selftest`` judge, ``gauges`` formats figures,
``view`` and ``watch`` draw. Everything below ``cli`` returns plain values; only ``view`` and
``watch`` need rich.
"""
