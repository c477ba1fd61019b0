# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Damages a model store as disks, crashes and people do: ``damage.py STORE HOW MODEL...``.

flip      one byte of the weights is another one, the size stays
cut       the weights end in the middle
lose      the weights are gone
empty     the manifest is empty
remove    the manifest and the weights are gone
partial   an unfinished download of the weights, with an empty record of its part, long ago
stray     a file that somebody left beside the manifest
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

LONG_AGO = 1_767_225_600  # 2026-01-01


class Model:
    """One model of the store."""

    def __init__(self, store: Path, name: str) -> None:
        self.store = store
        folder, _colon, tag = name.partition(":")
        self.manifest = store / "manifests" / "registry.ollama.ai" / "library" / folder / tag

    @property
    def weights(self) -> Path:
        """The largest blob."""
        layers = json.loads(self.manifest.read_bytes())["layers"]
        largest = max(layers, key=lambda layer: layer["size"])
        return self.store / "blobs" / largest["digest"].replace(":", "-")

    def flip(self) -> None:
        """Change one byte in the middle of the weights."""
        with self.weights.open("r+b") as file:
            middle = os.fstat(file.fileno()).st_size // 2
            file.seek(middle)
            byte = file.read(1)[0]
            file.seek(middle)
            file.write(bytes([byte ^ 0xFF]))

    def cut(self) -> None:
        """Let the weights end in the middle."""
        os.truncate(self.weights, self.weights.stat().st_size // 2)

    def lose(self) -> None:
        """Remove the weights."""
        self.weights.unlink()

    def empty(self) -> None:
        """Empty the manifest, as a crash while it is written does."""
        os.truncate(self.manifest, 0)

    def remove(self) -> None:
        """Remove manifest and weights, as an engine does with a model."""
        if self.manifest.exists():
            self.weights.unlink(missing_ok=True)
            self.manifest.unlink()

    def partial(self) -> None:
        """Break off a download of the weights, on a disk that was full."""
        data = self.weights.with_name(self.weights.name + "-partial")
        owner = self.manifest.stat()
        for path, content in ((data, b"GGUF"), (data.with_name(data.name + "-0"), b"")):
            path.write_bytes(content)
            os.chown(path, owner.st_uid, owner.st_gid)
            os.utime(path, (LONG_AGO, LONG_AGO))

    def stray(self) -> None:
        """Leave a file beside the manifest."""
        self.manifest.with_name(self.manifest.name + "~").write_text("kept before the update\n")


def main() -> None:
    """Run from the command line."""
    store, how, *names = sys.argv[1:]
    for name in names:
        getattr(Model(Path(store), name), how)()


main()
