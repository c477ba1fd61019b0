# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import gpu_telemetry as collector
import gpu_xids
import pytest
from gpu_metrics import Xid
from telemetry_parts import SAMPLE, events, options, printing, reader

BOOT = "0123456789abcdef0123456789abcdef"
ADDRESS = "00000000:01:00.0"


def record(xid, time="2026-11-20T10:00:00.000000Z", **more):
    return {
        "boot": BOOT,
        "monotonic_us": 1,
        "pci_bus_id": ADDRESS,
        "time": time,
        "xid": xid,
        **more,
    }


def lines(*records):
    return b"".join(json.dumps(one).encode() + b"\n" for one in records)


def test_a_history_is_counted():
    later = "2026-11-20T10:00:01.500000Z"
    data = lines(
        record(79),
        record(13, until=later, count=40),
        record(79, time=later),
        record(79, pci_bus_id="00000000:02:00.0"),
    )
    first = 1_795_168_800.0
    assert gpu_xids.count(data) == [
        Xid(ADDRESS, 13, 40, first + 1.5),
        Xid(ADDRESS, 79, 2, first + 1.5),
        Xid("00000000:02:00.0", 79, 1, first),
    ]


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"7", b'{"xid": 1}', lines(record("x"))])
def test_lines_that_are_no_records_are_passed_over(line):
    assert len(gpu_xids.count(line + b"\n" + lines(record(79)))) == 1


def test_a_history_is_read_again_when_it_has_grown(tmp_path):
    path = tmp_path / "xid-history.jsonl"
    history = gpu_xids.History(path)
    assert history.xids() == []
    path.write_bytes(lines(record(79)))
    assert [xid.count for xid in history.xids()] == [1]
    path.write_bytes(lines(record(79), record(79)))
    assert [xid.count for xid in history.xids()] == [2]
    path.unlink()
    assert history.xids() == []


@pytest.fixture
def take(tmp_path):
    """Take a sample with a history, searched by a stand-in for gpu_xid_history.py."""
    history = tmp_path / "xid-history.jsonl"

    def run(*records, search="", good=True):
        program = tmp_path / "search.py"
        program.write_text(
            "import sys, time\nassert sys.argv[1] == '--history'\n"
            f"open(sys.argv[2], 'wb').write({lines(*records)!r})\n{search}"
        )
        path = reader(tmp_path, printing(*(SAMPLE if good else ["text"])))
        return collector.main(options(tmp_path, path, xids=history, xid_program=program))

    return run


def metrics(tmp_path):
    return (tmp_path / "gpu.prom").read_text().splitlines()


def test_new_xids_are_events_and_metrics_and_old_ones_are_not_news(tmp_path, take):
    assert take(record(13)) == 0
    assert take(record(13)) == 0
    assert len(events(tmp_path)) == 1
    assert take(record(13), record(79)) == 0
    assert take(record(13, count=4), record(79)) == 0
    assert events(tmp_path)[1:] == [
        f"xid GPU at {ADDRESS} reported Xid 79",
        f"xid GPU at {ADDRESS} reported Xid 13, 3 times",
    ]
    found = metrics(tmp_path)
    assert f'hx_infra_gpu_xid_total{{pci_bus_id="{ADDRESS}",xid="13"}} 4.0' in found
    assert 'nvidia_smi_xid_errors_total{uuid="0a",xid="79"} 1.0' in found
    assert "hx_infra_gpu_xid_read_success 1.0" in found


def test_the_xid_of_a_card_that_is_gone_keeps_its_name(tmp_path, take):
    assert take() == 0
    assert take(record(79), good=False) == 1
    assert f"xid GPU at {ADDRESS} reported Xid 79" in events(tmp_path)
    assert 'nvidia_smi_xid_errors_total{uuid="0a",xid="79"} 1.0' in metrics(tmp_path)


@pytest.mark.parametrize(
    ("search", "why"),
    [
        ("sys.exit('gpu_xid_history: the journal cannot be read')", "the journal cannot be read"),
        ("sys.exit(3)", "the search ended with status 3"),
        ('print(\'{"added": 0, "complete": false}\')\nsys.exit(1)', "the journal is long"),
    ],
)
def test_a_search_that_fails_is_seen_and_costs_no_sample(tmp_path, take, search, why):
    for _turn in range(2):
        assert take(record(13), search=search) == 0
        assert "hx_infra_gpu_xid_read_success 0.0" in metrics(tmp_path)
        assert "hx_infra_gpu_collect_success 1.0" in metrics(tmp_path)
    assert take(record(13)) == 0
    _start, error, recovered = events(tmp_path)
    assert error.startswith("error xid_search: ")
    assert why in error
    assert recovered == "recovered the kernel's journal can be searched again"


def test_a_search_that_hangs_is_killed(tmp_path, take, monkeypatch):
    monkeypatch.setattr(gpu_xids, "DEADLINE_SECONDS", 0.5)
    assert take(search="time.sleep(60)\n") == 0
    assert "xid_search: the journal could not be searched within 0.5 s" in events(tmp_path)[1]
