# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _haproxy_files as files
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

ROUTE = {
    "model": "llama",
    "backend": "m_llama",
    "servers": [{"name": "a.ollama", "address": "10.0.0.1", "port": 11434, "weight": 10}],
}


def test_routes(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    path.write_text(json.dumps([ROUTE]))
    routes = files.read_routes("gw", str(path))
    assert routes.backends == {"llama": "m_llama"}
    assert routes.places == {("m_llama", "a.ollama"): ("10.0.0.1", 11434)}
    assert routes.owners == {}
    path.write_text(
        json.dumps(
            [{**ROUTE, "servers": [{**ROUTE["servers"][0], "host": "a", "engine": "ollama"}]}]
        )
    )
    routes = files.read_routes("gw", str(path))
    assert routes.owners == {("m_llama", "a.ollama"): ("a", "ollama")}
    assert not files.read_routes("gw", str(tmp_path / "none")).found


@pytest.mark.parametrize("text", ["{", "[1]", '[{"model": "a"}]', '{"a": 1}'])
def test_routes_of_another_form_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "routes.json"
    path.write_text(text)
    with pytest.raises(HostError, match=r"gw: the routes in .* can't be read"):
        files.read_routes("gw", str(path))


def test_notes(tmp_path: Path) -> None:
    notes = files.DrainNotes(str(tmp_path / "new/drained.json"))
    assert notes.read() == {}
    notes.add(["m/a", "m/b"], "we")
    notes.add(["m/b"], "they")
    assert {target: note["owner"] for target, note in notes.read().items()} == {
        "m/a": "we",
        "m/b": "they",
    }
    assert notes.read()["m/a"]["since"].endswith("Z")
    notes.remove(["m/a", "m/c"])
    assert list(notes.read()) == ["m/b"]


def test_a_state_file_that_haproxy_could_not_read_brings_nothing_back(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for text in (None, "", "garbage\n"):
        if text is not None:
            path.write_text(text)
        assert files.read_state(str(path)) == {}
    assert files.read_state("") == {}
    files.write_state(
        str(path),
        "1\n# be_id be_name srv_name srv_admin_state srv_uweight srv_iweight srv_port\n"
        "3 m a 8 3 9 8001\n3 m b 0 3 9 8001\n",
        {("m", "a"): ("10.0.0.1", 8002)},
    )
    assert path.read_text().endswith("3 m a 8 3 9 8002\n3 m b 0 3 9 8001\n")
    assert files.read_state(str(path))[("m", "a")].name == "drained"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_missing_directory_is_found_before_anything_is_changed(tmp_path: Path) -> None:
    files.check_state_directory("gw", "")
    files.check_state_directory("gw", str(tmp_path / "state"))
    with pytest.raises(HostError, match=r"gw: the directory .*none of the state file"):
        files.check_state_directory("gw", str(tmp_path / "none/state"))


def test_a_second_run_waits_for_the_lock_and_not_forever(tmp_path: Path) -> None:
    notes, slept = str(tmp_path / "drained.json"), []
    with (
        files.locked(notes, "gw", create=True),
        pytest.raises(HostError, match="Another run is working on the traffic of gw"),
        files.locked(notes, "gw", create=True, clock=lambda: float(len(slept)), sleep=slept.append),
    ):
        pass
    assert len(slept) > files.LOCK_WAIT_S - 1
    with files.locked(notes, "gw", create=True, sleep=slept.append):
        pass
    with files.locked(notes, "gw", create=False), files.locked(notes, "gw", create=False):
        pass
