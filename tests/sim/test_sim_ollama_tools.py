# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line, the release archive and the model generator."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile

import pytest
from harness import LAB, make_store, start_ollama
from sim_ollama import build_release, cli, make_models, names

# What the lab is seeded with: a change here breaks every catalog that pins these digests.
DIGESTS = {
    "llama3.2:3b": "98835cd3f9d604fe30155f178afc9c84a7d16a9d7b9573f8b348df3dbdbaac6d",
    "qwen3:1.7b": "6c0ab30f7f2476cdc5b11e546ae9cd37b0f11d48ddb87b34048018e075b08eb6",
    "mistral-small3.2:latest": "349a81b1e9fba5a6c459cc7fbf82fd7a7f8aaa38c6ae13c9da105d9a13d555cc",
    "phi3:latest": "74d169ca294ce57bd11918a7af92b1d6fec3779390f243044b7caba6e5e6fe89",
    "gemma2:2b": "858745d205ecea47b63a88d20c4c5729e04908831995797ca5441fa81e60f530",
    "cogito:32b": "446f9226fb13a0b2943d9159d555a894450f149c13b04b32f16a6a30901688b3",
    "deepcoder:14b": "27fb8e37543b2a3017030f576674f6b5fafa3e6ffc1c27f0a945a065e6156051",
    "dolphin3:8b": "5f71b5e056cae90a3d18e18ffc633e5ad5125a384150d474ff9eb5c58654df91",
}


def test_version(ollama):
    assert ollama.cli("-v").stdout == f"ollama version is {ollama.version}\n"


def test_version_without_a_server(tmp_path):
    with start_ollama(tmp_path, start=False) as ollama:
        lines = ollama.cli("--version").stdout.splitlines()
    assert lines[0] == "Warning: could not connect to a running Ollama instance"
    assert lines[1] == "Warning: client version is 0.11.4"


def test_version_of_a_server_that_was_not_restarted(tmp_path):
    with start_ollama(tmp_path) as ollama:
        build_release.install("0.32.15", ollama.folder / "prefix")
        lines = ollama.cli("-v").stdout.splitlines()
    assert lines == ["ollama version is 0.11.4", "Warning: client version is 0.32.15"]


def test_list(ollama):
    lines = ollama.cli("list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    listed = {line.split()[0]: line.split()[1] for line in lines[1:]}
    tags = {m["name"]: m["digest"][:12] for m in ollama.get("/api/tags").json()["models"]}
    assert listed == tags
    assert ollama.cli("ls", "tiny-").stdout.count("\n") == 2


def test_run(ollama):
    done = ollama.cli("run", "tiny:1b", "Return exactly the text: HX-OK")
    assert (done.returncode, done.stdout.strip()) == (0, "HX-OK")
    done = ollama.cli("run", "tiny:1b", stdin="Return exactly the text: HX-OK\n")
    assert done.stdout.strip() == "HX-OK"
    done = ollama.cli("run", "none:x", "hello")
    assert (done.returncode, done.stderr) == (1, "Error: model 'none:x' not found\n")


def test_ps_stop_show(ollama):
    ollama.cli("run", "tiny:1b", "hello")
    lines = ollama.cli("ps").stdout.splitlines()
    assert lines[0].split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert lines[1].startswith("tiny:1b ")
    assert "minutes from now" in lines[1]
    assert ollama.cli("stop", "tiny:1b").returncode == 0
    assert "completion" in ollama.cli("show", "tiny:1b").stdout
    assert "Apache" in ollama.cli("show", "tiny:1b", "--license").stdout


def test_pull_cp_rm(old, registry):
    name = registry.name("tiny:1b")
    done = old.cli("pull", "--insecure", name)
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == "pulling manifest"
    assert done.stderr.splitlines()[-1] == "success"
    assert old.cli("cp", name, "mine:x").stdout == f"copied '{name}' to 'mine:x'\n"
    assert old.cli("rm", name, "mine:x").stdout == f"deleted '{name}'\ndeleted 'mine:x'\n"
    done = old.cli("rm", name)
    assert (done.returncode, "not found" in done.stderr) == (1, True)
    done = old.cli("pull", "--insecure", registry.name("none:x"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: pull model manifest: file does not exist"


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("0.11.4", "could not connect to ollama app, is it running?"),
        ("0.32.15", "could not connect to ollama server, run 'ollama serve' to start it"),
    ],
)
def test_no_server(tmp_path, version, text):
    with start_ollama(tmp_path, version=version, start=False) as ollama:
        done = ollama.cli("list")
    assert (done.returncode, done.stderr) == (1, f"Error: {text}\n")


def test_unknown_command(old):
    done = old.cli("dance")
    assert (done.returncode, "unknown command" in done.stderr) == (1, True)


def test_a_taken_port_ends_the_start(old, tmp_path):
    with start_ollama(tmp_path / "second", start=False) as second:
        second.port = old.port
        assert second.launch().popen.wait(timeout=20) == 1
        assert "bind: address already in use" in second.log()


def test_nothing_is_written_beside_the_program(old):
    old.cli("run", "tiny:1b", "hello")
    files = [p for p in (old.folder / "prefix").rglob("*") if p.is_file()]
    assert not [p for p in files if p.suffix == ".pyc"]
    assert sorted(p.name for p in (old.folder / "home").rglob("*") if p.is_file()) == [
        "id_ed25519",
        "id_ed25519.pub",
    ]


def test_it_runs_from_the_source_tree(tmp_path):
    done = subprocess.run(
        [sys.executable, "-B", str(LAB / "sim_ollama" / "__main__.py"), "-v"],
        env={"HOME": str(tmp_path), "OLLAMA_HOST": "127.0.0.1:9", "SIM_OLLAMA_VERSION": "9.8.7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Warning: client version is 9.8.7" in done.stdout


@pytest.mark.parametrize(
    ("size", "vram", "text"),
    [
        (100, 100, "100% GPU"),
        (100, 0, "100% CPU"),
        (100, 75, "25%/75% CPU/GPU"),
        (100, 120, "Unknown"),
        (0, 1, "Unknown"),
    ],
)
def test_processor(size, vram, text):
    assert cli.processor(size, vram) == text


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("x", "x:latest"),
        ("x:1b", "x:1b"),
        ("library/x", "x:latest"),
        ("registry.ollama.ai/library/x:1b", "x:1b"),
        ("me/x", "me/x:latest"),
        ("localhost:5000/library/x:y", "localhost:5000/library/x:y"),
        ("http://localhost:5000/library/x:y", "localhost:5000/library/x:y"),
    ],
)
def test_names(text, short):
    name = names.parse(text)
    assert name.is_valid()
    assert name.short() == short


@pytest.mark.parametrize(
    "text",
    ["", ":", "x:", "/x", "a b", "x@sha256:12", "localhost:5000/x", "n.s/x", "-x", "x" * 81],
)
def test_invalid_names(text):
    assert not names.parse(text).is_valid()


def test_digests_of_the_lab_models(tmp_path):
    listing = make_store(tmp_path, "all")
    assert {entry["name"]: entry["digest"] for entry in listing} == DIGESTS
    assert all(entry["id"] == entry["digest"][:12] for entry in listing)


@pytest.mark.parametrize("wanted", ["llm-01", "llm-02"])
def test_models_of_a_host_share_a_license(tmp_path, wanted):
    make_store(tmp_path, wanted)
    seen = []
    for path in (tmp_path / "manifests").rglob("*"):
        if path.is_file():
            layers = json.loads(path.read_text())["layers"]
            seen += [x["digest"] for x in layers if x["mediaType"].endswith(".license")]
    assert len(set(seen)) < len(seen)


def test_every_blob_is_what_its_name_says(tmp_path):
    make_store(tmp_path, "tiny")
    for path in (tmp_path / "blobs").iterdir():
        assert path.name == "sha256-" + hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("count", [0, 1, 17])
def test_partials(tmp_path, count):
    make_store(tmp_path, "tiny", partials=count)
    found = sorted(p for p in (tmp_path / "blobs").iterdir() if "partial" in p.name)
    assert len(found) == count
    sparse = [p for p in found if p.name.endswith("-partial")]
    assert all(p.stat().st_blocks * 512 < p.stat().st_size for p in sparse)
    assert sum(p.stat().st_blocks * 512 for p in found) < 5 << 20
    for path in set(found) - set(sparse):
        assert set(json.loads(path.read_text())) == {"N", "Offset", "Size", "Completed"}


def test_partials_are_the_same_at_every_run(tmp_path):
    for name in ("a", "b"):
        make_store(tmp_path / name, "", partials=5)
    names_of = [sorted(p.name for p in (tmp_path / n / "blobs").iterdir()) for n in ("a", "b")]
    assert names_of[0] == names_of[1]


def test_list_option(tmp_path):
    script = LAB / "sim_ollama" / "make_models.py"
    done = subprocess.run(
        [sys.executable, "-B", str(script), "--out", str(tmp_path), "--set", "tiny", "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [set(entry) for entry in json.loads(done.stdout)] == [
        {"name", "id", "digest", "size"}
    ] * 2


def test_an_unknown_set_is_refused():
    with pytest.raises(SystemExit, match="unknown model or set nosuch"):
        make_models.specs("nosuch")


def test_release_of_0_11_4(tmp_path):
    paths = build_release.build("0.11.4", tmp_path / "a")
    assert [p.name for p in paths] == ["ollama-linux-amd64.tgz", "sha256sum.txt"]
    digest = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    assert paths[1].read_text() == f"{digest}  ./ollama-linux-amd64.tgz\n"
    again = build_release.build("0.11.4", tmp_path / "b")
    assert again[0].read_bytes() == paths[0].read_bytes()
    with tarfile.open(paths[0]) as archive:
        members = {m.name: m for m in archive.getmembers()}
    assert members["./bin/ollama"].mode == 0o755
    assert {(m.uid, m.gid, m.mtime) for m in members.values()} == {(0, 0, 0)}
    assert "./lib/ollama/libggml-cuda.so" in members


def test_release_of_a_current_version(tmp_path):
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not there")
    paths = build_release.build("0.32.15", tmp_path)
    assert paths[1].name == "ollama-linux-amd64.tar.zst"
    assert len(paths[2].read_text().splitlines()) == 2
    plain = subprocess.run(["zstd", "-dc", str(paths[1])], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert "./lib/ollama/llama-server" in archive.getnames()
    sums = subprocess.run(["sha256sum", "-c", "sha256sum.txt"], cwd=tmp_path, check=False)
    assert sums.returncode == 0


def test_program_runs_where_it_is_unpacked(tmp_path):
    paths = build_release.build("1.2.3", tmp_path)
    (tmp_path / "usr").mkdir()
    subprocess.run(["tar", "-xf", str(paths[0]), "-C", str(tmp_path / "usr")], check=True)
    done = subprocess.run(
        [str(tmp_path / "usr/bin/ollama"), "-v"],
        env={"HOME": "/nonexistent", "OLLAMA_HOST": "127.0.0.1:9", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "client version is 1.2.3" in done.stdout
