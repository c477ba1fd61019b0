# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _env_install
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.modules import ollama_env

MTIME = 1_755_195_444  # 2025-08-14 18:17:24 UTC
OLD = 'OLLAMA_MODELS="/data/llm_bulk_storage"\nOLLAMA_PORT="11434"\nMODEL_X=\'x:1\nHF_TOKEN=abc\n'
MODELS = [{"name": "llama3.2:3b", "size_bytes": 2_000_000_000, "digest": "a80c4f17acd5"}]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ollama.env"


@pytest.fixture
def old(path):
    path.write_text(OLD)
    os.utime(path, (MTIME, MTIME))
    return path


def run(path, check_mode=False, **options):
    params = {
        "path": str(path),
        "models": MODELS,
        "models_dir": "/mnt/active_llm_models",
        "host": "127.0.0.1:11434",
        "extra": {},
        "keep": [],
        "registry_only": False,
        "owner": pwd.getpwuid(os.getuid()).pw_name,
        "group": grp.getgrgid(os.getgid()).gr_name,
        "mode": "0640",
        "backup": True,
        **options,
    }
    return ollama_env.run(params, "llm-01", check_mode)


def assert_predicted_then_done(path, **options):
    names = sorted(os.listdir(path.parent))
    predicted = run(path, check_mode=True, **options)
    assert sorted(os.listdir(path.parent)) == names
    done = run(path, **options)
    assert predicted == done
    again = run(path, **options)
    assert (again["changed"], again["actions"], again["plan"]) == (False, [], [])
    assert again["diff"] == []
    assert path.stat().st_mode & 0o7777 == 0o640
    return done


def test_new_file(path):
    done = assert_predicted_then_done(path)
    assert done["actions"] == [f"Write {path}: 1 models, 2.0GB"]
    assert done["backup_file"] == ""
    assert done["parsed_before"]["exists"] is False
    assert done["model_variables"] == [{"name": "MODEL_LLAMA3_2_3B", "model": "llama3.2:3b"}]


def test_old_file_is_kept_beside_the_new_one(old):
    done = assert_predicted_then_done(old)
    backup = old.with_name("ollama.env.bak.20250814-181724")
    assert done["backup_file"] == str(backup)
    assert backup.read_text() == OLD
    assert backup.stat().st_mode & 0o7777 == 0o640
    assert done["dropped"] == ["OLLAMA_PORT", "HF_TOKEN"]
    assert done["parsed_before"]["malformed"][0]["line"] == 3
    assert done["actions"] == [
        f"Keep the old {old} as {backup}",
        f"Write {old}: 1 models, 2.0GB; drops OLLAMA_PORT, HF_TOKEN",
    ]
    assert "abc" not in repr(done)


def test_without_backup(old):
    done = assert_predicted_then_done(old, backup=False)
    assert os.listdir(old.parent) == ["ollama.env"]
    assert [step["action"] for step in done["plan"]] == ["update"]


def test_kept_and_further_settings(old):
    done = assert_predicted_then_done(
        old, keep=["OLLAMA_PORT", "OLLAMA_ABSENT"], extra={"OLLAMA_KEEP_ALIVE": "5m"}
    )
    assert done["kept"] == ["OLLAMA_PORT"]
    assert done["dropped"] == ["HF_TOKEN"]
    text = old.read_text()
    assert 'OLLAMA_PORT="11434"' in text
    assert 'OLLAMA_KEEP_ALIVE="5m"' in text
    assert "OLLAMA_ABSENT" not in text


def test_wrong_permissions_alone_are_put_right(path):
    run(path)
    path.chmod(0o666)
    done = assert_predicted_then_done(path)
    assert [step["action"] for step in done["plan"]] == ["permissions"]
    assert done["content_changed"] is False
    assert "it was" in done["actions"][0]
    assert [entry["after_header"] for entry in done["diff"]] == [f"{path} (permissions)"]


def test_a_link_is_replaced_by_a_file(old, tmp_path):
    link = tmp_path / "linked.env"
    link.symlink_to(old)
    done = assert_predicted_then_done(link)
    assert not link.is_symlink()
    assert old.read_text() == OLD
    assert done["backup_file"].startswith(f"{link}.bak.")


def test_a_run_cut_off_after_its_backup_is_completed(old):
    predicted = run(old, check_mode=True)
    access = _env_install.find_access(str(os.getuid()), str(os.getgid()), "0640", "llm-01")
    state = _env_install.read_state(str(old), "llm-01")
    _env_install.apply_install(predicted["plan"][:1], state, b"", access)
    (old.parent / ".ollama.env.hx-new").write_text("left by the run that was cut off")
    done = run(old)
    assert [step["action"] for step in done["plan"]] == ["update"]
    assert sorted(os.listdir(old.parent)) == ["ollama.env", "ollama.env.bak.20250814-181724"]


def test_backups_of_the_same_second_do_not_overwrite_each_other(old):
    first = run(old)["backup_file"]
    old.write_text("OTHER=1\n")
    os.utime(old, (MTIME, MTIME))
    second = run(old)["backup_file"]
    assert second == f"{first}.2"
    assert Path(first).read_text() == OLD


def test_a_failed_write_leaves_the_old_file(old, monkeypatch):
    def no_space(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        run(old)
    assert old.read_text() == OLD
    assert os.listdir(old.parent) == ["ollama.env"]


def test_missing_account_or_directory_is_fine_in_check_mode_only(path, tmp_path):
    predicted = run(path, check_mode=True, group="no-such-group")
    assert predicted["plan"][0]["action"] == "create"
    with pytest.raises(HostError, match="the group no-such-group, which doesn't exist"):
        run(path, group="no-such-group")
    with pytest.raises(HostError, match="the user no-such-user"):
        run(path, owner="no-such-user")
    later = tmp_path / "later" / "ollama.env"
    assert run(later, check_mode=True)["changed"]
    with pytest.raises(HostError, match=r"the directory .* doesn't exist"):
        run(later)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "rw"}, "mode is 'rw'"),
        ({"mode": "99999"}, "mode is '99999'"),
        ({"models": [{"name": ""}]}, "entry 1"),
        ({"keep": ["OLLAMA_MODELS"]}, "rendered from the model catalog"),
        ({"extra": {"MODEL_A": "a"}}, "rendered from the model catalog"),
        ({"host": "a\nB=c"}, "OLLAMA_HOST"),
    ],
)
def test_bad_options_change_nothing(old, options, message):
    with pytest.raises(HostError, match=message):
        run(old, **options)
    assert old.read_text() == OLD


def test_a_directory_in_the_way(path):
    path.mkdir()
    with pytest.raises(HostError, match="is not a regular file"):
        run(path, check_mode=True)


def test_the_models_alone_leave_everything_else_as_it_stands(path):
    run(path, extra={"OLLAMA_KEEP_ALIVE": "10m"})
    path.chmod(0o600)
    before = path.read_text()
    more = [*MODELS, {"name": "qwen3:1.7b", "size_bytes": 1_400_000_000}]
    options = {"models": more, "registry_only": True, "models_dir": None, "backup": False}
    predicted = run(path, check_mode=True, **options)
    assert path.read_text() == before
    done = run(path, **options)
    assert predicted == done
    assert (done["changed"], done["content_changed"], done["settings_changed"]) == (
        True,
        True,
        False,
    )
    assert path.stat().st_mode & 0o7777 == 0o600
    path.chmod(0o640)
    # The same text as a run that writes the whole file: neither undoes the other's work.
    whole = run(path, models=more, extra={"OLLAMA_KEEP_ALIVE": "10m"})
    assert whole["changed"] is False


def test_the_models_alone_are_written_through_a_link(path, tmp_path):
    run(path)
    link = tmp_path / "link.env"
    link.symlink_to(path)
    done = run(link, models=[], registry_only=True, backup=False)
    assert done["path"] == str(path)
    assert link.is_symlink()
    assert "OLLAMA_MODELS_COUNT=0" in path.read_text()


def test_the_models_alone_need_a_file_to_stand_in(path):
    done = run(path, registry_only=True)
    assert (done["changed"], done["plan"], done["settings_changed"]) == (False, [], False)
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "changed", "restart"),
    [
        ({}, False, False),
        ({"models": []}, True, False),
        ({"models": [{"name": "llama3.2:3b", "size_bytes": 1}]}, True, False),
        ({"host": "0.0.0.0:11434"}, True, True),
        ({"extra": {"OLLAMA_KEEP_ALIVE": "1h"}}, True, True),
    ],
)
def test_only_settings_are_a_reason_for_a_restart(path, options, changed, restart):
    run(path)
    predicted = run(path, check_mode=True, **options)
    done = run(path, **options)
    assert predicted == done
    assert (done["content_changed"], done["settings_changed"]) == (changed, restart)
