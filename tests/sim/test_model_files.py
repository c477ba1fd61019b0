# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module model_files against a hub: downloads, what is adopted, what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_files_host import FILES, FIRST, MODEL, SECOND, WANTED, Host, content
from sim_hub import OTHER, sha256, start_hub


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with start_hub() as hub:
        yield Host(tmp_path, hub)


def test_downloads_what_is_wanted_and_then_nothing(host: Host) -> None:
    before = host.everything()
    predicted = host.good(check=True)
    assert host.everything() == before
    result = host.good()
    host.whole()
    for key in ("changed", "actions", "plan", "totals"):
        assert result[key] == predicted[key]
    total = sum(len(FILES[name]) for name in WANTED)
    assert result["downloaded_bytes"] == result["totals"]["bytes_to_download"] == total
    assert [step["action"] for step in result["plan"]] == ["pull"]
    assert result["model"]["pinned"] == "source"
    assert {file["path"]: file["sha256"] for file in result["model"]["files"] if file["sha256"]}
    assert {item["status"] for item in result["verdicts"]} == {"PASS"}
    host.converged()
    host.converged(check=True)
    host.converged(verify="full")


def test_adopts_what_somebody_copied_there(host: Host) -> None:
    for name in WANTED:
        target = host.dest / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(FILES[name])
    files = {name: sha256(FILES[name]) for name in WANTED}
    source = host.source(files=files)
    result = host.good(source=source)
    assert [step["action"] for step in result["plan"]] == ["adopt", "record"]
    assert host.hub.seen == []
    assert result["model"]["pinned"] == "files"
    host.converged(source=source)


def test_replaces_only_the_corrupt_file(host: Host) -> None:
    host.good()
    kept = (host.dest / SECOND).stat().st_ino
    path = host.dest / FIRST
    reader = path.open("rb")
    broken = b"x" + FILES[FIRST][1:]
    path.write_bytes(broken)
    host.hub.seen.clear()
    predicted = host.good(check=True)
    assert path.read_bytes() == broken
    result = host.good()
    assert [step["action"] for step in result["plan"]] == ["repull"]
    assert result["plan"] == predicted["plan"]
    assert FIRST in result["actions"][0]
    assert "sha256" in result["actions"][0]
    assert host.hub.sent(FIRST) == len(FILES[FIRST])
    assert host.hub.sent(SECOND) == 0
    assert (host.dest / SECOND).stat().st_ino == kept
    assert reader.read() == broken  # who has the old file open keeps it
    host.whole()
    host.converged()


def test_quick_trusts_what_was_noted_and_full_reads(host: Host) -> None:
    host.good()
    path = host.dest / FIRST
    status = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"rot")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert host.good(check=True)["changed"] is False
    full = host.good(check=True, verify="full")
    assert [step["action"] for step in full["plan"]] == ["repull"]
    host.good(verify="full")
    host.whole()


def test_a_cut_connection_is_resumed(host: Host) -> None:
    host.hub.cut = {FIRST: [100_000, 50_000]}
    host.good()
    host.whole()
    assert host.hub.sent(FIRST) == len(FILES[FIRST])
    ranges = [item.range for item in host.hub.seen if item.server == "content" and item.range]
    assert ranges == ["bytes=100000-", "bytes=150000-"]


def test_a_stalled_download_is_asked_for_again_and_said_so(host: Host, tmp_path: Path) -> None:
    host.hub.stall = {FIRST: [65_536]}
    progress = tmp_path / "progress.json"
    process = host.start(progress_file=str(progress))
    notes = set()
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            notes.add(json.loads(progress.read_text())["note"])
        time.sleep(0.02)
    assert not json.loads(process.communicate()[0]).get("failed")
    assert any("stalled: 127.0.0.1" in note and "1 s" in note for note in notes), notes
    host.whole()


def test_a_source_that_cannot_resume_gives_the_whole_file_again(host: Host) -> None:
    host.hub.cut = {FIRST: [100_000]}
    host.hub.ranges = False
    host.good()
    host.whole()


def test_killed_while_downloading_goes_on_where_it_stood(host: Host) -> None:
    host.hub.pause_s = 0.03
    process = host.start()
    end = time.monotonic() + 30
    while host.hub.sent(SECOND) < 40_000 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not host.dest.exists()
    there = sum(path.stat().st_size for path in host.staging.rglob("*.partial"))
    assert there > 0
    assert (host.staging / FIRST).read_bytes() == FILES[FIRST]
    host.hub.pause_s = 0
    host.hub.seen.clear()
    predicted = host.good(check=True)
    result = host.good()
    assert result["totals"] == predicted["totals"]
    assert host.hub.sent(FIRST) == 0
    assert host.hub.sent(SECOND) == len(FILES[SECOND]) - there
    assert result["resumed_bytes"] >= there + len(FILES[FIRST])
    host.whole()
    host.converged()


def test_a_wrong_checksum_never_arrives(host: Host) -> None:
    host.good()
    old = host.files()
    new = {**FILES, FIRST: content(9, 300_000)}
    host.hub.put(MODEL, new, OTHER)
    host.hub.swap = {FIRST: content(8, 300_000)}
    message = host.bad(source=host.source(revision=OTHER))
    for part in ("tiny", FIRST, sha256(content(8, 300_000)), sha256(new[FIRST])):
        assert part in message
    assert host.files() == old
    assert not list(host.staging.rglob("*.partial"))
    host.hub.swap = {}
    result = host.good(source=host.source(revision=OTHER))
    assert [step["action"] for step in result["plan"]] == ["pull"]
    assert host.files()[FIRST] == new[FIRST]


def test_pieces_that_do_not_fit_are_downloaded_once_more_as_a_whole(host: Host) -> None:
    host.staging.mkdir()
    (host.staging / f".{sha256(FILES[FIRST])}.partial").write_bytes(b"\0" * 1000)
    host.good()
    host.whole()


def test_declared_checksums_win_over_the_hub_before_the_first_byte(host: Host) -> None:
    files = {"config.json": sha256(FILES["config.json"]), FIRST: "0" * 64}
    message = host.bad(source=host.source(files=files))
    assert "0" * 64 in message
    assert sha256(FILES[FIRST]) in message
    assert host.hub.sent() == 0
    small = {"config.json": "0" * 64, FIRST: sha256(FILES[FIRST])}
    assert "config.json" in host.bad(source=host.source(files=small))
    assert not host.dest.exists()


def test_the_disk_keeps_its_reserve(host: Host) -> None:
    for check in (True, False):
        message = host.bad(reserve_bytes=10**18, check=check)
        assert "must stay free" in message
        assert "500.1KB" in message
    assert host.hub.sent(FIRST) == 0
    assert not host.dest.exists()


@pytest.mark.parametrize("given", ["", "wrong"])
def test_a_gated_model_says_what_to_do(host: Host, given: str, tmp_path: Path) -> None:
    host.hub.token, host.hub.gated = "hf_right", True
    options = {}
    if given:
        token = tmp_path / "token"
        token.write_text(given)
        token.chmod(0o600)
        options = {"token_file": str(token)}
    for check in (True, False):
        message = host.bad(check=check, **options)
        assert f"Accept its licence at {host.hub.url}/{MODEL}" in message
        assert "token_file" in message
    assert host.hub.sent(FIRST) == 0


def test_the_token_goes_to_the_hub_alone(host: Host, tmp_path: Path) -> None:
    host.hub.token = "hf_right"
    token = tmp_path / "token"
    token.write_text("hf_right\n")
    token.chmod(0o600)
    host.good(token_file=str(token))
    host.whole()
    assert "hf_right" not in host.output
    assert {item.token for item in host.hub.seen if item.server == "hub"} == {"Bearer hf_right"}
    assert {item.token for item in host.hub.seen if item.server == "content"} == {""}
    token.chmod(0o640)
    assert "has mode 0640, wanted 0600" in host.bad(token_file=str(token))


def test_a_missing_model_revision_or_file(host: Host) -> None:
    assert "no such model" in host.bad(source=host.source(hub="org/none"))
    assert "no such revision" in host.bad(source=host.source(revision="f" * 40))
    assert "doesn't have" in host.bad(source=host.source(files={"none.json": "0" * 64}))


def test_a_busy_hub_is_asked_again_but_not_for_ever(host: Host) -> None:
    host.hub.statuses = {FIRST: [(503, {}), (429, {"Retry-After": "1"})]}
    host.good()
    host.whole()
    host.hub.statuses = {f"tree/{OTHER}": [(429, {"Retry-After": "86400"})]}
    message = host.bad(source=host.source(revision=OTHER))
    assert "429" in message
    assert "86400" in message


def test_an_expired_redirect_is_asked_for_again(host: Host) -> None:
    host.hub.cut = {FIRST: [100_000]}
    host.hub.statuses = {f"content:{SECOND}": [(403, {})]}
    host.good()
    host.whole()
    answers = [item for item in host.hub.seen if item.path.endswith(SECOND)]
    assert [item.server for item in answers] == ["hub", "content", "hub", "content"]


def test_another_commit_than_the_pinned_one_is_refused(host: Host) -> None:
    host.hub.claim = OTHER
    message = host.bad()
    assert OTHER in message
    assert not host.dest.exists()


def test_pickles_and_programs_are_refused(host: Host) -> None:
    sums = {name: sha256(FILES[name]) for name in FILES}
    assert "modeling_tiny.py" in host.bad(source=host.source(files=sums))
    del sums["modeling_tiny.py"]
    assert "pytorch_model.bin, which is refused" in host.bad(source=host.source(files=sums))
    assert "*.bin, which is refused" in host.bad(source=host.source(include=["*.bin"]))
    host.hub.put(MODEL, {"config.json": b"{}", "pytorch_model.bin": b"p"}, OTHER)
    message = host.bad(source=host.source(revision=OTHER))
    assert "no weights" in message
    assert "pytorch_model.bin" in message
    host.good(source=host.source(revision=OTHER, include=["*"]), allow_pickle=True)
    assert "pytorch_model.bin" in host.files()


def test_a_branch_is_refused_unless_allowed(host: Host) -> None:
    assert "40 hexadecimal digits" in host.bad(source=host.source(revision="main"))
    source = host.source(revision="main")
    result = host.good(source=source, allow_unpinned=True)
    assert result["model"]["pinned"] == "no"
    host.hub.put(MODEL, {**FILES, "config.json": b"{}"}, OTHER)
    host.hub.branches["main"] = OTHER
    host.converged(source=source, allow_unpinned=True)
    moved = host.good(source=source, allow_unpinned=True, update=True)
    assert moved["model"]["revision"] == OTHER
    assert host.files()["config.json"] == b"{}"


def test_another_revision_takes_the_place_of_the_old_one(host: Host) -> None:
    host.good()
    (host.dest / "mine.txt").write_text("mine")
    new = {key: value for key, value in FILES.items() if key != SECOND}
    new["config.json"] = b'{"model_type": "qwen3"}\n'
    host.hub.put(MODEL, new, OTHER)
    source = host.source(revision=OTHER)
    host.hub.seen.clear()
    predicted = host.good(check=True, source=source)
    result = host.good(source=source)
    assert result["plan"] == predicted["plan"]
    assert [step["action"] for step in result["plan"]] == ["pull", "remove"]
    assert result["reclaimed_bytes"] == len(FILES[SECOND])
    assert host.hub.sent(FIRST) == 0
    assert set(host.files()) == {*WANTED, "mine.txt"} - {SECOND}
    assert result["undeclared"] == ["mine.txt"]
    assert host.files()["config.json"] == new["config.json"]
    host.converged(source=source)
    gone = host.good(source=source, exclusive=True)
    assert [step["action"] for step in gone["plan"]] == ["remove"]
    assert "mine.txt" not in host.files()
    host.converged(source=source, exclusive=True)


def test_lists_come_in_pages(host: Host) -> None:
    host.hub.page = 3
    host.good()
    host.whole()


def test_mode_and_owner_are_kept(host: Host) -> None:
    host.good(mode="0640")
    for path in [host.dest, *host.dest.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path
    host.converged(mode="0640")
    assert "octal digits in quotes" in host.bad(mode=420)
    (host.dest / "config.json").chmod(0o666)
    predicted = host.good(mode="0640", check=True)
    result = host.good(mode="0640")
    assert result["plan"] == predicted["plan"]
    assert [step["action"] for step in result["plan"]] == ["adopt", "set_access"]
    host.converged(mode="0640")


def test_absent_removes_the_model_and_nothing_else(host: Host) -> None:
    host.good()
    assert host.good(state="absent", source=None, check=True)["changed"] is True
    host.whole()
    host.good(state="absent", source=None)
    assert not host.dest.exists()
    assert host.good(state="absent", source=None)["changed"] is False
    host.dest.mkdir()
    (host.dest / "thesis.txt").write_text("irreplaceable")
    assert "something else than a model" in host.bad(state="absent", source=None)
    assert (host.dest / "thesis.txt").exists()


def test_what_unfinished_runs_left_goes(host: Host) -> None:
    host.good()
    host.staging.mkdir()
    (host.staging / f".{'0' * 64}.partial").write_bytes(b"left")
    result = host.good()
    assert [step["action"] for step in result["plan"]] == ["prune_partial", "adopt"]
    assert result["reclaimed_bytes"] == 4
    host.whole()


def test_a_change_of_places_that_was_cut_off_is_undone(host: Host) -> None:
    host.good()
    host.dest.rename(host.models / ".tiny.hx-old")
    host.hub.seen.clear()
    assert host.good(check=True)["changed"] is False
    host.good()
    host.whole()
    assert host.hub.seen == []


def test_a_second_run_at_the_same_time_is_refused(host: Host) -> None:
    host.hub.pause_s = 0.05
    process = host.start()
    end = time.monotonic() + 30
    while not host.hub.sent(FIRST) and time.monotonic() < end:
        time.sleep(0.01)
    assert "Another run" in host.bad()
    host.hub.pause_s = 0
    assert not json.loads(process.communicate(timeout=60)[0]).get("failed")


def test_refuses_plain_http_and_a_hub_out_of_reach(host: Host) -> None:
    assert "wanted https" in host.bad(source=host.source(insecure=False))
    source = host.source(endpoint="http://127.0.0.1:1")
    assert "can't be reached" in host.bad(source=source, deadline_s=1)


def test_the_proxy_of_the_environment_is_used(host: Host) -> None:
    host.hub.put(MODEL, {"config.json": b"{}", "tiny.gguf": b"GGUF"})
    source = host.source(endpoint="http://hub.invalid", include=["*"])
    host.good(source=source, env={"http_proxy": host.hub.url, "no_proxy": ""})
    assert host.files() == {"config.json": b"{}", "tiny.gguf": b"GGUF"}


NOTE = ".hx-model.json"


def damaged(note: bytes) -> list[bytes]:
    """Return what may be left of a note: a part of it, or something else."""
    entries = json.loads(note)
    odd = [
        {**entries, "files": []},
        {**entries, "files": {"config.json": {}}},
        {**entries, "files": {"../evil": entries["files"]["config.json"]}},
        {**entries, "files": {"config.json": {**entries["files"]["config.json"], "sha256": 5}}},
        {**entries, "files": {"config.json": {**entries["files"]["config.json"], "size": "x"}}},
    ]
    cut = [note[:length] for length in (0, 1, len(note) // 2, len(note) - 3)]
    return [*cut, b"[]", b"null", b"\xff\xfe", *(json.dumps(item).encode() for item in odd)]


def test_a_damaged_note_is_written_anew(host: Host) -> None:
    host.good()
    good = (host.dest / NOTE).read_bytes()
    for left in damaged(good):
        (host.dest / NOTE).write_bytes(left)
        host.hub.seen.clear()
        predicted = host.good(check=True)
        assert (host.dest / NOTE).read_bytes() == left
        result = host.good()
        assert [step["action"] for step in result["plan"]] == ["adopt", "record"], left
        assert result["plan"] == predicted["plan"]
        assert result["downloaded_bytes"] == 0
        assert (host.dest / NOTE).read_bytes() == good
        host.whole()
        host.converged()


def test_a_damaged_note_of_an_unfinished_run_loses_nothing(host: Host) -> None:
    host.bad(deadline_s=0)
    (host.staging / NOTE).write_bytes(b'{"format": 1, "fil')
    host.good()
    host.whole()
    host.converged()


def test_two_names_for_one_directory_do_not_undo_each_other(host: Host) -> None:
    host.good(name="one")
    noted = (host.dest / NOTE).read_bytes()
    host.converged(name="two")
    host.converged(name="one")
    assert (host.dest / NOTE).read_bytes() == noted
