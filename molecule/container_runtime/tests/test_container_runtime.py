# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest

SCENARIO = Path(__file__).resolve().parents[1]
INVENTORY = "inventories/lab"
PROFILE = "/etc/sim-gpu/profile.conf"
SPEC = "/etc/cdi/nvidia.yaml"


@pytest.fixture
def prove(playbook):
    """Run the proof alone; returns the finished process and what it said, without line ends."""

    def run(**variables):
        arguments = ["-i", INVENTORY, str(SCENARIO / "proof.yml")]
        if variables:
            arguments += ["-e", json.dumps(variables)]
        ended = playbook(*arguments)
        return ended, " ".join((ended.stdout + ended.stderr).split())

    return run


@pytest.fixture
def spoil(llm_02):
    """Change files of the host for one test."""
    kept = []

    def keep(path):
        llm_02.check_output(f"cp -a {path} /root/kept{len(kept)}")
        kept.append(path)

    yield keep
    for number, path in enumerate(kept):
        llm_02.check_output(f"cp -a /root/kept{number} {path}")


def containers(host):
    return host.check_output("podman ps --all --format '{{.Names}}'").split()


def test_a_container_sees_what_the_host_sees(llm_02, prove):
    ended, said = prove()
    assert ended.returncode == 0, said
    assert "changed=0" in said
    assert containers(llm_02) == []


def test_the_specification_names_every_gpu(llm_02):
    spec = llm_02.file(SPEC).content_string
    uuids = llm_02.check_output("nvidia-smi --query-gpu=uuid --format=csv,noheader").split()
    assert len(uuids) == 2
    for uuid in uuids:
        assert f'name: "{uuid}"' in spec


def test_devices_are_linked_when_the_driver_is_loaded(llm_02):
    rule = llm_02.file("/etc/udev/rules.d/71-nvidia-dev-char.rules").content_string
    assert "create-dev-char-symlinks" in rule


def test_other_gpus_make_the_specification_stale_and_it_is_written_anew(
    llm_02, prove, spoil, playbook
):
    spoil(PROFILE)
    spoil(SPEC)
    llm_02.check_output(f"cp /lab/sim_gpu/profiles/rtx-4070-ti-x2.conf {PROFILE}")
    ended, said = prove()
    assert ended.returncode != 0
    assert "container_cdi_spec is it does not name GPU-4070a0a0" in said
    converge = str(SCENARIO / "converge.yml")
    dry = playbook("-i", INVENTORY, "--check", converge)
    assert "changed=1" in dry.stdout, dry.stdout
    wet = playbook("-i", INVENTORY, converge)
    assert wet.returncode == 0, wet.stdout
    assert "changed=1" in wet.stdout
    assert "GPU-4070a0a0" in llm_02.file(SPEC).content_string
    kept = llm_02.check_output("ls /var/lib/hx-llm/container")
    assert "nvidia.yaml." in kept


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            "s/containerPath: .*ml.so.1$/containerPath: \\/usr\\/lib\\/elsewhere.so.1/",
            "libnvidia-ml is not in the container",
        ),
        ("s/^kind: .*/kind: vendor.com\\/gpu/", "finds no CDI specification"),
        ("s/575[.]64[.]03/570.86.15/", "it is for driver 570.86.15, the host runs 575.64.03"),
    ],
    ids=["no library", "no specification", "old driver"],
)
def test_a_spoiled_specification_is_seen(llm_02, prove, spoil, edit, words):
    spoil(SPEC)
    llm_02.check_output(f"sed -i '{edit}' {SPEC}")
    ended, said = prove()
    assert ended.returncode != 0
    assert words in said
    assert containers(llm_02) == []


def test_two_specifications_are_refused(llm_02, prove):
    llm_02.check_output(f"cp {SPEC} /etc/cdi/other.yaml")
    try:
        _seen, said = prove()
    finally:
        llm_02.check_output("rm /etc/cdi/other.yaml")
    assert "/etc/cdi holds 2 CDI specifications" in said


def test_no_container_computes_on_the_cpu_instead(llm_02, prove, spoil):
    spoil(PROFILE)
    llm_02.check_output(f"cp /lab/sim_gpu/profiles/fault-driver-missing.conf {PROFILE}")
    ended, said = prove()
    assert ended.returncode != 0
    assert "container_host_gpus is 0, wanted 2" in said


def test_a_tag_is_refused(prove):
    ended, said = prove(image={"reference": "docker.io/nvidia/cuda:12.9.1-base-ubuntu24.04"})
    assert ended.returncode != 0
    assert "A tag is another image tomorrow" in said


@pytest.mark.parametrize("part", ["preflight", "install", "configure", "proof"])
@pytest.mark.parametrize("more", [["--check"], []], ids=["dry", "real"])
def test_each_tag_works_alone(llm_02, playbook, part, more):
    converge = str(SCENARIO / "converge.yml")
    ended = playbook("-i", INVENTORY, "--tags", f"container_runtime_{part}", *more, converge)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "changed=0" in ended.stdout
    assert containers(llm_02) == []
