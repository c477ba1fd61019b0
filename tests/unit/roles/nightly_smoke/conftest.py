# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import sys
from pathlib import Path

FILES = Path(__file__).parents[4] / "roles" / "nightly_smoke" / "files"
sys.path.insert(0, str(FILES))
