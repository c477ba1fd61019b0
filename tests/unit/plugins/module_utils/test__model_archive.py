# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives of models: the same for the same models, verified, replaced as a whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from types import SimpleNamespace

import pytest
from store_samples import blob_path, digest_of, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _model_archive as archives
from ansible_collections.hx_infra.llm.plugins.module_utils import _model_archive_format as formats
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter
from ansible_collections.hx_infra.llm.plugins.modules import model_archive as module

SHARED, ONE, TWO = b"shared" * 50, bytes(range(256)) * 40, b"two" * 90
NAMES = ["one:1b", "host:5000/a/two:1b"]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "store"
    write_model(folder, NAMES[0], ONE, SHARED)
    write_model(folder, NAMES[1], TWO, SHARED)
    write_model(folder, "three:1b", b"three")
    return folder


def export(root, path, *names, check=False, **options):
    params = {"store": str(root), "path": str(path), "models": list(names or NAMES)}
    params = {"verify": False, **params, **options}
    return module.export(params, check, ProgressWriter(None))


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_any_tar_program_can_read_it(root, tmp_path):
    path = tmp_path / "models.tar"
    result = export(root, path)
    assert result["changed"]
    assert result["actions"] == [f"Write {path} (20.5KB, models: 2)."]
    assert result["bytes"] == path.stat().st_size
    assert path.stat().st_size % 10240 == 0
    assert result["checksum"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    sidecar = (tmp_path / "models.tar.sha256").read_text()
    assert sidecar == f"{result['checksum'][7:]}  models.tar\n"
    with tarfile.open(path) as tar:
        members = tar.getnames()
        index = json.load(tar.extractfile("hx-models.json"))
        for name in members[1:]:
            assert tar.extractfile(name).read() == (root / name).read_bytes()
    assert index["format"] == 1
    assert [entry["name"] for entry in index["models"]] == [
        "registry.ollama.ai/library/one:1b",
        "host:5000/a/two:1b",
    ]
    assert [name.partition("/")[0] for name in members] == (
        ["hx-models.json"] + ["manifests"] * 2 + ["blobs"] * 4
    )
    assert [model["name"] for model in result["models"]] == NAMES
    assert sorted(content_of(tmp_path)) == ["models.tar", "models.tar.sha256"]


def test_the_same_models_give_the_same_archive(root, tmp_path):
    first, second = tmp_path / "a.tar", tmp_path / "b.tar"
    export(root, first)
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    export(root, second)
    assert first.read_bytes() == second.read_bytes()


def test_a_blob_larger_than_old_tar_headers_can_say():
    size = 9 * 1024**3
    head = formats.header(f"blobs/sha256-{'0' * 64}", size)
    with tarfile.open(fileobj=io.BytesIO(head + bytes(1024)), mode="r|") as tar:
        assert tar.next().size == size
    assert len(head) % 512 == 0


def test_a_second_run_changes_nothing(root, tmp_path):
    path = tmp_path / "models.tar"
    first = export(root, path)
    before = (content_of(tmp_path), path.stat())
    for options in ({}, {"check": True}, {"verify": True}):
        again = export(root, path, **options)
        assert (again["changed"], again["actions"]) == (False, [])
        assert again["checksum"] == first["checksum"]
    assert (content_of(tmp_path), path.stat()) == before


def test_check_mode_writes_nothing(root, tmp_path):
    result = export(root, tmp_path / "models.tar", check=True)
    assert (result["changed"], result["checksum"]) == (True, "")
    assert result["bytes"] == export(root, tmp_path / "models.tar")["bytes"]
    before = content_of(tmp_path)
    assert export(root, tmp_path / "models.tar", "one:1b", check=True)["changed"]
    assert content_of(tmp_path) == before


def test_other_models_replace_it(root, tmp_path):
    path = tmp_path / "models.tar"
    export(root, path)
    write_model(root, "one:1b", b"newer", SHARED)
    second = export(root, path)
    assert second["changed"]
    assert second["checksum"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert not export(root, path)["changed"]
    assert export(root, path, "one:1b")["changed"]


@pytest.mark.parametrize("text", [None, "", "no checksum", f"{'0' * 64}  other.tar\n"])
def test_without_its_checksum_it_is_written_anew(root, tmp_path, text):
    path = tmp_path / "models.tar"
    first = export(root, path)
    sidecar = tmp_path / "models.tar.sha256"
    if text is None:
        sidecar.unlink()
    else:
        sidecar.write_text(text)
    again = export(root, path)
    assert (again["changed"], again["checksum"]) == (True, first["checksum"])


def test_damage_is_found_on_request(root, tmp_path):
    path = tmp_path / "models.tar"
    first = export(root, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(TWO, TWO[:-1] + b"!"))
    assert not export(root, path)["changed"]
    result = export(root, path, verify=True)
    assert "since it is damaged" in result["actions"][0]
    assert (result["checksum"], path.read_bytes()) == (first["checksum"], content)


def test_a_damaged_blob_leaves_the_old_archive(root, tmp_path):
    path = tmp_path / "models.tar"
    export(root, path, "one:1b")
    before = content_of(tmp_path)
    bad = b"!" + TWO[1:]
    blob_path(root, TWO).write_bytes(bad)
    with pytest.raises(HostError, match=digest_of(bad)) as caught:
        export(root, path)
    assert str(blob_path(root, TWO)) in caught.value.message
    assert content_of(tmp_path) == before


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["none:1b"], "none:1b can't be given away: .* doesn't have it"),
        (["one:1b"], f"its blob sha256-{digest_of(ONE)} is missing"),
        (["broken:1b"], "its manifest can't be used: it is empty"),
        (["a b"], "is no model name"),
    ],
)
def test_models_that_can_not_be_given_away(root, tmp_path, names, text):
    blob_path(root, ONE).unlink()
    write_model(root, "broken:1b", b"broken").write_text("")
    with pytest.raises(HostError, match=text):
        export(root, tmp_path / "models.tar", *names)
    assert content_of(tmp_path) == {}


def test_the_disk_must_take_it(root, tmp_path, monkeypatch):
    full = SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr(archives.os, "statvfs", lambda _path: full)
    with pytest.raises(HostError, match=r"takes 2.*KB, 4\.1KB are free"):
        export(root, tmp_path / "models.tar")
    assert content_of(tmp_path) == {}


def test_the_directory_must_be_there(root, tmp_path):
    with pytest.raises(HostError, match="No such file or directory"):
        export(root, tmp_path / "none" / "models.tar")


def test_two_exports_at_once(root, tmp_path):
    path = tmp_path / "models.tar"
    store = read_store(str(root))
    draft = archives.draft(store, NAMES)
    seen = []

    def meanwhile(_done):
        if not seen:
            with pytest.raises(HostError, match="is being written by another run") as caught:
                export(root, path)
            seen.append(caught)

    archives.write(store, str(path), draft, meanwhile)
    assert not export(root, path)["changed"]


def test_absent(root, tmp_path):
    path = tmp_path / "models.tar"
    export(root, path)
    (tmp_path / "models.tar.part").write_bytes(b"left by a killed run")
    assert module.remove(str(path), check_mode=True)["changed"]
    assert len(content_of(tmp_path)) == 3
    assert len(module.remove(str(path), check_mode=False)["actions"]) == 3
    assert content_of(tmp_path) == {}
    assert not module.remove(str(path), check_mode=False)["changed"]


def packed(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    buffer.seek(0)
    return tarfile.open(fileobj=buffer, mode="r|")


PATH = "manifests/registry.ollama.ai/library/x/1b"
MANIFEST = b'{"layers":[]}'


def index(**entry):
    values = {"manifest": PATH, "digest": f"sha256:{digest_of(MANIFEST)}", **entry}
    return json.dumps({"format": 1, "models": [values]}).encode()


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([("other", b"")], "'other' where hx-models.json belongs"),
        ([("hx-models.json", b"{")], "is no JSON"),
        ([("hx-models.json", b"[]")], "has no list of models"),
        ([("hx-models.json", b'{"format":2,"models":[]}')], "its format is 2, wanted 1"),
        ([("hx-models.json", index(manifest="../x"))], r"the manifest '\.\./x'"),
        ([("hx-models.json", index(manifest=f"x{PATH[1:]}"))], "the manifest 'xanifests"),
        ([("hx-models.json", index()), ("x", b"")], f"'x' where {PATH} belongs"),
        ([("hx-models.json", index())], f"'nothing' where {PATH} belongs"),
        ([("hx-models.json", index()), (PATH, b"{}")], "it has no list of layers"),
        ([("hx-models.json", index(digest="0")), (PATH, MANIFEST)], "its index says 0"),
    ],
)
def test_archives_of_others(members, text):
    with pytest.raises(formats.FormatError, match=text):
        formats.read_head(packed(*members), "a.tar")
