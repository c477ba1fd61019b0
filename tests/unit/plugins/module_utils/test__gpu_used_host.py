# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose processes are the engine's, from a /proc made of files."""

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_engines import OLLAMA
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_host import (
    elsewhere,
    owners_of,
    with_children,
)

URL = "http://127.0.0.1:11434"
TABLE = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout"


@pytest.fixture
def proc(tmp_path):
    """A /proc, and a function that adds a process, with the port at which it listens."""
    (tmp_path / "net").mkdir()
    table = tmp_path / "net" / "tcp"
    table.write_text(f"{TABLE} inode\n")

    def add(pid, name, parent=1, port=0):
        base = tmp_path / str(pid)
        (base / "fd").mkdir(parents=True)
        (base / "comm").write_text(f"{name}\n")
        (base / "stat").write_text(f"{pid} ({name}) (x)) S {parent} {pid} 0\n")
        if port:
            (base / "fd" / "3").symlink_to(f"socket:[{pid}]")
            line = f"   0: 0100007F:{port:04X} 00000000:0000 0A 0:0 00:0 0 999 0 {pid}\n"
            table.write_text(table.read_text() + line)

    add.path = str(tmp_path)
    return add


def test_the_engine_that_listens_and_all_below_it(proc):
    proc(1, "systemd", parent=0)
    proc(800, "ollama", port=11434)
    proc(812, "ollama", parent=800)
    proc(813, "helper", parent=812)
    proc(900, "ollama", port=11435)  # another instance
    owners = owners_of(URL, OLLAMA, proc.path)
    assert owners.pids == {800, 812, 813}
    assert owners.known
    assert owners.names == OLLAMA.names


def test_a_proxy_before_a_container_is_not_the_engine(proc):
    proc(700, "docker-proxy", port=11434)
    owners = owners_of(URL, OLLAMA, proc.path)
    assert (owners.pids, owners.known) == ({700}, False)


def test_a_socket_that_systemd_holds_makes_not_every_process_the_engines(proc):
    proc(1, "systemd", parent=0, port=11434)
    proc(900, "sshd")
    assert owners_of(URL, OLLAMA, proc.path).pids == frozenset()


def test_a_listener_that_cannot_be_seen(proc):
    proc(800, "ollama")
    owners = owners_of(URL, OLLAMA, proc.path)
    assert (owners.pids, owners.known) == (frozenset(), False)


def test_a_process_that_ends_meanwhile_is_no_error(proc, tmp_path):
    proc(800, "ollama")
    (tmp_path / "801").mkdir()
    assert with_children({800}, proc.path) == {800}


def test_another_host():
    assert elsewhere(URL) == ""
    assert elsewhere("http://192.0.2.1:11434") == "the engine at 192.0.2.1 is not on this host"
