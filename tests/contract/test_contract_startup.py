# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts about start-up, and about a store of one's own: each test starts the program itself."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from contract_http import Api, free_port

TRAVERSABLE = "ensure path elements are traversable"
CORRUPT = "corrupt manifests detected, skipping prune operation.  Re-pull or delete to clear"
ORPHAN = "sha256-" + "1" * 64
PARTIAL = "sha256-" + "2" * 64 + "-partial"
START_SECONDS = 60.0
NOBODY = 65534


class Server:
    """One start of the program with a store and a home of its own."""

    def __init__(self, program, tmp):
        self.program = program
        self.home = tmp / "home"
        self.home.mkdir()
        self.store = tmp / "store"
        self.blobs = self.store / "blobs"
        self.log_path = tmp / "log"
        self.process = None
        self.api = None

    def launch(self, **env):
        """Start the program."""
        port = free_port()
        self.api = Api(f"http://127.0.0.1:{port}")
        values = {
            "HOME": str(self.home),
            "OLLAMA_HOST": f"127.0.0.1:{port}",
            "OLLAMA_MODELS": str(self.store),
            **env,
        }
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "serve"], env={**os.environ, **values}, stdout=log, stderr=log
            )

    def start(self, **env):
        """Start the program and wait until it answers."""
        self.launch(**env)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                return self.api.version()
            except OSError:
                time.sleep(0.05)
        raise AssertionError(self.log())

    def stop(self):
        """Stop the program."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=20)

    def log(self):
        """Return what the program has printed."""
        return self.log_path.read_text(errors="replace")

    def plant(self, name, old=False):
        """Put a file into blobs, two hours old if asked."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        path = self.blobs / name
        path.write_bytes(b"contract")
        if old:
            before = time.time() - 7200
            os.utime(path, (before, before))
        return path


@pytest.fixture
def server(program, tmp_path):
    """A server that is not started yet."""
    made = Server(program, tmp_path)
    yield made
    made.stop()


def test_directories_and_keys(server):
    """The first start makes blobs/, and the key pair (private half 0600) in HOME."""
    server.start()
    assert server.blobs.is_dir()
    key = server.home / ".ollama" / "id_ed25519"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (server.home / ".ollama" / "id_ed25519.pub").read_text().startswith("ssh-ed25519 ")


def test_keys_stay(server):
    """A later start keeps the key pair."""
    server.start()
    key = (server.home / ".ollama" / "id_ed25519").read_bytes()
    server.stop()
    server.start()
    assert (server.home / ".ollama" / "id_ed25519").read_bytes() == key


def test_start_log_prints_the_effective_values(server):
    """The log line `server config` prints the effective values of the environment."""
    server.start(OLLAMA_NUM_PARALLEL="3", OLLAMA_NOPRUNE="1")
    line = next(x for x in server.log().splitlines() if "server config" in x)
    assert f"OLLAMA_MODELS:{server.store}" in line
    assert "OLLAMA_NUM_PARALLEL:3" in line
    assert "OLLAMA_NOPRUNE:true" in line


def test_inference_compute_line(server):
    """The log has `inference compute` with `library=`: one line per GPU, or one for the CPU."""
    server.start()
    end = time.monotonic() + START_SECONDS
    while "inference compute" not in server.log() and time.monotonic() < end:
        time.sleep(0.05)
    assert "library=" in next(x for x in server.log().splitlines() if "inference compute" in x)


def test_old_leftovers_are_pruned(server):
    """Unreferenced blobs and partial downloads that are hours old go at start, at any version."""
    for name in (ORPHAN, PARTIAL, f"{PARTIAL}-0"):
        server.plant(name, old=True)
    server.start()
    assert list(server.blobs.iterdir()) == []


def test_fresh_leftovers(server):
    """Before 0.21.0 fresh partials are pruned too; from then on an hour of grace spares them."""
    for name in (ORPHAN, PARTIAL, f"{PARTIAL}-0"):
        server.plant(name)
    version = server.start()
    assert len(list(server.blobs.iterdir())) == (3 if version >= (0, 21, 0) else 0)


@pytest.mark.parametrize("value", ["1", "true", "off"])
def test_noprune_keeps_everything(server, value):
    """OLLAMA_NOPRUNE keeps all; a value that is no boolean counts as true ("off" too)."""
    server.plant(ORPHAN, old=True)
    server.plant(PARTIAL, old=True)
    server.start(OLLAMA_NOPRUNE=value)
    assert len(list(server.blobs.iterdir())) == 2


@pytest.mark.parametrize("tag", ["latest", "bad name.bak"])
def test_a_bad_manifest_skips_pruning(server, tag):
    """An unreadable manifest, or a file with an invalid name, four levels deep: no prune at all."""
    server.plant(ORPHAN, old=True)
    folder = server.store / "manifests" / "registry.ollama.ai" / "library" / "broken"
    folder.mkdir(parents=True)
    (folder / tag).write_text("{")
    server.start()
    assert (server.blobs / ORPHAN).exists()
    assert CORRUPT in server.log()


def test_a_loose_file_does_not_hinder_pruning(server):
    """Files that are not four levels deep below manifests/ don't count: pruning goes on."""
    server.plant(ORPHAN, old=True)
    folder = server.store / "manifests" / "registry.ollama.ai"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("{")
    server.start()
    assert not (server.blobs / ORPHAN).exists()
    assert CORRUPT not in server.log()
    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize("noprune", ["0", "1"])
def test_other_directories_of_the_store_are_left_alone(server, noprune):
    """Start-up, pruning included, reads blobs/ and manifests/ only, whatever else is in there."""
    aside = server.store / ".hx" / "aside" / ORPHAN
    coming = server.store / ".hx" / "incoming" / f"{ORPHAN}.part"
    before = time.time() - 7200
    for path in (aside, coming):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"contract")
        os.utime(path, (before, before))
    server.start(OLLAMA_NOPRUNE=noprune)
    assert aside.read_bytes() == coming.read_bytes() == b"contract"
    assert server.api.get("/api/tags").json()["models"] in ([], None)
    assert CORRUPT not in server.log()


def test_models_that_are_put_there_by_hand(server, store, model):
    """Blobs, then the manifest, copied into the store of a running server: it serves the model."""
    if "/" in model:
        pytest.skip("the model under test has no short name")
    server.start()
    name, tag = model.split(":")
    relative = Path("manifests", "registry.ollama.ai", "library", name, tag)
    manifest = json.loads((store / relative).read_bytes())
    for layer in [manifest["config"], *manifest["layers"]]:
        blob = Path("blobs", layer["digest"].replace(":", "-"))
        shutil.copy(store / blob, server.store / blob)
    assert server.api.listed(model) is None
    (server.store / relative).parent.mkdir(parents=True)
    shutil.copy(store / relative, server.store / relative)
    assert server.api.listed(model) is not None
    request = {"model": model, "prompt": "x", "stream": False, "options": {"num_predict": 2}}
    assert server.api.post("/api/generate", request).json()["done"] is True


@pytest.mark.parametrize(("noprune", "stays"), [("0", False), ("1", True)])
def test_a_pull_of_a_moved_tag(server, remote, noprune, stays):
    """When a tag has moved, a pull removes the old version's layers, unless OLLAMA_NOPRUNE."""
    server.start(OLLAMA_NOPRUNE=noprune)
    pull = {"model": remote, "insecure": True, "stream": False}
    assert server.api.post("/api/pull", pull).status == 200
    host, namespace, rest = remote.split("/")
    manifest = server.store / "manifests" / host / namespace / rest.replace(":", "/")
    old = json.loads(manifest.read_bytes())
    own = hashlib.sha256(b"contract").hexdigest()
    layer = {"mediaType": "application/vnd.ollama.image.license", "size": 8}
    old["layers"].append({**layer, "digest": f"sha256:{own}"})
    server.plant(f"sha256-{own}")
    manifest.write_text(json.dumps(old))
    assert server.api.post("/api/pull", pull).status == 200
    assert (server.blobs / f"sha256-{own}").exists() is stays
    assert len(json.loads(manifest.read_bytes())["layers"]) == len(old["layers"]) - 1


def test_empty_manifest_directories_go(server):
    """Pruning removes empty directories below manifests."""
    folder = server.store / "manifests" / "registry.ollama.ai" / "library" / "gone"
    folder.mkdir(parents=True)
    server.start()
    assert not folder.exists()


def test_colon_blobs_are_renamed(server):
    """Blobs of the oldest layout, sha256:<hex>, are renamed at start."""
    server.plant("sha256:" + "3" * 64)
    server.start(OLLAMA_NOPRUNE="1")
    assert [p.name for p in server.blobs.iterdir()] == ["sha256-" + "3" * 64]


def test_a_symlink_to_a_directory_is_fine(server, tmp_path):
    """OLLAMA_MODELS may be a symlink to a directory that the user can traverse."""
    (tmp_path / "real").mkdir()
    server.store.symlink_to(tmp_path / "real")
    server.start()
    assert (tmp_path / "real" / "blobs").is_dir()


def test_a_dangling_symlink_ends_the_start(server, tmp_path):
    """A dangling symlink: `mkdir ..: file exists: ensure path elements are traversable`, exit 1."""
    server.store.symlink_to(tmp_path / "nowhere")
    server.launch()
    assert server.process.wait(timeout=START_SECONDS) == 1
    assert f"file exists: {TRAVERSABLE}" in server.log()


def test_an_untraversable_parent_ends_the_start(program):
    """A parent without x: `mkdir ..: permission denied: ensure ..`, exit 1."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        own_program = shutil.copy(program, folder / "ollama")
        (folder / "home").mkdir()
        (folder / "home").chmod(0o777)
        (folder / "closed").mkdir()
        (folder / "closed").chmod(0o600)
        done = subprocess.run(
            [own_program, "serve"],
            env={
                **os.environ,
                "HOME": str(folder / "home"),
                "OLLAMA_HOST": f"127.0.0.1:{free_port()}",
                "OLLAMA_MODELS": str(folder / "closed" / "store"),
            },
            user=NOBODY if os.geteuid() == 0 else None,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    assert f"permission denied: {TRAVERSABLE}" in done.stderr + done.stdout


def test_an_absent_mount_gives_an_empty_store(server, tmp_path):
    """If the parent is writable, a missing store is made anew, empty: no error at all."""
    server.store = tmp_path / "mount" / "models"
    server.start()
    assert server.api.get("/api/tags").json()["models"] in ([], None)
