# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Whether further accounts, such as a second engine's, can use the GPUs as the first one can."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_check import (
    NA,
    Case,
    Found,
    Health,
    finding,
    subject_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_host import (
    RULES,
    is_elsewhere,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_use import (
    NOT_ASKED,
    judge_cuda,
)

NODES = "gpu_device_nodes"


def judge_accounts(case: Case) -> Found:
    """Judge the device nodes and CUDA for each further account."""
    accounts = (case.host or {}).get("accounts")
    if not accounts:
        return []
    return [health for account in accounts for health in _judge(case, account)]


def _judge(case: Case, account: Mapping[str, Any]) -> Found:
    who, message = f"as {account['user']}", str(account.get("message") or "")
    if not account.get("known", True):
        found = finding(case, NODES, NA, subject=f"host {who}", evidence=message)
        for gpu in case.working:
            subject = f"{subject_of(gpu)} {who}"
            found += finding(case, "gpu_cuda", NA, gpu=gpu, subject=subject, evidence=message)
        return found
    errors = [{"what": "nodes", "message": message}] if message else []
    parts = {"nodes": account.get("nodes"), "cuda": account.get("cuda"), "errors": errors}
    host = {**(case.host or {}), **parts}
    own = replace(case, host=host)
    found = []
    if not is_elsewhere(case):  # nothing is said of such a driver's nodes, whoever asks
        found += [replace(one, subject=f"host {who}") for one in dict(RULES)[NODES](own, host)]
    if (account.get("cuda") or {}).get("message") != NOT_ASKED:
        found += _per_gpu(case, judge_cuda(own), who)
    return found


def _per_gpu(case: Case, found: Iterable[Health], who: str) -> Iterable[Health]:
    """Return outcomes of GPUs, where one stands for all of them too."""
    for health in found:
        if health.gpu is not None:
            yield replace(health, subject=f"{health.subject} {who}")
            continue
        for gpu in case.working:
            subject, uuid = f"{subject_of(gpu)} {who}", str(gpu.get("uuid") or "")
            yield replace(health, subject=subject, gpu=gpu["index"], uuid=uuid)
