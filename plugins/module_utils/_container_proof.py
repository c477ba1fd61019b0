# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The proof that a container sees the host's GPUs: one start, one list, one comparison."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._container_causes import (
    cause,
    compare,
    listed_uuids,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._container_engine import (
    Engine,
    ended,
    gpu_arguments,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._container_host import (
    find_spec,
    host_gpus,
    stale,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import Verdict, judge

HARMLESS = (
    "--rm",
    "--pull=never",
    "--network=none",
    "--read-only",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
)


@dataclass(frozen=True)
class Proof:
    """What is to be proven, and with what.

    Attributes:
        engine: the container engine.
        mode: ``cdi`` or ``runtime``.
        image: the image to start.
        expected: declared number of GPUs; 0 for not declared.
        arguments: further arguments for ``run``.
        spec_dirs: directories of CDI specifications.
        toolkit_version: version of the toolkit; empty when there is none.
    """

    engine: Engine
    mode: str
    image: str
    expected: int = 0
    arguments: tuple[str, ...] = ()
    spec_dirs: tuple[str, ...] = ()
    toolkit_version: str = ""


@dataclass
class Outcome:
    """What came of a proof."""

    verdicts: list[Verdict] = field(default_factory=list)
    host_gpus: list[str] = field(default_factory=list)
    container_gpus: list[str] = field(default_factory=list)
    said: str = ""
    remedy: str = ""


def prove(proof: Proof, facts: dict[str, Any], start: bool = True) -> Outcome:
    """Judge engine, toolkit and specification, then start the container and compare.

    Each verdict is a cause of the next; the container is started whatever they say, except where
    there is no engine or no GPU, for what it says is the best description of a fault.

    Args:
        proof: what is to be proven.
        facts: the GPUs as the host sees them, from ``read_gpus``.
        start: whether the container is started; a dry run only judges what stands.
    """
    outcome = Outcome()
    try:
        version = proof.engine.version()
    except HostError as error:
        outcome.said = error.message
        why, outcome.remedy = cause(error.message, proof.engine.name)
        outcome.remedy = outcome.remedy or error.remedy
        outcome.verdicts.append(
            Verdict(
                "container_engine", "FAIL", proof.engine.name, "no answer", "an answer", "", why
            )
        )
        return outcome
    outcome.verdicts += [
        judge("container_engine", True, subject=proof.engine.name, value=version),
        judge(
            "container_toolkit",
            bool(proof.toolkit_version),
            value=proof.toolkit_version or "not installed",
            limit="installed",
            evidence="nvidia-ctk --version",
        ),
    ]
    try:
        gpus = host_gpus(facts, proof.engine.host)
    except HostError as error:
        outcome.said, outcome.remedy = error.message, error.remedy
        outcome.verdicts.append(
            judge("container_host_gpus", False, value=0, limit=proof.expected or "at least 1")
        )
        return outcome
    outcome.host_gpus = list(gpus.uuids)
    if proof.expected:
        count = len(gpus.uuids)
        outcome.verdicts.append(
            judge(
                "container_host_gpus",
                count == proof.expected,
                value=count,
                limit=proof.expected,
                evidence="GPUs on the host, and as declared",
            )
        )
    if proof.mode == "cdi":
        outcome.verdicts.append(_spec_verdict(proof, gpus))
    if start:
        outcome.verdicts.append(_see(proof, outcome))
    return outcome


def _spec_verdict(proof: Proof, gpus: Any) -> Verdict:
    try:
        spec = find_spec(proof.spec_dirs, proof.engine.host)
    except HostError as error:
        return judge("container_cdi_spec", False, value=error.message, limit="fits the host")
    wrong = stale(spec, gpus)
    return judge(
        "container_cdi_spec",
        not wrong,
        subject=spec.path if spec else "",
        value="; ".join(wrong) or "fits the host",
        limit="fits the host",
        evidence=f"{len(gpus.uuids)} GPUs, driver {gpus.driver}",
    )


def _see(proof: Proof, outcome: Outcome) -> Verdict:
    engine = proof.engine
    name = f"hx-gpu-proof-{os.getpid()}"
    ran = engine.call(
        "run",
        f"--name={name}",
        *HARMLESS,
        *gpu_arguments(engine.name, proof.mode, []),
        *proof.arguments,
        proof.image,
        "nvidia-smi",
        "-L",
    )
    if ran.timed_out:
        engine.call("rm", "--force", name)  # killing the client leaves the container behind
    outcome.container_gpus = listed_uuids(ran.out)
    wrong = compare(outcome.host_gpus, outcome.container_gpus)
    if ran.rc != 0:
        outcome.said = ended(ran)
        why, outcome.remedy = cause(f"{ran.out}\n{ran.err}", engine.name)
        wrong = f"{why}: {outcome.said}" if why else outcome.said
    elif wrong:
        outcome.remedy = (
            "Run the container_runtime role, so that the container gets the present GPUs."
        )
    total = len(outcome.host_gpus)
    seen = len(set(outcome.host_gpus) & set(outcome.container_gpus))
    return judge(
        "container_gpus",
        ran.rc == 0 and not wrong,
        subject=proof.image,
        value=f"{seen} of {total}",
        limit=f"{total} of {total}",
        evidence=wrong or "UUIDs by nvidia-smi -L, in the container and on the host",
    )
