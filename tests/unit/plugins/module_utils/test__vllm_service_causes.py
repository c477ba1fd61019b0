# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_causes as causes

WAITERS = [
    "(EngineCore pid=7) ERROR 11-21 07:21:01 [core.py:1510] Exception: WorkerProc initialization"
    " failed due to an exception in a background process. See stack trace for root cause.",
    "RuntimeError: Engine core initialization failed. See root cause above.",
]


@pytest.mark.parametrize(
    ("line", "found", "remedy"),
    [
        (
            "ValueError: Free memory on device cuda:0 (3.1/15.5 GiB) on startup is less than"
            " desired GPU memory utilization (0.92, 14.3 GiB).",
            "3.1 of 15.5 GiB are free on the GPU, less than its share of 0.92",
            "nvidia-smi",
        ),
        ("ValueError: No available memory for the cache blocks.", "weights alone", "quantised"),
        (
            "ValueError: To serve at least one request with the model's max seq len (8192), (1.0"
            " GiB KV cache is needed). the estimated maximum model length is 5120.",
            "model.max_model_len is 8192, and the KV cache that fits holds 5120 tokens",
            "max_model_len to 5120",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried",
            "GPU ran out of memory",
            "max_num_seqs",
        ),
        (
            "ValueError: World size (4) is larger than the number of available GPUs (2) in this"
            " node.",
            "asks for 4 GPUs and 2 are visible",
            "model.gpus",
        ),
        (
            "Total number of attention heads (6) must be divisible by tensor parallel size (4).",
            "6 attention heads can't be divided by model.tensor_parallel_size 4",
            "divides 6",
        ),
        ("CUDA error: no kernel image is available for execution", "generation", "newer"),
        ("RuntimeError: Failed to infer device type", "no usable NVIDIA driver", "Repair"),
        (
            "RuntimeError: Unsupported CPU attention configuration: head_dim=16 dtype=",
            "head_dim is 16",
            "GPU build",
        ),
        ("AttributeError: module has no attribute 'init_cpu_memory_env'", "extension", "libnuma1"),
        ("ModuleNotFoundError: No module named 'vllm._C_stable'", "misses vllm._C_stable", "build"),
        ("ModuleNotFoundError: No module named 'outlines'", "Python module outlines", "packages"),
        ("OSError: [Errno 98] Address already in use", "port is held", "ss -ltnp"),
        ("vllm: error: unrecognized arguments: --use-v2", "argument --use-v2", "extra_args"),
        (
            "User-specified max_model_len (9000) is greater than the derived max_model_len"
            " (max_position_embeddings=2048 or model_max_length=None in model's config.json).",
            "model.max_model_len is 9000 and the model's own limit is 2048",
            "2048 or less",
        ),
        (
            "FileNotFoundError: No such file or directory: /m/tiny/model.safetensors",
            "/m/tiny/model.safetensors is missing, or its account may not read it",
            "vllm_group",
        ),
        (
            "huggingface_hub.errors.LocalEntryNotFoundError: Cannot",
            "missing or holds no",
            "model.path",
        ),
        ("SafetensorError: Error while deserializing header", "damaged", "again"),
        ("InductorError: InvalidCxxCompiler: No working C++ compiler", "no compiler", "g++"),
        (
            "x.service: A process of this unit has been killed by the OOM killer.",
            "limit",
            "memory_max",
        ),
        ("x.service: Main process exited, code=killed, status=9/KILL", "was killed", "memory_max"),
        ("x.service: start-post operation timed out. Terminating.", "not ready", "ready_timeout"),
        (
            "x.service: Failed at step EXEC spawning /s/release/bin/vllm: Permission denied",
            "systemd could not run /s/release/bin/vllm: Permission denied (step EXEC)",
            "vllm_user",
        ),
    ],
)
def test_known_causes_are_told_with_their_figures(line, found, remedy):
    cause = causes.diagnose(["INFO starting", line, *WAITERS])
    assert cause is not None
    assert found in cause.found
    assert remedy in cause.remedy


def test_an_unknown_cause_is_quoted_by_its_first_error():
    journal = [
        "(Worker pid=9) ERROR 11-21 07:20:55 [multiproc_executor.py:953] TypeError: it is new",
        *WAITERS,
    ]
    assert causes.diagnose(journal) is None
    assert causes.last_words(journal) == "TypeError: it is new"
    assert causes.last_words(WAITERS).startswith("Exception: WorkerProc")
    assert causes.last_words(["last", ""]) == "last"
    assert causes.last_words([]) == "nothing in its journal"


def test_a_failure_is_explained_with_state_and_remedy():
    state = {"ActiveState": "failed", "ExecMainStatus": "1"}
    what, remedy = causes.explain("u", state, ["OSError: [Errno 98]"], "did not become ready")
    assert what == (
        "u did not become ready (failed, last exit status 1): its port is held by another process."
    )
    assert "service.port" in remedy
    what, remedy = causes.explain("u", state, ["KeyError: 'x'"], "did not become ready")
    assert what.endswith("KeyError: 'x'")
    assert remedy == "Look at: journalctl -u u"
