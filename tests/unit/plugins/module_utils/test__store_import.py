# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing into a store: resumed, verified, atomic, and never through a link."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading

import pytest
from store_samples import blob_path, digest_of, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _store_import as store_import
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import Layer, read_store

CONTENT = bytes(range(256)) * 40
LAYER = Layer(digest_of(CONTENT), len(CONTENT))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "store"
    (folder / "blobs").mkdir(parents=True)
    return folder


@pytest.fixture
def writer(root):
    return store_import.StoreWriter(str(root))


def part_of(root, layer=LAYER):
    return root / ".hx" / "incoming" / f"sha256-{layer.digest}.part"


def leave_part(root, content):
    part_of(root).parent.mkdir(parents=True, exist_ok=True)
    part_of(root).write_bytes(content)


class Origin:
    """Where a blob comes from; remembers the offsets that it was opened at."""

    def __init__(self, content=CONTENT, step=1000):
        self.content = content
        self.step = step
        self.offsets = []

    def __call__(self, offset):
        self.offsets.append(offset)
        for at in range(offset, len(self.content), self.step):
            yield self.content[at : at + self.step]


def test_a_blob_gets_its_place(root, writer):
    told = []
    writer.bring(LAYER, Origin(), told.append)
    assert blob_path(root, CONTENT).read_bytes() == CONTENT
    assert (told[0], told[-1]) == (1000, len(CONTENT))
    assert os.listdir(part_of(root).parent) == []
    assert writer.need([LAYER, LAYER]) == []
    assert read_store(str(root)).blobs[LAYER.digest].size == len(CONTENT)


def test_an_empty_blob(root, writer):
    writer.bring(Layer(digest_of(b""), 0), Origin(b""))
    assert blob_path(root, b"").read_bytes() == b""


@pytest.mark.parametrize("there", [1, 5000, len(CONTENT) - 1])
def test_it_goes_on_from_where_it_stopped(root, writer, there):
    leave_part(root, CONTENT[:there])
    origin = Origin()
    writer.bring(LAYER, origin)
    assert origin.offsets == [there]
    assert blob_path(root, CONTENT).read_bytes() == CONTENT


def test_a_part_that_is_complete_needs_no_source(root, writer):
    leave_part(root, CONTENT)
    origin = Origin()
    writer.bring(LAYER, origin)
    assert origin.offsets == []
    assert blob_path(root, CONTENT).exists()


@pytest.mark.parametrize("left", [b"\0" * 5000, b"\0" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_what_was_left_may_be_wrong(root, writer, left):
    leave_part(root, left)
    origin = Origin()
    writer.bring(LAYER, origin)
    assert origin.offsets[-1] == 0
    assert blob_path(root, CONTENT).read_bytes() == CONTENT


def test_a_flipped_byte_is_refused_and_named(root, writer):
    bad = b"!" + CONTENT[1:]
    with pytest.raises(HostError, match=f"{LAYER.digest} that came has the digest") as caught:
        writer.bring(LAYER, Origin(bad))
    assert digest_of(bad) in caught.value.message
    assert not blob_path(root, CONTENT).exists()
    assert part_of(root).stat().st_size == 0


def test_too_much_and_too_little(root, writer):
    with pytest.raises(HostError, match="more than its 10240 bytes came"):
        writer.bring(LAYER, Origin(CONTENT + b"x"))
    part_of(root).unlink()
    with pytest.raises(HostError, match="ends after 5000 of 10240 bytes"):
        writer.bring(LAYER, Origin(CONTENT[:5000]))
    assert part_of(root).read_bytes() == CONTENT[:5000]


def test_a_source_that_breaks_leaves_what_came(root, writer):
    def breaks(_offset):
        yield CONTENT[:3000]
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    with pytest.raises(HostError, match="can't be read: Connection reset by peer"):
        writer.bring(LAYER, breaks)
    assert part_of(root).read_bytes() == CONTENT[:3000]


def test_a_full_disk_keeps_what_was_written(root, writer, monkeypatch):
    real, written = store_import._write_all, []

    def full(descriptor, data):
        if sum(written) + len(data) > 4000:
            real(descriptor, data[:500])
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(len(data))
        real(descriptor, data)

    origin = Origin()
    with monkeypatch.context() as patched:
        patched.setattr(store_import, "_write_all", full)
        with pytest.raises(HostError, match=r"4.0KB of 10.2KB in it: No space left") as caught:
            writer.bring(LAYER, origin)
    assert "Free disk space and run again" in caught.value.remedy
    assert isinstance(caught.value.__cause__, OSError)
    assert part_of(root).stat().st_size == 4500
    writer.bring(LAYER, origin)
    assert origin.offsets == [0, 4500]
    assert blob_path(root, CONTENT).read_bytes() == CONTENT


def test_a_whole_blob_is_left_alone(root, writer):
    blob_path(root, CONTENT).write_bytes(CONTENT)
    before = blob_path(root, CONTENT).stat()
    origin = Origin()
    writer.bring(LAYER, origin)
    assert (origin.offsets, blob_path(root, CONTENT).stat()) == ([], before)
    assert not (root / ".hx").exists()


def test_a_whole_one_may_be_a_link(root, writer, tmp_path):
    other = tmp_path / "elsewhere"
    other.write_bytes(CONTENT)
    path = root / "blobs" / f"sha256-{LAYER.digest}"
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(other)
    assert writer.need([LAYER]) == []
    other.unlink()
    assert writer.need([LAYER]) == [LAYER]


def test_one_of_another_length_is_replaced(root, writer):
    blob_path(root, CONTENT).write_bytes(b"cut")
    assert writer.need([LAYER]) == [LAYER]
    writer.bring(LAYER, Origin())
    assert blob_path(root, CONTENT).read_bytes() == CONTENT


def test_two_models_that_share_a_blob_bring_it_once(root, writer):
    opened, go_on = threading.Event(), threading.Event()
    origin = Origin()

    def slow(offset):
        opened.set()
        assert go_on.wait(10)
        yield from origin(offset)

    threads = [threading.Thread(target=writer.bring, args=(LAYER, slow)) for _turn in range(2)]
    threads[0].start()
    assert opened.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert origin.offsets == [0]
    assert blob_path(root, CONTENT).read_bytes() == CONTENT


def test_another_process_writes_it(root, writer):
    leave_part(root, b"")
    with part_of(root).open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(HostError, match="is being written by another process"):
            writer.bring(LAYER, Origin())


@pytest.mark.parametrize(
    ("mode", "folder_mode", "file_mode"), [(0o755, 0o755, 0o644), (0o750, 0o750, 0o640)]
)
def test_modes_are_those_of_the_store(root, writer, mode, folder_mode, file_mode):
    (root / "blobs").chmod(mode)
    manifest = manifest_of(LAYER)
    writer.bring(LAYER, Origin())
    writer.place_manifest(parse_name("x"), manifest, digest_of(manifest))
    path = root / parse_name("x").manifest
    assert stat.S_IMODE(blob_path(root, CONTENT).stat().st_mode) == file_mode
    assert stat.S_IMODE(path.stat().st_mode) == file_mode
    assert stat.S_IMODE(path.parent.stat().st_mode) == folder_mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_that_of_the_blobs(root, writer):
    os.chown(root / "blobs", 12345, 23456)
    manifest = manifest_of(LAYER)
    writer.bring(LAYER, Origin())
    writer.place_manifest(parse_name("x"), manifest, digest_of(manifest))
    for path in (blob_path(root, CONTENT), root / parse_name("x").manifest, root / "manifests"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


@pytest.mark.parametrize(("left", "mode"), [((), 0o755), (("mine",), 0o700)])
def test_a_folder_that_a_killed_run_made_gets_its_mode_late(root, writer, left, mode):
    (root / "blobs").chmod(0o755)
    folder = root / ".hx"
    folder.mkdir(0o700)
    for name in left:
        (folder / name).write_text("")
    writer.bring(LAYER, Origin())
    assert stat.S_IMODE(folder.stat().st_mode) == mode


@pytest.mark.parametrize("name", [".hx", ".hx/incoming", "blobs", "part"])
def test_nothing_is_written_through_a_link(root, writer, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = elsewhere / "file"
    target.write_bytes(b"precious")
    link, value = root / name, elsewhere
    if name == "blobs":
        link.rmdir()
    if name == "part":
        link, value = part_of(root), target
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(value)
    with pytest.raises(HostError):
        writer.bring(LAYER, Origin())
    assert os.listdir(elsewhere) == ["file"]
    assert target.read_bytes() == b"precious"


def test_a_part_that_is_another_files_second_name(root, writer, tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"precious")
    part_of(root).parent.mkdir(parents=True)
    os.link(target, part_of(root))
    with pytest.raises(HostError, match="no plain file of its own"):
        writer.bring(LAYER, Origin())
    assert target.read_bytes() == b"precious"


def test_no_store(tmp_path):
    writer = store_import.StoreWriter(str(tmp_path / "none"))
    assert writer.need([LAYER]) == [LAYER]
    with pytest.raises(HostError, match="nothing can be written to the store"):
        writer.bring(LAYER, Origin())


def manifest_of(*layers):
    entries = [{"digest": f"sha256:{layer.digest}", "size": layer.size} for layer in layers]
    return json.dumps({"layers": entries}).encode()


def test_a_manifest_comes_last(root, writer):
    name, manifest = parse_name("host:5000/a/x:1b"), manifest_of(LAYER)
    with pytest.raises(HostError, match=f"its blob sha256-{LAYER.digest} is not in"):
        writer.place_manifest(name, manifest, digest_of(manifest))
    assert not (root / "manifests").exists()
    writer.bring(LAYER, Origin())
    writer.place_manifest(name, manifest, digest_of(manifest))
    store = read_store(str(root))
    assert (store.find(name).digest, store.stray, store.corrupt) == (digest_of(manifest), [], {})
    assert os.listdir(part_of(root).parent) == []


def test_a_manifest_replaces_the_old_one_whatever_its_case(root, writer):
    path = write_model(root, "Library/Tiny:1B", b"old")
    manifest = manifest_of(LAYER)
    writer.bring(LAYER, Origin())
    writer.place_manifest(parse_name("library/tiny:1b"), manifest, digest_of(manifest))
    assert path.read_bytes() == manifest
    assert len(read_store(str(root)).models) == 1


def test_manifests_that_are_refused(root, writer):
    name = parse_name("x")
    with pytest.raises(HostError, match=f"the digest {digest_of(b'{}')}, wanted 0000"):
        writer.place_manifest(name, b"{}", "0" * 64)
    with pytest.raises(HostError, match="can't be used: it has no list of layers"):
        writer.place_manifest(name, b"{}", digest_of(b"{}"))
    assert not (root / "manifests").exists()


def test_a_manifest_that_a_killed_run_left(root, writer):
    manifest = manifest_of(LAYER)
    writer.bring(LAYER, Origin())
    key = digest_of(parse_name("x").key.encode())[:16]
    left = part_of(root).parent / f"manifest-{key}.new"
    left.write_bytes(manifest[:5])
    writer.place_manifest(parse_name("x"), manifest, digest_of(manifest))
    assert (root / parse_name("x").manifest).read_bytes() == manifest
    assert not left.exists()


def test_two_models_of_one_manifest_at_once(root, writer, monkeypatch):
    manifest = manifest_of(LAYER)
    writer.bring(LAYER, Origin())
    written, problems = threading.Barrier(2, timeout=20), []
    write_all = store_import._write_all

    def write_together(descriptor, data):
        write_all(descriptor, data)
        written.wait()

    def place(name):
        try:
            writer.place_manifest(parse_name(name), manifest, digest_of(manifest))
        except HostError as error:
            problems.append(str(error))

    monkeypatch.setattr(store_import, "_write_all", write_together)
    threads = [threading.Thread(target=place, args=(name,)) for name in ("q:8b", "q:latest")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(read_store(str(root)).models) == 2
    assert os.listdir(part_of(root).parent) == []


def test_a_full_disk_leaves_the_old_manifest(root, writer, monkeypatch):
    path = write_model(root, "x", b"old")
    before = path.read_bytes()
    manifest = manifest_of(LAYER)
    writer.bring(LAYER, Origin())

    def full(_descriptor, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_import, "_write_all", full)
    with pytest.raises(HostError, match="No space left"):
        writer.place_manifest(parse_name("x"), manifest, digest_of(manifest))
    assert path.read_bytes() == before
    assert os.listdir(part_of(root).parent) == []
