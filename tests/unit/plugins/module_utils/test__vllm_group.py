# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from vllm_samples import GIB, gpu, make, service, told

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Host

KNOWN = (
    {"host": "llm-01", "address": "10.0.0.1", "gpus": 1},
    {"host": "llm-02", "address": "10.0.0.2", "gpus": 1},
)
TWO = {"hosts": ["llm-01", "llm-02"], "master_port": 29600}


def grouped(host="llm-01", known=KNOWN, group=None, addresses=None, pids=(), **more):
    """Plan a service of two hosts as one of them."""
    address = {"llm-01": "10.0.0.1", "llm-02": "10.0.0.2", "llm-03": "10.0.0.3"}[host]
    model = {"max_model_len": 8192, "pipeline_parallel_size": 2, **more.pop("model", {})}
    observed = Host(
        addresses={"10.0.0.1": ("10.0.0.1",), "10.0.0.2": ("10.0.0.2",), **(addresses or {})},
        local=frozenset({address}),
        unit_pids={"citadel-llm@a.service": frozenset(pids)},
    )
    return make(
        service(section={"group": group or TWO}, **model),
        observed=observed,
        host=host,
        address=address,
        group_hosts=known,
        **more,
    )


def test_the_first_host_serves():
    result = grouped(weights=20 * GIB)
    assert told(result) == []
    (found,) = result.services
    assert found["serves"] is True
    assert found["group"] == {
        "hosts": ["llm-01", "llm-02"],
        "rank": 0,
        "nnodes": 2,
        "master_addr": "10.0.0.1",
        "master_port": 29600,
        "host_ip": "10.0.0.1",
        "apart": [],
        "together": "-e llm_serial=2 -l llm-01,llm-02",
    }
    args = found["args"]
    assert {name: args.get(name) for name in ("nnodes", "node-rank", "master-addr")} == {
        "nnodes": 2,
        "node-rank": 0,
        "master-addr": "10.0.0.1",
    }
    assert (args["master-port"], args["distributed-executor-backend"]) == (29600, "mp")
    assert (args["port"], args["pipeline-parallel-size"]) == (8001, 2)
    assert "headless" not in args
    assert found["environment"]["VLLM_HOST_IP"] == "10.0.0.1"
    assert found["fit"]["weights_bytes"] == 10 * GIB


def test_the_others_are_headless_and_need_no_port():
    result = grouped("llm-02")
    assert told(result) == []
    (found,) = result.services
    assert (found["serves"], found["args"]["headless"], found["args"]["node-rank"]) == (
        False,
        True,
        1,
    )
    assert not {"host", "port"} & set(found["args"])
    assert found["environment"]["VLLM_HOST_IP"] == "10.0.0.2"


@pytest.mark.parametrize(
    ("more", "field", "words"),
    [
        ({"host": "llm-03"}, "service.group.hosts", "a list that holds llm-03 itself"),
        (
            {"model": {"pipeline_parallel_size": 3}},
            "model.pipeline_parallel_size",
            "a multiple of the group's 2 hosts",
        ),
        (
            {"model": {"tensor_parallel_size": 2}, "gpus": [gpu(0), gpu(1)]},
            "service.group.hosts",
            "hosts with at least 2: tensor_parallel_size 2 x pipeline_parallel_size 2 / 2 hosts",
        ),
        (
            {"model": {"gpus": [0, 1]}, "gpus": [gpu(0), gpu(1)]},
            "model.gpus",
            "1 (tensor_parallel_size 1 x pipeline_parallel_size 2 / 2 hosts)",
        ),
        (
            {"group": {"hosts": ["llm-01", "llm-02"], "master_port": 8001}},
            "service.group.master_port",
            "a port of its own; 8001 is the port of a",
        ),
        (
            {"addresses": {"10.0.0.2": ("127.0.1.1",)}},
            "service.group.hosts",
            "look at /etc/hosts",
        ),
        ({"addresses": {"10.0.0.2": ()}}, "service.group.hosts", "a known name"),
        (
            {"addresses": {"10.0.0.1": ("10.0.0.9",)}},
            "service.group.hosts",
            "an address of this host",
        ),
    ],
)
def test_refusals(more, field, words):
    found = told(grouped(**more))
    assert (f"a.{field}", True) in [(name, words in allowed) for name, _f, allowed in found]


def test_tensor_parallelism_over_hosts_is_a_warning_with_the_better_split():
    result = grouped(model={"tensor_parallel_size": 2, "pipeline_parallel_size": 1})
    assert told(result) == []
    (warning,) = [verdict for verdict in result.verdicts if verdict.check == "vllm_group"]
    assert "tensor_parallel_size 1 with pipeline_parallel_size 2" in warning.evidence
    assert not [v for v in grouped().verdicts if v.check == "vllm_group"]


@pytest.mark.parametrize(
    ("batch", "pids", "apart", "refused"),
    [
        (("llm-01", "llm-02"), (), [], False),
        (("llm-02", "llm-01", "llm-03"), (), [], False),
        (("llm-01",), (), ["llm-02"], True),
        (("llm-01",), (42,), ["llm-02"], False),
        ((), (), [], False),
    ],
)
def test_a_group_is_started_by_a_batch_that_holds_all_of_it(batch, pids, apart, refused):
    result = grouped(batch=batch, pids=pids)
    if refused:
        assert told(result) == [
            (
                "a.service.group.hosts",
                "llm-02 not in this batch (llm-01), while citadel-llm@a.service doesn't run here",
                "all 2 hosts in one batch, for a group starts as a whole:"
                " -e llm_serial=2 -l llm-01,llm-02",
            )
        ]
    else:
        assert told(result) == []
        assert result.services[0]["group"]["apart"] == apart


def test_a_service_of_one_host_needs_no_batch():
    result = make(service(max_model_len=8192), batch=("llm-09",))
    assert (told(result), result.services[0]["group"]) == ([], {})
