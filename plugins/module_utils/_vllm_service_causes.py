# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Why a vLLM service did not come up, read from its journal.

vLLM's last line is only ``Engine core initialization failed. See root cause above.``; the cause
stands earlier. The fragments are stable parts of vLLM's, PyTorch's and systemd's own messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One known way to fail.

    Attributes:
        pattern: regular expression for the journal.
        found: what it means; ``{0}`` and so on stand for the expression's groups.
        remedy: what to do.
    """

    pattern: str
    found: str
    remedy: str


# The first that matches counts: a cause before its consequences.
CAUSES = (
    Cause(
        r"killed by the OOM killer|Result 'oom-kill'|result 'oom-kill'",
        "the kernel killed it, because it needed more memory than its limit",
        "Raise service.memory_max, or lower model.kv_cache_gb or model.max_model_len.",
    ),
    Cause(
        r"Failed at step (\w+) spawning (\S+): (.+)",
        "systemd could not run {1}: {2} (step {0})",
        "Let vllm_user reach that file; a step other than EXEC names the setting of the unit.",
    ),
    Cause(
        r"Assertion failed for|ssertPathExists=\S+ was not met",
        "it has no release",
        "Run the role vllm, which leads it to one.",
    ),
    Cause(
        r"Unsupported CPU attention configuration: head_dim=(\d+)",
        "the model's head_dim is {0}, which the CPU build cannot compute",
        "Serve a model whose head_dim is 32, 64, 80, 96, 128 or larger, or use the GPU build.",
    ),
    Cause(
        r"Free memory on device.*?\(([\d.]+)/([\d.]+) GiB\).*?"
        r"desired GPU memory utilization \(([\d.]+)",
        "{0} of {1} GiB are free on the GPU, less than its share of {2} asks for",
        "Find who holds the memory with nvidia-smi, or lower model.gpu_memory_utilization.",
    ),
    Cause(
        r"Free memory on device.*less than desired",
        "another process holds the GPU's memory",
        "Find it with nvidia-smi, or lower model.gpu_memory_utilization.",
    ),
    Cause(
        r"No available memory for the cache blocks",
        "the weights alone fill the memory that it may use; nothing is left for the KV cache",
        "Serve a smaller or quantised model, raise model.gpu_memory_utilization (on the CPU"
        " model.kv_cache_gb), or spread it over more GPUs.",
    ),
    Cause(
        r"To serve at least one request with the model.s max seq len \(?(\d+)\)?.*?"
        r"estimated maximum model length is (\d+)",
        "model.max_model_len is {0}, and the KV cache that fits holds {1} tokens",
        "Set model.max_model_len to {1} or less, or make more memory available.",
    ),
    Cause(
        r"CUDA out of memory|torch\.OutOfMemoryError",
        "the GPU ran out of memory while it was loading or warming up",
        "Lower model.gpu_memory_utilization or performance.max_num_seqs.",
    ),
    Cause(
        r"[Nn]ot enough (?:available )?(?:CPU )?memory|"
        r"CPU memory.*(?:is|are) (?:less|not enough|insufficient)|"
        r"DefaultCPUAllocator: can't allocate",
        "the host has too little memory for the KV cache and the weights",
        "Lower model.kv_cache_gb, or raise service.memory_max.",
    ),
    Cause(
        r"World size \((\d+)\) is larger than the number of available GPUs \((\d+)\)",
        "model.tensor_parallel_size asks for {0} GPUs and {1} are visible",
        "Let model.tensor_parallel_size and model.gpus agree.",
    ),
    Cause(
        r"[Tt]otal number of attention heads \((\d+)\) must be divisible by tensor parallel size"
        r" \((\d+)\)",
        "the model's {0} attention heads can't be divided by model.tensor_parallel_size {1}",
        "Choose a model.tensor_parallel_size that divides {0}.",
    ),
    Cause(
        r"no kernel image is available",
        "the installed build has no code for this GPU's generation",
        "Install a newer build of vLLM (vllm_packages).",
    ),
    Cause(
        r"Failed to infer device type",
        "the GPU build found no usable NVIDIA driver; it does not fall back to the CPU",
        "Repair the driver (playbooks/phase_prepare.yml judges it), or set vllm_build to cpu.",
    ),
    Cause(
        r"has no attribute '?init_cpu_memory_env",
        "the CPU build could not load its extension",
        "Install the system package libnuma1.",
    ),
    Cause(
        r"No module named '?(vllm\._[\w.]+)",
        "vLLM took the host for another platform and misses {0}",
        "Let vllm_build say which build vllm_packages installs.",
    ),
    Cause(
        r"No module named '?([\w.]+)",
        "its environment misses the Python module {0}",
        "Correct vllm_packages.",
    ),
    Cause(
        r"Address already in use|Errno 98",
        "its port is held by another process",
        "See who listens with: ss -ltnp. Stop that, or change service.port.",
    ),
    Cause(
        r"unrecognized arguments: (.+)",
        "this version of vLLM knows no argument {0}",
        "Remove it from extra_args, or change vllm_version.",
    ),
    Cause(
        r"error: argument (\S+?):? (.+)",
        "vLLM refuses the argument {0}: {1}",
        "Correct the value in the declaration.",
    ),
    Cause(
        r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len"
        r" \((?:max_position_embeddings=)?(\d+)",
        "model.max_model_len is {0} and the model's own limit is {1}",
        "Set model.max_model_len to {1} or less.",
    ),
    Cause(
        r"LocalEntryNotFoundError|Repo id must|is not a (?:local folder|valid model identifier)|"
        r"Invalid repository ID or local directory",
        "the model's directory is missing or holds no model",
        "Put the model where model.path says, or declare model.source.",
    ),
    Cause(
        r"No such file or directory: '?(/[^\s']+\.safetensors)",
        "{0} is missing, or its account may not read it",
        "Give vllm_group read access to the model's files.",
    ),
    Cause(
        r"SafetensorError.*|HeaderTooLarge|MetadataIncompleteBuffer|InvalidHeader",
        "a file of the model's weights is damaged or incomplete",
        "Fetch the model again and compare its checksums.",
    ),
    Cause(
        r"Failed to find C compiler|No such file or directory: '(?:gcc|g\+\+|cc)'|"
        r"InvalidCxxCompiler|No working C\+\+ compiler",
        "there is no compiler, and kernels are compiled at start",
        "Install the package g++, or set model.enforce_eager.",
    ),
    Cause(
        r"PermissionError: .*?'(/[^']+)'",
        "its account may not read {0}",
        "Give vllm_group read access to it and to the directories above.",
    ),
    Cause(
        r"No space left on device|Bus error",
        "a file system that it writes to is full, /dev/shm or its cache",
        "Look at: df -h /dev/shm /var/cache.",
    ),
    Cause(
        r"start(?:-post)? operation timed out|hx_infra.llm: not ready within (\d+)",
        "it was not ready within its time",
        "Raise service.ready_timeout, or look in its journal for what it waits for.",
    ),
    Cause(
        # Where control groups are of the first version, systemd isn't told why.
        r"Main process exited, code=killed, status=9/KILL",
        "it was killed, as the kernel does to what needs more memory than its limit",
        "Raise service.memory_max, or lower model.kv_cache_gb or model.max_model_len.",
    ),
    Cause(
        r"start request repeated too quickly|Start request repeated too quickly",
        "it failed so often that systemd gave up",
        "Correct what its journal shows, then: systemctl reset-failed.",
    ),
)


def diagnose(journal: Iterable[str]) -> Cause | None:
    """Return the known cause that a journal shows, its text filled in; None for an unknown one."""
    text = "\n".join(journal)
    for cause in CAUSES:
        match = re.search(cause.pattern, text)
        if match:
            groups = [str(group or "").strip().rstrip(".")[:200] for group in match.groups()]
            return Cause(cause.pattern, cause.found.format(*groups), cause.remedy.format(*groups))
    return None


def last_words(journal: Iterable[str]) -> str:
    """Return the line that names the error, for causes that nobody knows yet.

    The first one: what follows are those who waited for it.
    """
    lines = [line.strip() for line in journal if line.strip()]
    errors = [line for line in lines if re.search(r"\b\w*(?:Error|Exception)\b: ", line)]
    named = [line for line in errors if "root cause" not in line]
    chosen = (named or errors or lines[-1:] or ["nothing in its journal"])[0]
    return re.sub(r"^\(\w[^)]*\)\s*|(?:ERROR|INFO) \d\d-\d\d [\d:]+ \[[^\]]*\] ", "", chosen)[:300]


def explain(
    unit: str, state: Mapping[str, str], journal: list[str], symptom: str
) -> tuple[str, str]:
    """Return what failed and what to do about it."""
    cause = diagnose(journal)
    status = state.get("ExecMainStatus", "?")
    stand = f"{state.get('ActiveState', 'unknown')}, last exit status {status}"
    if cause is None:
        return (
            f"{unit} {symptom} ({stand}): {last_words(journal)}",
            f"Look at: journalctl -u {unit}",
        )
    return f"{unit} {symptom} ({stand}): {cause.found}.", cause.remedy
