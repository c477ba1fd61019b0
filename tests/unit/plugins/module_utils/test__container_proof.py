# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._container_causes import (
    cause,
    compare,
    listed_uuids,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._container_engine import (
    Engine,
    gpu_arguments,
    version_tuple,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._container_image import (
    Source,
    check_source,
    load,
    pull,
    remember,
    remembered,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._container_proof import (
    Proof,
    prove,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

A, B = "GPU-aaaa", "GPU-bbbb"
LIST = f"GPU 0: NVIDIA RTX 5060 Ti (UUID: {A})\nGPU 1: NVIDIA RTX 5060 Ti (UUID: {B})\n"
FACTS = {
    "state": "ok",
    "driver": {"version": "575.64.03"},
    "gpus": [{"uuid": A}, {"uuid": B}],
    "errors": [],
}
DIGEST = "5d" * 32


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            'docker: Error response from daemon: could not select device driver "" with '
            "capabilities: [[gpu]].",
            "toolkit is not installed",
        ),
        ("docker: Error response from daemon: Unknown runtime specified nvidia.", "no runtime nv"),
        (
            "Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=all",
            "finds no CDI specification",
        ),
        (
            'unknown field "additionalGids"\nunresolvable CDI devices nvidia.com/gpu=all',
            "field additionalGids",
        ),
        ("Failed to initialize NVML: Unknown Error", "daemon-reload"),
        ("Failed to initialize NVML: Driver/library version mismatch", "another version"),
        (
            "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.",
            "libnvidia-ml is not in the container",
        ),
        (
            "Error: crun: executable file `nvidia-smi` not found in $PATH: No such file or "
            "directory: OCI runtime attempted to invoke a command that was not found",
            "nothing of the driver",
        ),
        (
            'exec: "nvidia-smi": executable file not found in $PATH: unknown.',
            "nothing of the driver",
        ),
        ("Error: localhost/nope:1: image not known", "image for the proof is not on the host"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "does not answer"),
        ("No devices were found", "no GPU"),
        ("something nobody has seen", ""),
    ],
)
def test_known_causes(said, words):
    why, remedy = cause(said, "podman")
    assert words in why
    assert bool(why) == bool(remedy) == bool(words)


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ([A, B], ""),
        ([B, A], ""),
        ([A], f"not in the container: {B}"),
        ([], f"not in the container: {A}, {B}"),
        ([A, B, "GPU-c"], "not on the host: GPU-c"),
        ([A, A, B], "listed 3 times for 2 GPUs"),
    ],
)
def test_compare(inside, words):
    assert compare([A, B], inside) == words


def test_listed_uuids():
    assert listed_uuids(LIST) == [A, B]
    assert listed_uuids("MIG 1g.5gb (UUID: MIG-x)") == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("20.10.24+dfsg1", (20, 10, 24)), ("podman version 4.3.1", (4, 3, 1)), ("", ()), ("x", ())],
)
def test_versions(text, numbers):
    assert version_tuple(text) == numbers


def test_gpu_arguments():
    assert gpu_arguments("podman", "cdi", []) == ["--device=nvidia.com/gpu=all"]
    assert gpu_arguments("docker", "cdi", [A]) == [f"--device=nvidia.com/gpu={A}"]
    assert f"--env=NVIDIA_VISIBLE_DEVICES={A},{B}" in gpu_arguments("docker", "runtime", [A, B])
    with pytest.raises(ValueError, match="only Docker"):
        gpu_arguments("podman", "runtime", [])


class Script:
    """Answers each question by its first words, and remembers what was asked."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def __call__(self, argv, timeout_s):
        self.asked.append(list(argv))
        for words, outcome in self.answers.items():
            if " ".join(argv[1:]).startswith(words):
                return outcome
        return Outcome(0, "", "")


def ran(rc=0, out="", err=""):
    return Outcome(rc, out, err)


def proof_of(run_outcome, version=None, mode="runtime", toolkit="1.18.0", **more):
    script = Script({"version": version or ran(0, "28.0.1\n"), "run": run_outcome})
    engine = Engine("docker", "h", script)
    return Proof(engine, mode, "img@sha256:x", toolkit_version=toolkit, **more), script


def by_check(outcome):
    return {verdict.check: verdict for verdict in outcome.verdicts}


def test_a_container_that_sees_all_gpus_passes():
    proof, script = proof_of(ran(0, LIST), expected=2)
    outcome = prove(proof, FACTS)
    assert {verdict.status for verdict in outcome.verdicts} == {"PASS"}
    assert by_check(outcome)["container_gpus"].value == "2 of 2"
    argv = script.asked[-1]
    assert "--network=none" in argv
    assert "--pull=never" in argv
    assert argv[-3:] == ["img@sha256:x", "nvidia-smi", "-L"]


@pytest.mark.parametrize(
    ("outcome", "value", "words"),
    [
        (ran(0, LIST.splitlines()[0]), "1 of 2", f"not in the container: {B}"),
        (ran(0, ""), "0 of 2", "not in the container"),
        (ran(125, "", "unresolvable CDI devices nvidia.com/gpu=all"), "0 of 2", "no CDI spec"),
        (ran(0, f"GPU 0: x (UUID: {A})\nGPU 1: x (UUID: GPU-c)"), "1 of 2", "not on the host"),
        (Outcome(None, "", ""), "0 of 2", "did not answer in time"),
        (ran(9, LIST, ""), "2 of 2", "ended with status 9"),
    ],
)
def test_a_container_that_does_not_fails(outcome, value, words):
    proof, script = proof_of(outcome)
    verdict = by_check(prove(proof, FACTS))["container_gpus"]
    assert (verdict.status, verdict.value) == ("FAIL", value)
    assert words in verdict.evidence
    removed = [argv for argv in script.asked if argv[1] == "rm"]
    assert bool(removed) is outcome.timed_out


def test_no_container_is_started_without_a_gpu_on_the_host():
    proof, script = proof_of(ran(0, LIST))
    facts = {"state": "driver_not_loaded", "gpus": [], "errors": [{"message": "no driver"}]}
    outcome = prove(proof, facts)
    assert by_check(outcome)["container_host_gpus"].status == "FAIL"
    assert not [argv for argv in script.asked if argv[1] == "run"]


def test_no_container_is_started_in_a_dry_run():
    proof, script = proof_of(ran(0, LIST))
    assert "container_gpus" not in by_check(prove(proof, FACTS, start=False))
    assert not [argv for argv in script.asked if argv[1] == "run"]


def test_a_missing_toolkit_and_fewer_gpus_than_declared_fail():
    proof, _seen = proof_of(ran(0, LIST), toolkit="", expected=4)
    found = by_check(prove(proof, FACTS))
    assert found["container_toolkit"].status == "FAIL"
    assert found["container_host_gpus"].status == "FAIL"


def test_an_engine_that_does_not_answer_fails():
    proof, _seen = proof_of(ran(0), version=ran(1, "", "Cannot connect to the Docker daemon"))
    outcome = prove(proof, FACTS)
    assert by_check(outcome)["container_engine"].status == "FAIL"
    assert "docker.service" in outcome.remedy


def test_no_specification_fails(tmp_path):
    proof, _seen = proof_of(ran(0, LIST), mode="cdi", spec_dirs=(str(tmp_path),))
    verdict = by_check(prove(proof, FACTS))["container_cdi_spec"]
    assert (verdict.status, verdict.value) == ("FAIL", "there is none")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"reference": f"docker.io/nvidia/cuda@sha256:{DIGEST}"}, None),
        ({"archive": "/a.tar", "sha256": DIGEST}, None),
        ({"reference": "docker.io/nvidia/cuda:12.9"}, "A tag is another image tomorrow"),
        ({"reference": f"nvidia/cuda:12@sha256:{DIGEST[:-1]}"}, "64 hex digits"),
        ({"archive": "/a.tar"}, "checksum ''"),
        ({"archive": "/a.tar", "reference": "x"}, "both of reference and archive"),
        ({}, "neither of"),
    ],
)
def test_sources(source, words):
    if words is None:
        check_source(Source("h", **source))
        return
    with pytest.raises(HostError, match=words):
        check_source(Source("h", **source))


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(b"image")
    return str(path)


SHA = "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"  # of b"image"


@pytest.mark.parametrize(
    ("form", "said", "name"),
    [
        ("image", "Loaded image: localhost/x:1\n", "localhost/x:1"),
        ("image", "Loaded image ID: sha256:" + DIGEST, f"sha256:{DIGEST}"),
        ("rootfs", f"sha256:{DIGEST}\n", DIGEST),
    ],
)
def test_load_remembers_what_became_of_an_archive(archive, tmp_path, form, said, name):
    script = Script({"load": ran(0, said), "import": ran(0, said), "image": ran(0, DIGEST)})
    engine = Engine("podman", "h", script)
    source = Source("h", "", archive, SHA, form)
    state = str(tmp_path / "state" / "images.json")
    assert remembered(state, engine, source) == ""
    identity = load(engine, source, 60)
    assert identity == f"sha256:{DIGEST}"
    assert script.asked[-1][-1] == name
    remember(state, engine, source, identity)
    assert remembered(state, engine, source) == identity
    script.answers["image"] = ran(125, "", "Error: x: image not known")
    assert remembered(state, engine, source) == ""


def test_load_refuses_another_archive(archive):
    script = Script({})
    with pytest.raises(HostError, match=f"SHA-256 {SHA}, wanted: {DIGEST}"):
        load(Engine("podman", "h", script), Source("h", "", archive, DIGEST), 60)
    assert script.asked == []


def test_load_refuses_an_archive_of_two_images(archive):
    script = Script({"load": ran(0, "Loaded image: a:1\nLoaded image: b:1\n")})
    with pytest.raises(HostError, match="no image or more than one"):
        load(Engine("docker", "h", script), Source("h", "", archive, SHA), 60)


def test_pull_says_what_the_registry_said():
    script = Script({"pull": ran(125, "", "Error: initializing source: connection refused")})
    source = Source("h", reference=f"r/x@sha256:{DIGEST}")
    with pytest.raises(HostError, match=r"h: podman pull r/x@.*connection refused"):
        pull(Engine("podman", "h", script), source, 60)
