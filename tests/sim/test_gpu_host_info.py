# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CUDA on the simulated driver library, nodes as another user, and the module as a whole."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_host_nodes as nodes
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_cuda import try_cuda
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import Host

ROOT = Path(__file__).resolve().parents[2]
SIM = ROOT / "tests" / "lab" / "sim_cuda"
UUID = "GPU-4070a0a0-51a0-4000-8000-00000000000{}"
SYSTEM_PYTHON = "/usr/bin/python3"  # another account may not reach the one of the tests
CALLS = [  # every call that is made within a device, in order
    "cuDeviceGet",
    "cuDeviceGetUuid",
    "cuDevicePrimaryCtxRetain",
    "cuCtxSetCurrent",
    "cuMemAlloc_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpyDtoH_v2",
    "cuMemFree_v2",
    "cuDevicePrimaryCtxRelease_v2",
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(scope="session")
def library():
    """The simulated library, where every account can read it."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated CUDA library")
    folder = Path(tempfile.mkdtemp(prefix="hx-sim-cuda-"))
    folder.chmod(0o755)
    subprocess.run(["sh", str(SIM / "build.sh"), str(folder)], check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def simulated(library, monkeypatch):
    """Return a function that sets the simulator up and tries CUDA."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))

    def run(timeout_s=30.0, who=None, python=sys.executable, limited=False, **settings):
        for name, value in settings.items():
            monkeypatch.setenv(f"SIM_CUDA_{name.upper()}", str(value))
        return try_cuda(Host(timeout_s=timeout_s), python, who, limited)

    return run


def test_two_gpus_that_work(simulated):
    found = simulated(gpus=2)
    assert (found["state"], found["message"]) == ("ok", "")
    assert [gpu["uuid"] for gpu in found["gpus"]] == [UUID.format(0), UUID.format(1)]
    assert [gpu["index"] for gpu in found["gpus"]] == [0, 1]
    assert all(gpu["ok"] and gpu["milliseconds"] > 0 for gpu in found["gpus"])


def test_all_devices_are_seen_whatever_the_task_sees(simulated, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert len(simulated(gpus=3)["gpus"]) == 3


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_on_one_gpu(simulated, call):
    found = simulated(gpus=2, fail=f"{call}@1=719")
    assert found["state"] == "failed"
    good, bad = found["gpus"]
    assert good["ok"]
    assert (bad["ok"], bad["call"], bad["code"]) == (False, call, 719)
    text = f"{call}: CUDA_ERROR_LAUNCH_FAILED (719): unspecified launch failure"
    assert bad["message"] == text
    assert found["message"] == f"GPU 1: {text}"


def test_what_failed_first_is_told_not_what_failed_while_tidying(simulated):
    calls = ("cuMemcpyHtoD_v2", "cuMemFree_v2", "cuDevicePrimaryCtxRelease_v2")
    found = simulated(fail=",".join(f"{call}=719" for call in calls))
    assert found["gpus"][0]["call"] == "cuMemcpyHtoD_v2"


@pytest.mark.parametrize(
    ("settings", "message", "code"),
    [
        ({"fail": "cuInit=999"}, "cuInit: CUDA_ERROR_UNKNOWN (999): unknown error", 999),
        (
            {"fail": "cuInit=803"},
            "cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803): system has unsupported display driver"
            " / cuda driver combination",
            803,
        ),
        (
            {"gpus": 0},
            "cuInit: CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device is detected",
            100,
        ),
        ({"fail": "cuDeviceGetCount=12345"}, "cuDeviceGetCount: error 12345", 12345),
    ],
)
def test_cuda_as_a_whole_does_not_work(simulated, settings, message, code):
    found = simulated(**settings)
    assert (found["state"], found["message"], found["code"]) == ("failed", message, code)
    assert found["gpus"] == []


def test_a_full_gpu_is_told_by_its_code(simulated):
    found = simulated(fail="cuDevicePrimaryCtxRetain=2")
    assert found["gpus"][0]["code"] == 2
    assert "CUDA_ERROR_OUT_OF_MEMORY" in found["gpus"][0]["message"]


@pytest.mark.parametrize("bit", [0, 3])  # each is 1 in one of the two patterns only
def test_memory_that_gives_back_other_data(simulated, bit):
    found = simulated(gpus=2, stuck_bit=f"1:70000:{bit}")
    good, bad = found["gpus"]
    assert good["ok"]
    assert bad["message"] == "1 of 1048576 bytes came back wrong, the first at 70000"
    assert (bad["call"], bad["code"]) == ("compare", 0)


@pytest.mark.parametrize("call", ["cuInit", *CALLS])
def test_a_call_that_hangs_is_named(simulated, call):
    narrow = call if call == "cuInit" else f"{call}@1"
    found = simulated(timeout_s=1.5, gpus=2, hang=narrow)
    assert found["state"] == "timeout"
    assert found["message"].endswith(f"{call} did not return within 1.5 s")
    assert [gpu["ok"] for gpu in found["gpus"]] == ([] if call == "cuInit" else [True, False])


def test_a_library_that_crashes(simulated):
    found = simulated(crash="cuMemAlloc_v2")
    assert found["state"] == "failed"
    assert "signal 6 ended the child in cuMemAlloc_v2" in found["message"]


def test_no_library(monkeypatch, tmp_path):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = try_cuda(Host(timeout_s=30.0), sys.executable, None, False)
    assert (found["state"], found["gpus"]) == ("no_library", [])
    assert "libcuda.so.1" in found["message"]


def nobody():
    return nodes.account("nobody")


@as_root
def test_cuda_as_another_user(simulated):
    who = nobody()
    found = simulated(who=who, python=SYSTEM_PYTHON, uid=who.uid)
    assert found["state"] == "ok"
    refused = simulated(python=SYSTEM_PYTHON, uid=who.uid)
    assert "CUDA_ERROR_NO_DEVICE" in refused["message"]


@as_root
@pytest.mark.parametrize("limited", [True, False])
def test_the_child_is_who_the_service_is(library, tmp_path, monkeypatch, limited):
    """A library whose loading tells what the process is."""
    source, folder = tmp_path / "who.c", library / f"who-{limited}"
    folder.mkdir()
    watched = ("Uid", "Gid", "Groups", "NoNewPrivs", "CapEff")
    wanted = " || ".join(f'!strncmp(line, "{name}:", {len(name) + 1})' for name in watched)
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
        "__attribute__((constructor)) static void tell(void) {\n"
        '    char line[256]; FILE *file = fopen("/proc/self/status", "r");\n'
        "    while (fgets(line, sizeof line, file))\n"
        f"        if ({wanted})\n"
        "            fputs(line, stderr);\n"
        '    fprintf(stderr, "environ %d\\n", !!fopen("/proc/self/environ", "r"));\n'
        "    exit(9);\n}\n"
    )
    target = folder / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    seen = []
    host = Host(run=lambda argv, s: seen.append(Host().run(argv, s)) or seen[-1], timeout_s=30.0)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    who = nodes.account("nobody", ["4242"])
    found = try_cuda(host, SYSTEM_PYTHON, who, limited)
    assert found["state"] == "failed"
    said = dict(line.split(None, 1) for line in seen[0].err.splitlines())
    assert said["Uid:"].split() == [str(who.uid)] * 4
    assert said["Gid:"].split() == [str(who.gid)] * 4
    assert sorted(map(int, said["Groups:"].split())) == sorted(who.groups)
    assert said["NoNewPrivs:"] == str(int(limited))
    assert int(said["CapEff:"], 16) == 0
    assert said["environ"] == "1"


@pytest.fixture
def dev():
    """A root with nodes, which other accounts may walk through."""
    folder = Path(tempfile.mkdtemp(prefix="hx-nodes-"))
    folder.chmod(0o755)
    (folder / "dev").mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


@as_root
@pytest.mark.parametrize(
    ("mode", "group", "openable"),
    [
        (0o666, 0, True),
        (0o660, 4242, True),
        (0o660, 4243, False),
        (0o600, 0, False),
        (0o444, 0, False),
    ],
)
def test_nodes_as_another_user(dev, mode, group, openable):
    node = dev / "dev" / "nvidia0"
    node.touch()
    os.chown(node, 0, group)
    node.chmod(mode)
    host = Host(root=str(dev), timeout_s=30.0)
    listed = nodes.describe(host, ["nvidia0"])
    assert nodes.try_to_open(host, SYSTEM_PYTHON, listed, None)[0]["openable"]
    found = nodes.try_to_open(host, SYSTEM_PYTHON, listed, nodes.account("nobody", ["4242"]))
    assert found[0]["openable"] is openable
    assert found[0].get("message") == (None if openable else "Permission denied (EACCES)")


@as_root
def test_a_node_that_does_not_let_go(dev):
    """No file blocks an open that asks not to be blocked; a driver does, so one is played."""
    (dev / "dev" / "nvidia0").touch(mode=0o666)
    (dev / "dev" / "nvidia1").touch(mode=0o666)
    stuck = Host(root=str(dev), timeout_s=2.0)
    slow = dev / "slow-python"
    slow.write_text(
        f"#!{SYSTEM_PYTHON}\nimport os, sys, time\nplain = os.open\n"
        "os.open = lambda path, *a: time.sleep(60) if path.endswith('0') else plain(path, *a)\n"
        "program, sys.argv[1:] = sys.argv[4], sys.argv[5:]\nexec(compile(program, 'c', 'exec'))\n"
    )
    slow.chmod(0o755)
    listed = nodes.describe(stuck, ["nvidia1", "nvidia0"])
    found = nodes.try_to_open(stuck, str(slow), listed, None)
    assert [node["openable"] for node in found] == [True, False]
    assert found[1]["message"] == "opening it did not end within 2 s"


@pytest.mark.parametrize(
    ("program", "more"),
    [
        ("_gpu_host_open_child.py", {"paths": ["/dev/null"]}),
        ("_gpu_cuda_child.py", {"no_new_privileges": False}),
    ],
)
def test_only_root_becomes_another_user(program, more):
    settings = {"account": {"uid": 4242, "gid": 4242, "groups": []}, **more}
    text = (ROOT / "plugins" / "module_utils" / program).read_text()
    argv = [SYSTEM_PYTHON, "-I", "-c", text, json.dumps(settings)]
    if os.geteuid() == 0:
        argv = ["setpriv", f"--reuid={nobody().uid}", "--clear-groups", *argv]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Operation not permitted" in json.dumps(json.loads(ended.stdout)["error"])


def module(arguments, *more):
    argv = [
        str(Path(sys.executable).with_name("ansible")),
        "localhost",
        "--connection=local",
        "--module-name=hx_infra.llm.gpu_host_info",
        f"--args={json.dumps(arguments)}",
        "--extra-vars=ansible_python_interpreter=" + sys.executable,
        *more,
    ]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return json.loads(ended.stdout[ended.stdout.index("=> {") + 3 :])


@pytest.mark.parametrize("more", [[], ["--check"]])
def test_the_module_on_this_machine(simulated, monkeypatch, more):
    monkeypatch.setenv("SIM_CUDA_GPUS", "2")
    user = pwd.getpwuid(os.geteuid()).pw_name
    found = module({"service_user": user, "timeout_s": 30, "python": sys.executable}, *more)
    assert "failed" not in found, found
    assert (found["changed"], found["actions"], found["plan"]) == (False, [], [])
    assert found["cuda"]["state"] == "ok"
    assert [gpu["uuid"] for gpu in found["cuda"]["gpus"]] == [UUID.format(0), UUID.format(1)]
    named = {error["what"] for error in found["errors"]}
    parts = {"module", "library", "kernels", "pci", "nodes", "toolkit", "environment", "xids"}
    assert all(part in found or part in named for part in parts)


def test_the_module_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    more = ["hx-nobody-else", pwd.getpwuid(os.geteuid()).pw_name]
    settings = {"service_user": "hx-nobody", "more_users": more}
    found = module({**settings, "units": ["hx-nothing.service"]})
    assert "failed" not in found, found
    assert found["cuda"]["state"] == "not_tried"
    assert "nodes" in {error["what"] for error in found["errors"]}
    missing, tried = found["accounts"]
    assert (missing["user"], missing["known"]) == ("hx-nobody-else", False)
    assert (tried["user"], tried["cuda"]["state"]) == (more[1], "no_library")


def test_the_module_without_cuda():
    assert module({"cuda": False})["cuda"]["message"] == "it was not asked for"


def test_phase_1_tries_the_accounts_and_names_the_units_of_both_engines(tmp_path):
    gen, vllm, unit = [{"name": "gen"}], ["VLLM::*", "vllm"], "citadel-llm@{}.service".format
    hosts = {
        "one": {"wanted": ["ollama", [], ["ollama.service"], []]},
        "two": {
            "llm_vllm_services": gen,
            "llm_vllm_services_removed": ["old"],
            "wanted": ["ollama", ["citadel"], ["ollama.service", unit("gen"), unit("old")], vllm],
        },
        "cpu": {
            "llm_vllm_services": gen,
            "llm_vllm_build": "cpu",
            "llm_vllm_unit": "vllm",
            "wanted": ["ollama", [], ["ollama.service", "vllm@gen.service"], vllm],
        },
    }
    [block] = yaml.safe_load((ROOT / "playbooks/tasks/prepare.yml").read_text())
    [judged] = [task for task in block["block"] if task["name"] == "Judge the GPUs"]
    names = ("service_user", "more_users", "units", "engine_processes")
    found = f"[{', '.join(f'gpu_validation_{name}' for name in names)}]"
    compare = {"that": f"{found} == wanted", "fail_msg": f"found {{{{ {found} }}}}"}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars_files": [str(ROOT / "playbooks/vars/declaration.yml")],
        "tasks": [{"ansible.builtin.assert": compare, "vars": judged["vars"]}],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    argv = [program, "-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.yml")]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
