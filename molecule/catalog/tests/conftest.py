# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of the role that can be watched while they stand still, and a registry that fails on demand.

Nothing here is timed: the registry stalls where a test wants to step in, says so, and goes on when
it is told to.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[1]
ROOT = HERE.parents[1]
STORE = "/mnt/active_llm_models"
REGISTRY = "http://127.0.0.1:5001"
WAIT_SECONDS = 60.0


def _shared():
    spec = importlib.util.spec_from_file_location("scenarios", HERE.parent / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def svc_01():
    return _shared().lab_host("svc-01")


class Registry:
    """The scenario's registry, which is also a peer that can fail."""

    def __init__(self, host):
        self.host = host

    def fail(self, models=None, **faults):
        """Switch faults on, for all models or for some, and every other one off."""
        text = json.dumps({"faults": faults, "models": models or {}})
        path = "/etc/sim-ollama/registry.json"
        self.host.check_output(f"printf '%s' '{text}' >{path}.new && mv {path}.new {path}")

    def counts(self):
        """Return how often each thing was asked for, and how many answers stall."""
        return json.loads(self.host.check_output(f"curl -sf {REGISTRY}/sim/requests"))

    def forget(self):
        """Begin to count anew."""
        self.host.check_output(f"curl -sf -X DELETE {REGISTRY}/sim/requests")


@pytest.fixture(scope="session")
def registry(svc_01):
    return Registry(svc_01)


class Store:
    """The store on llm-02, read from the disk, not from the engine."""

    def __init__(self, host):
        self.host = host

    def run(self, command):
        return self.host.check_output(f"cd {STORE} && {command}")

    def damage(self, how, *models):
        """Damage some models; see files/damage.py."""
        names = " ".join(models)
        self.run(f"python3 -B /usr/local/lib/lab-damage.py {STORE} {how} {names}")

    def damaged(self):
        """Return the names of blobs whose content is another one than their name says."""
        lines = self.run("sha256sum blobs/sha256-* 2>/dev/null").splitlines()
        found = [line.split() for line in lines]
        return [
            name
            for digest, name in found
            if "partial" not in name and name != f"blobs/sha256-{digest}"
        ]

    def missing(self):
        """Return the blobs that some manifest refers to and that are not there."""
        wanted = set(self.run("grep -rhoE 'sha256:[0-9a-f]{64}' manifests").split())
        present = set(self.run("ls blobs").split())
        return sorted(digest for digest in wanted if digest.replace(":", "-") not in present)

    def files(self, pattern):
        """Return files below the store, with their size, that a shell pattern matches."""
        found = self.run(f"find . -type f -path './{pattern}' -printf '%P %s\\n'").splitlines()
        return {path: int(size) for path, size in (line.split() for line in found)}

    def weights(self, name):
        """Return the digest of a model's weights, as the registry's own files say."""
        folder, tag = name.split(":")
        path = f"/lab/models/registry/manifests/registry.ollama.ai/library/{folder}/{tag}"
        layers = json.loads(self.host.file(path).content_string)["layers"]
        return max(layers, key=lambda layer: layer["size"])["digest"].partition(":")[2]


@pytest.fixture(scope="session")
def store(llm_02):
    return Store(llm_02)


class Run:
    """One run of the role, in the background until it is waited for."""

    def __init__(self, folder, number, variables):
        self.result_path = folder / f"result-{number}.json"
        self.log_path = folder / f"run-{number}.log"
        arguments = json.dumps({"catalog_result": str(self.result_path), **variables})
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *("ansible-playbook", "-i", "inventories/lab"),
                    *("molecule/catalog/reconcile.yml", "-e", arguments),
                ],
                cwd=ROOT,
                env={
                    **os.environ,
                    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                    "ANSIBLE_FORCE_COLOR": "false",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def output(self):
        """What it has said so far, in one line."""
        return " ".join(self.log_path.read_text(errors="replace").split())

    def end(self):
        """Wait until it has ended; returns whether it succeeded."""
        return self.process.wait() == 0

    @property
    def result(self):
        """What the module said."""
        return json.loads(self.result_path.read_text())

    @property
    def outcomes(self):
        """How each step went: whether it succeeded, and why not."""
        return {item["target"]: (item["ok"], item["detail"]) for item in self.result["outcomes"]}


class Catalog:
    """Runs of the role on llm-02."""

    def __init__(self, folder, registry):
        self._folder = folder
        self._registry = registry
        self._runs = []

    def start(self, **variables):
        """Start a run."""
        self._runs.append(Run(self._folder, len(self._runs), variables))
        return self._runs[-1]

    def start_and_stall(self, **variables):
        """Start a run and wait until the registry has stopped in the middle of its blob."""
        run = self.start(**variables)
        end = time.monotonic() + WAIT_SECONDS
        while not self._registry.counts()["stalled"]:
            assert run.process.poll() is None, run.output
            assert time.monotonic() < end, run.output
            time.sleep(0.1)
        return run

    def run(self, **variables):
        """Run to the end."""
        run = self.start(**variables)
        run.end()
        return run

    def stop(self):
        """End what a failed test has left running."""
        for run in self._runs:
            if run.process.poll() is None:
                run.process.terminate()
                run.process.wait()


@pytest.fixture
def catalog(tmp_path, registry):
    """Runs of the role; afterwards no fault is on and none of them goes on."""
    registry.fail()
    registry.forget()
    runs = Catalog(tmp_path, registry)
    yield runs
    registry.fail()
    runs.stop()


@pytest.fixture
def converges(catalog, store, llm_02, api):
    """Return a check: the next run puts everything right, and the one after it finds that so.

    Where a test has that next run already, it is called first.
    """

    def check(names, first=None, **variables):
        run = catalog.run(catalog_twice=first is None, **variables)
        assert run.end(), run.output
        assert not run.result["changed"], run.result
        assert store.damaged() == []
        assert store.missing() == []
        assert store.files(".hx/aside/*") == store.files(".hx/incoming/*") == {}
        assert store.files("blobs/*-partial*") == {}
        assert sorted(model["name"] for model in api(llm_02, "/api/tags")["models"]) == names

    return check


@pytest.fixture(scope="session")
def avail(llm_02):
    """Return a function that tells how many bytes of a disk the engine's account can take."""

    def tell(path):
        return int(llm_02.check_output(f"echo $(($(stat -f -c '%a * %S' {path})))"))

    return tell
