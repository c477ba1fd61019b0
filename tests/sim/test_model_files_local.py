# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module model_files with directories and archives as sources."""

from __future__ import annotations

import io
import os
import re
import signal
import stat
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_files_host import FILES, FIRST, MODEL, WANTED, Host
from module_process import ROOT
from sim_hub import sha256, start_hub

GOOD = {name: FILES[name] for name in WANTED}
SUMS = {name: sha256(data) for name, data in GOOD.items()}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with start_hub() as hub:
        yield Host(tmp_path, hub)


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def tar(path: Path, files: dict[str, bytes], *more: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in more:
            archive.addfile(member)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def of(path: Path, **more: Any) -> dict[str, Any]:
    return {"archive": str(path), "sha256": sha256(path.read_bytes()), **more}


def test_verifies_a_directory_where_it_is(host: Host, tmp_path: Path) -> None:
    place = put(tmp_path / "copied" / "tiny", GOOD)
    listing = tmp_path / "sums"
    listing.write_text("".join(f"{value}  ./{name}\n" for name, value in SUMS.items()))
    source = {"path": str(place), "manifest": str(listing)}
    result = host.good(dest=None, source=source)
    assert [step["action"] for step in result["plan"]] == ["adopt", "record"]
    assert result["model"]["dest"] == str(place)
    host.converged(dest=None, source=source)
    (place / FIRST).write_bytes(b"short")
    for check in (True, False):
        message = host.bad(dest=None, source=source, check=check)
        assert FIRST in message
        assert SUMS[FIRST][:16] in message
    assert (place / FIRST).read_bytes() == b"short"


def test_a_file_that_changes_under_its_directory_is_seen(host: Host, tmp_path: Path) -> None:
    place = put(tmp_path / "copied", GOOD)
    options = {"dest": None, "source": {"path": str(place), "files": SUMS}}
    host.good(**options)
    host.converged(**options)
    (place / FIRST).write_bytes(b"x" * len(GOOD[FIRST]))  # of the same size
    for check in (True, False):
        message = host.bad(check=check, **options)
        assert FIRST in message
        assert SUMS[FIRST][:16] in message
    (place / FIRST).unlink()
    assert f"{FIRST}: it is missing" in host.bad(**options)


def test_a_source_that_changes_after_the_copy_does_not_matter(host: Host, tmp_path: Path) -> None:
    place = put(tmp_path / "copied", GOOD)
    source = {"path": str(place), "files": SUMS}
    host.good(source=source)
    (place / FIRST).write_bytes(b"x" * len(GOOD[FIRST]))
    host.converged(source=source)
    host.whole()


def test_a_directory_without_checksums_needs_leave(host: Host, tmp_path: Path) -> None:
    place = put(tmp_path / "copied", GOOD)
    source = {"path": str(place)}
    assert "without checksums" in host.bad(dest=None, source=source)
    options = {"dest": None, "source": source, "allow_unpinned": True}
    assert host.good(**options)["model"]["pinned"] == "no"
    host.converged(**options)
    (place / "config.json").write_bytes(b"changed")
    assert "config.json" in host.bad(**options)


def test_copies_a_directory_and_refuses_a_damaged_source(host: Host, tmp_path: Path) -> None:
    place = put(tmp_path / "copied", GOOD)
    blob = tmp_path / "blob"
    (place / FIRST).rename(blob)
    (place / FIRST).symlink_to(blob)
    source = {"path": str(place), "files": SUMS}
    predicted = host.good(source=source, check=True)
    result = host.good(source=source)
    host.whole()
    assert result["plan"] == predicted["plan"]
    assert result["downloaded_bytes"] == sum(map(len, GOOD.values()))
    assert predicted["downloaded_bytes"] == result["downloaded_bytes"]
    assert not (host.dest / FIRST).is_symlink()
    host.converged(source=source)
    (host.dest / FIRST).write_bytes(b"rot")
    blob.write_bytes(b"x" * len(GOOD[FIRST]))
    assert SUMS[FIRST][:16] in host.bad(source=source)
    assert (host.dest / FIRST).read_bytes() == b"rot"


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:xz", "zip", "zst"])
def test_unpacks_archives_of_each_kind(host: Host, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tiny.archive"
    nested = {f"tiny-1.0/{name}": data for name, data in GOOD.items()}
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in nested.items():
                archive.writestr(name, data)
    elif kind == "zst":
        plain = tar(tmp_path / "plain.tar", nested, mode="w")
        if os.system(f"zstd -q -o {path} {plain} 2>/dev/null"):  # noqa: S605
            pytest.skip("zstd is not on this machine")
    else:
        tar(path, nested, mode=kind)
    before = host.everything()
    predicted = host.good(source=of(path), check=True)
    assert host.everything() == before
    result = host.good(source=of(path))
    host.whole()
    assert result["plan"] == predicted["plan"]
    host.converged(source=of(path))
    host.converged(source=of(path), verify="full")
    (host.dest / FIRST).write_bytes(b"rot")
    assert [step["action"] for step in host.good(source=of(path))["plan"]] == ["repull"]
    host.whole()


def test_an_archive_with_declared_files_gives_those_alone(host: Host, tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", FILES)
    host.good(source=of(path, files=SUMS))
    host.whole()
    wrong = {**SUMS, FIRST: "0" * 64}
    assert "0" * 16 in host.bad(source=of(path, files=wrong))
    assert host.files() == GOOD


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (["../evil"], [], "leads outside"),
        (["/etc/evil"], [], "leads outside"),
        (["a/../../evil"], [], "leads outside"),
        ([".hx-model.json"], [], "a name that is needed"),
        (["config.json"], [special("l", tarfile.SYMTYPE, "../../etc/passwd")], "leads outside"),
        (["config.json"], [special("l", tarfile.SYMTYPE, "/etc/passwd")], "leads outside"),
        (["config.json"], [special("l", tarfile.LNKTYPE, "../../etc/passwd")], "leads outside"),
        (["config.json"], [special("l", tarfile.SYMTYPE, "nowhere")], "no file in it"),
        (["config.json"], [special("l", tarfile.SYMTYPE, "l")], "no file in it"),
        (["config.json"], [special("null", tarfile.CHRTYPE)], "no file, folder or link"),
        (["config.json"], [special("pipe", tarfile.FIFOTYPE)], "no file, folder or link"),
        (["config.json"], [tarfile.TarInfo("config.json")], "twice"),
        (["config.json", "weights.pkl"], [], "pickle"),
        (["config.json", "run.py"], [], "program"),
    ],
)
def test_archives_that_mean_harm(
    host: Host, tmp_path: Path, names: list[str], more: list[tarfile.TarInfo], said: str
) -> None:
    path = tar(tmp_path / "evil.tar", dict.fromkeys(names, b"evil"), *more, mode="w")
    around = sorted(tmp_path.iterdir())
    assert said in host.bad(source=of(path))
    assert not host.dest.exists()
    assert sorted(tmp_path.iterdir()) == around
    assert not Path("/etc/evil").exists()


def zipped(name: str, kind: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, kind << 16
    return member


@pytest.mark.parametrize(
    ("name", "kind", "content", "said"),
    [
        ("../evil", stat.S_IFREG, "evil", "leads outside"),
        ("/etc/evil", stat.S_IFREG, "evil", "leads outside"),
        ("a/../../evil", stat.S_IFREG, "evil", "leads outside"),
        ("l", stat.S_IFLNK, "../../etc/passwd", "leads outside"),
        ("l", stat.S_IFLNK, "/etc/passwd", "leads outside"),
        ("l", stat.S_IFLNK, "x" * 5000, "too long"),
        ("null", stat.S_IFCHR, "", "no file, folder or link"),
        ("disk", stat.S_IFBLK, "", "no file, folder or link"),
        ("config.json/x", stat.S_IFREG, "evil", "can't be unpacked"),
    ],
)
def test_zip_archives_that_mean_harm(
    host: Host, tmp_path: Path, name: str, kind: int, content: str, said: str
) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr(zipped(name, kind), content)
    around = sorted(tmp_path.iterdir())
    assert said in host.bad(source=of(path))
    assert not host.dest.exists()
    assert sorted(tmp_path.iterdir()) == around


def test_a_file_below_a_link_of_an_archive_stays_inside(host: Host, tmp_path: Path) -> None:
    link = special("sub", tarfile.SYMTYPE, "..")
    path = tar(tmp_path / "evil.tar", {"config.json": b"{}"}, link, mode="w")
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo("sub/evil"))
    host.bad(source=of(path))
    assert not host.dest.exists()
    assert not list(tmp_path.rglob("evil"))


def test_nothing_depends_on_python_s_extraction_filters() -> None:
    for path in (ROOT / "plugins" / "module_utils").glob("_model_files*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"extractall|\.extract\(|unpack_archive", text), path


def test_a_link_inside_an_archive_becomes_a_file(host: Host, tmp_path: Path) -> None:
    link = special("sub/copy.json", tarfile.SYMTYPE, "../config.json")
    path = tar(tmp_path / "a.tar", {"config.json": b"{}"}, link, mode="w")
    host.good(source=of(path))
    assert host.files() == {"config.json": b"{}", "sub/copy.json": b"{}"}
    assert not (host.dest / "sub/copy.json").is_symlink()
    host.converged(source=of(path))


def test_a_damaged_or_wrong_archive(host: Host, tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", GOOD)
    source = of(path)
    path.write_bytes(path.read_bytes()[:-5000])
    for check in (True, False):
        assert source["sha256"] in host.bad(source=source, check=check)
    assert "damaged" in host.bad(source=of(path))
    assert not host.dest.exists()
    assert "is not there" in host.bad(source={"archive": "/nowhere.tar", "sha256": "0" * 64})


def test_an_archive_is_downloaded_resumed_and_removed(host: Host, tmp_path: Path) -> None:
    data = tar(tmp_path / "a.tar.gz", GOOD).read_bytes()
    host.hub.put(MODEL, {"a.tar.gz": data})
    url = f"{host.hub.url}/{MODEL}/resolve/main/a.tar.gz"
    source = {"archive": url, "sha256": sha256(data), "insecure": True}
    host.hub.pause_s = 0.02
    process = host.start(source=source)
    end = time.monotonic() + 30
    while host.hub.sent("a.tar.gz") < 100_000 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = sum(path.stat().st_size for path in host.staging.glob(".*.partial"))
    assert there > 0
    host.hub.pause_s = 0
    host.hub.seen.clear()
    predicted = host.good(source=source, check=True)
    assert predicted["downloaded_bytes"] == len(data) - there
    result = host.good(source=source)
    assert host.hub.sent("a.tar.gz") == len(data) - there == result["downloaded_bytes"]
    host.whole()
    host.converged(source=source)


def test_undeclared_weights_are_judged_a_danger(host: Host) -> None:
    host.good()
    (host.dest / "notes.txt").write_text("mine")
    verdicts = {item["check"]: item["status"] for item in host.good()["verdicts"]}
    assert verdicts["model_undeclared"] == "WARN"
    (host.dest / "model-old.safetensors").write_bytes(b"stale")
    verdicts = {item["check"]: item["status"] for item in host.good()["verdicts"]}
    assert verdicts["model_undeclared"] == "FAIL"
