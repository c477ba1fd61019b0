# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack the simulated Ollama like an official release: archive and checksum file."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim_ollama.version import at_least

HERE = Path(__file__).resolve().parent
SHEBANG = b"#!/usr/bin/env python3\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
TOOLS = {
    "__main__.py",
    "build_release.py",
    "make_models.py",
    "registry_faults.py",
    "sim_registry.py",
}
MAIN = """import sys

sys.dont_write_bytecode = True

from sim_ollama.cli import main

raise SystemExit(main(sys.argv[1:]))
"""
LLAMA_SERVER = """#!/usr/bin/env python3
# Stands in for llama-server: waits until the server that started it closes the pipe.
import sys

try:
    with open("/proc/self/comm", "w") as name:
        name.write("llama-server")
except OSError:
    pass
while sys.stdin.buffer.read(4096):
    pass
"""
OLD_LIBRARIES = ("libggml-base.so", "libggml-cpu-haswell.so", "libggml-cuda.so")
NEW_LIBRARIES = ("libggml-base.so", "cuda_v12/libggml-cuda.so", "cuda_v13/libggml-cuda.so")
STAND_IN = b"stand-in for a library of the real release\n"


def program(version: str) -> bytes:
    """Return the executable: one file that holds the package and its version."""
    buffer = io.BytesIO(SHEBANG)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        entries = {"__main__.py": MAIN.encode(), "VERSION": f"{version}\n".encode()}
        for path in sorted(HERE.glob("*.py")):
            if path.name not in TOOLS:
                entries[f"sim_ollama/{path.name}"] = path.read_bytes()
        for name, data in entries.items():
            info = zipfile.ZipInfo(name, date_time=EPOCH)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return buffer.getvalue()


def contents(version: str) -> dict[str, tuple[bytes, int]]:
    """Return every file of a release with its mode."""
    files = {
        "bin/ollama": (program(version), 0o755),
        "lib/ollama/VERSION": (f"{version}\n".encode(), 0o644),
    }
    new = at_least(version, "0.30.0")
    for name in NEW_LIBRARIES if new else OLD_LIBRARIES:
        files[f"lib/ollama/{name}"] = (STAND_IN, 0o755)
    if new:
        files["lib/ollama/llama-server"] = (LLAMA_SERVER.encode(), 0o755)
    return files


def tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """Return a tar archive that is the same at every build: fixed times, owner 0:0."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        folders = {str(p) for name in files for p in list(Path(name).parents)[:-1]}
        for name in sorted(folders | set(files)):
            info = tarfile.TarInfo(f"./{name}")
            if name in files:
                data, info.mode = files[name]
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
    return buffer.getvalue()


def build(version: str, out: Path) -> list[Path]:
    """Write the archives and sha256sum.txt below out."""
    out.mkdir(parents=True, exist_ok=True)
    plain = tar(contents(version))
    archives = []
    tgz = out / "ollama-linux-amd64.tgz"
    buffer = io.BytesIO()  # gzip.compress writes another header from one Python to the next
    with gzip.GzipFile("", "wb", 6, buffer, mtime=0) as file:
        file.write(plain)
    tgz.write_bytes(buffer.getvalue())
    archives.append(tgz)
    if at_least(version, "0.14.0"):
        zst = out / "ollama-linux-amd64.tar.zst"
        if shutil.which("zstd") is None:
            raise SystemExit("zstd is needed to pack this version: install the package zstd")
        done = subprocess.run(["zstd", "-q", "-c"], input=plain, capture_output=True, check=True)
        zst.write_bytes(done.stdout)
        archives.append(zst)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  ./{p.name}\n" for p in archives]
    (out / "sha256sum.txt").write_text("".join(lines))
    return [*archives, out / "sha256sum.txt"]


def install(version: str, prefix: Path) -> Path:
    """Unpack a release below a prefix without an archive and return the program."""
    for name, (data, mode) in contents(version).items():
        path = prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    return prefix / "bin" / "ollama"


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    for path in build(args.version.lstrip("v"), args.out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    raise SystemExit(main())
