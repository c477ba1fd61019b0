# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The units of vLLM in containers, as the role's own tasks would write them.

A dry run of the role's preflight and container tasks with the simulated NVML and an engine that is
played; what it would write is read from its diff. No container is run.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIM = ROOT / "tests" / "lab" / "sim_gpu"
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
DIGEST = "a" * 64
IMAGE = f"docker.io/vllm/vllm-openai@sha256:{DIGEST}"
KEY = "sk-never-in-a-unit"
NOTE = '--annotation=note=costs $5 or "5%" \\ more'
QWEN3_8B = {
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 4096,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
}
ENGINE = """#!/bin/sh
case "$1" in
  --version) echo "{name} version {version}" ;;
  *) echo "sha256:{digest}" ;;
esac
"""
FORMS = {
    "docker": ("docker", "20.10.24"),
    "podman": ("podman", "4.3.1"),
    "quadlet": ("podman", "5.4.2"),
}
# As podman-systemd.unit(5) of Podman 4.4, the first that reads such files, knows them.
QUADLET_KEYS = {"ContainerName", "Image", "Notify", "PodmanArgs", "Exec"}
QUADLET = next(
    (
        path
        for path in (
            "/usr/libexec/podman/quadlet",
            "/usr/lib/systemd/system-generators/podman-system-generator",
        )
        if os.path.exists(path)
    ),
    "",
)


@pytest.fixture(scope="module")
def nvml(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    directory = tmp_path_factory.mktemp("sim_gpu")
    subprocess.run(["sh", str(SIM / "build.sh"), str(directory)], check=True)
    (directory / "activity").mkdir()
    return directory


class Site:
    """A host's files, and dry runs of the role for it."""

    def __init__(self, folder, nvml):
        self.folder, self.nvml = folder, nvml
        self.model = folder / "models" / "qwen3-8b"
        self.model.mkdir(parents=True)
        (self.model / "config.json").write_text(json.dumps(QWEN3_8B))
        with (self.model / "model.safetensors").open("wb") as stream:
            stream.truncate(5 * 1024**3)
        self.template = folder / "templates" / "qwen3.jinja"
        self.template.parent.mkdir()
        self.template.write_text("{{ messages }}")

    def service(self):
        return {
            "name": "qwen3",
            "service": {
                "host": "127.0.0.1",
                "port": 18431,
                "memory_max": "32G",
                "cpu_quota": "250%",
                "ready_timeout": 900,
                "drain_seconds": 60,
            },
            "model": {
                "path": str(self.model),
                "served_names": ["qwen3-8b", "qwen3:8b"],
                "max_model_len": 8192,
                "gpus": [0],
                "chat_template": str(self.template),
            },
        }

    def variables(self, engine):
        return {
            "ansible_python_interpreter": sys.executable,
            "vllm_services": [self.service()],
            "vllm_runtime": "container",
            "vllm_container": {"engine": engine, "image": IMAGE, "arguments": [NOTE]},
            "vllm_root": str(self.folder / "citadel"),
            "vllm_user": "daemon",
            "vllm_group": "daemon",
            "vllm_address": "127.0.0.1",
            "vllm_api_key": KEY,
            "vllm_hub_url": "",
            "vllm_gpu_python": sys.executable,
        }

    def play(self, form, tasks, register, engine=ENGINE, **changes):
        """Run some of the role's tasks dry; return status, output and what they registered."""
        name, version = FORMS[form]
        programs = self.folder / form
        programs.mkdir(exist_ok=True)
        program = programs / name
        program.write_text(engine.format(name=name, version=version, digest=DIGEST))
        program.chmod(0o755)
        shown = self.folder / "shown.json"
        shown.unlink(missing_ok=True)
        role = "ansible.builtin.import_role"
        steps = [
            {"name": task, role: {"name": "hx_infra.llm.vllm", "tasks_from": task}}
            for task in tasks
        ]
        steps.append(
            {
                "name": "show",
                "ansible.builtin.copy": {
                    "content": "{{ " + register + " | to_json }}",
                    "dest": str(shown),
                    "mode": "0600",
                },
                "check_mode": False,
                "no_log": True,
            }
        )
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {**self.variables(name), **changes},
            "tasks": steps,
        }
        book = self.folder / "play.yml"
        book.write_text(json.dumps([play]))
        ended = subprocess.run(
            [str(PLAYBOOK), "-c", "local", "-i", "localhost,", "--check", "--diff", str(book)],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "LD_LIBRARY_PATH": str(self.nvml),
                "SIM_GPU_ACTIVITY_DIR": str(self.nvml / "activity"),
                "SIM_NVML_PROFILE": str(SIM / "profiles" / "rtx-4070-ti-x2.conf"),
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        found = json.loads(shown.read_text()) if shown.exists() else None
        return ended.returncode, ended.stdout + ended.stderr, found

    def unit(self, form, **changes):
        """Return the unit that would be written."""
        status, output, found = self.play(
            form, ["preflight", "container"], "__vllm_result_write_container_units", **changes
        )
        assert status == 0, output
        [diff] = found["results"][0]["diff"]
        assert KEY not in diff["after"]
        return diff["after"]


@pytest.fixture(scope="module")
def site(tmp_path_factory, nvml):
    return Site(tmp_path_factory.mktemp("site"), nvml)


@pytest.fixture(scope="module")
def units(site):
    """The text of each form's unit, rendered once."""
    return {form: site.unit(form) for form in FORMS}


def sections(text):
    """Return the values by section and key; continued lines are one."""
    found, section = {}, ""
    for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _equals, value = line.partition("=")
            found.setdefault(section, {}).setdefault(key, []).append(value)
    return found


def plain(word):
    """Undo systemd's specifiers and variables."""
    return word.replace("%%", "%").replace("$$", "$")


def arguments(form, text):
    """Return the engine's options, and what follows the image."""
    unit = sections(text)
    if form == "quadlet":
        container = unit["Container"]
        options = [plain(word) for line in container["PodmanArgs"] for word in shlex.split(line)]
        options.append(f"--name={container['ContainerName'][0]}")
        assert container["Image"] == [IMAGE]
        return options, shlex.split(container["Exec"][0])
    words = [plain(word) for word in shlex.split(unit["Service"]["ExecStart"][0])]
    assert words[:2] == [f"/usr/bin/{FORMS[form][0]}", "run"]
    at = words.index(IMAGE)
    return words[2:at], words[at + 1 :]


@pytest.mark.parametrize("form", FORMS)
def test_every_option_of_a_container(site, units, form):
    options, command = arguments(form, units[form])
    etc = f"{site.folder}/citadel/config/vllm/qwen3"
    cache = "/var/cache/citadel-llm/qwen3"
    given = dict(word.partition("=")[::2] for word in options)
    many = {
        name: [word.partition("=")[2] for word in options if word.startswith(f"{name}=")]
        for name in ("--volume", "--publish", "--env-file", "--env", "--device", "--user")
    }
    assert command == ["serve", "--config", f"{etc}.yaml", "--host", "0.0.0.0"]
    assert given["--entrypoint"] == "vllm"
    assert given["--name"] == "citadel-llm-qwen3"
    assert given["--pull"] == "never"
    # On one address, and nothing else of the network.
    assert many["--publish"] == ["127.0.0.1:18431:18431"]
    assert not {"--network", "--net", "--privileged", "--ipc", "--pid"} & set(given)
    # Who it is, and what it may do.
    assert many["--user"] == ["1:1"]
    assert given["--cap-drop"] == "all"
    assert given["--security-opt"] == "no-new-privileges"
    assert "--read-only" in options
    # What it sees of the host: to read but for its cache.
    mounted = [f"{etc}.yaml", str(site.model), str(site.template)]
    assert many["--volume"] == [f"{path}:{path}:ro" for path in mounted] + [f"{cache}:{cache}:rw"]
    assert many["--env-file"] == [f"{etc}.key.env"]
    environment = dict(word.partition("=")[::2] for word in many["--env"])
    assert not [name for name in environment if "KEY" in name or "TOKEN" in name]
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["HOME"] == cache
    assert NOTE in options
    # Limits.
    assert (given["--memory"], given["--memory-swap"]) == ("32g", "32g")
    assert given["--cpus"] == "2.5"
    assert given["--shm-size"] == "8g"
    assert "size=4g" in given["--tmpfs"]
    # A stop lets running answers end: the drain, then the engine's patience, then systemd's.
    assert (given["--stop-signal"], given["--stop-timeout"]) == ("SIGTERM", "80")
    service = sections(units[form])["Service"]
    assert service["TimeoutStopSec"] == ["110"]
    assert service["TimeoutStartSec"] == ["930"]
    # The GPU by its id, in the engine's own way.
    if form == "docker":
        assert given["--runtime"] == "nvidia"
        assert environment["NVIDIA_VISIBLE_DEVICES"].startswith("GPU-")
        assert many["--device"] == []
    else:
        [device] = many["--device"]
        assert device.startswith("nvidia.com/gpu=GPU-")
    assert environment["CUDA_VISIBLE_DEVICES"].startswith("GPU-")


@pytest.mark.parametrize("form", FORMS)
def test_a_unit_restarts_proves_and_waits_as_without_a_container(site, units, form):
    unit = sections(units[form])
    service = unit["Service"]
    assert service["Restart"] == ["always"]  # a dead engine ends with status 0
    assert service["RestartPreventExitStatus"] == ["2"]
    assert service["ExecStartPost"] == [
        f"/usr/bin/python3 -I {site.folder}/citadel/lib/vllm_ready.py"
        f" {site.folder}/citadel/config/vllm/qwen3.ready.json"
    ]
    waited = unit["Unit"]["RequiresMountsFor"][0].split()
    assert {str(site.model), str(site.template)} <= set(waited)
    assert unit["Install"] == {"WantedBy": ["multi-user.target"]}
    assert ("docker.service" in unit["Unit"]["After"][0]) == (form == "docker")
    assert unit["Unit"].get("Requires", []) == (["docker.service"] if form == "docker" else [])


@pytest.mark.parametrize("form", ["docker", "podman"])
def test_a_unit_of_ours_stops_the_container_and_keeps_its_log_and_id(units, form):
    service = sections(units[form])["Service"]
    program = f"/usr/bin/{form}"
    options, _command = arguments(form, units[form])
    assert {"--rm", "--log-driver=none", "--cidfile=%t/%N.cid"} <= set(options)
    assert ("--sdnotify=ignore" in options) == (form == "podman")
    assert service["ExecStop"] == [f"-{program} stop --time=80 citadel-llm-qwen3"]
    assert f"-{program} rm --force citadel-llm-qwen3" in service["ExecStopPost"]
    assert service["KillMode"] == ["mixed"]


def test_a_quadlet_has_what_the_first_version_knows(units):
    assert set(sections(units["quadlet"])["Container"]) == QUADLET_KEYS
    assert sections(units["quadlet"])["Container"]["Notify"] == ["false"]


@pytest.mark.parametrize("form", ["docker", "podman"])
def test_systemd_reads_the_unit(units, form, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze isn't on this machine")
    path = tmp_path / "citadel-llm@qwen3.service"
    path.write_text(units[form].replace(f"/usr/bin/{form}", "/bin/true"))
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in ended.stderr.splitlines() if "citadel-llm" in line]
    assert said == []


@pytest.mark.skipif(not QUADLET, reason="no generator of Podman 4.4 or newer on this machine")
def test_podman_reads_the_quadlet(units, tmp_path):
    (tmp_path / "citadel-llm@qwen3.container").write_text(units["quadlet"])
    ended = subprocess.run(
        [QUADLET, "-dryrun"],
        env={**os.environ, "QUADLET_UNIT_DIRS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "---citadel-llm@qwen3.service---" in ended.stdout
    assert "--publish=127.0.0.1:18431:18431" in ended.stdout


def test_the_host_s_network_and_no_gpu(site):
    service = site.service()
    model = {"kv_cache_gb": 1, "max_model_len": 1024, "path": service["model"]["path"]}
    text = site.unit(
        "docker",
        vllm_services=[{**service, "model": model}],
        vllm_build="cpu",
        vllm_container={"engine": "docker", "image": IMAGE, "network": "host", "user": "2000:0"},
    )
    options, command = arguments("docker", text)
    assert "--network=host" in options
    assert "--user=2000:0" in options
    assert command[-2:] == ["--config", f"{site.folder}/citadel/config/vllm/qwen3.yaml"]
    assert not [
        word for word in options if "--publish" in word or "nvidia" in word.lower() or "gpu" in word
    ]


def test_a_chat_template_that_is_not_there_is_refused(site):
    service = site.service()
    service["model"]["chat_template"] = "/nonexistent/qwen3.jinja"
    status, output, _found = site.play(
        "docker", ["preflight", "container"], "__vllm_plan", vllm_services=[service]
    )
    said = " ".join(output.split())
    assert status != 0
    assert "arguments of the service qwen3 name is missing" in said
    assert "/nonexistent/qwen3.jinja" in said


def test_further_files_are_mounted_and_those_of_the_model_once(site):
    service = site.service()
    service["model"]["chat_template"] = str(site.model / "config.json")
    service["extra_args"] = {
        "tokenizer": str(site.template.parent),
        "generation-config": "vllm",
        "enable-lora": True,
        "lora-modules": [f"law={site.folder}"],
    }
    text = site.unit("podman", vllm_services=[service])
    options, _command = arguments("podman", text)
    mounted = [word.split(":")[1] for word in options if word.startswith("--volume=")]
    assert mounted[1:-1] == [str(site.model), str(site.template.parent), str(site.folder)]


@pytest.mark.parametrize("entry", ["absent", "rollback"])
def test_a_host_whose_engine_is_gone_can_remove_and_roll_back(site, entry):
    """The engine fails whatever it is asked; the service was never there."""
    status, output, found = site.play(
        "podman", [entry], f"__vllm_result_{entry}", engine="#!/bin/sh\nexit 1\n"
    )
    if entry == "absent":
        assert status == 0, output
        [removed] = found["results"]
        assert (removed["changed"], removed["actions"]) == (False, [])
    else:  # no earlier state is what it says, and not that there is no engine
        assert "has no earlier state that served a request" in " ".join(output.split())
