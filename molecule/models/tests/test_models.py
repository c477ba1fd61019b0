# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

STORE = "/mnt/active_llm_models"
EXPECTED = ["deepcoder:14b", "dolphin3:8b", "gemma2:2b", "phi3:latest"]


def test_the_engine_lists_exactly_the_declared_models(llm_02, api):
    assert sorted(model["name"] for model in api(llm_02, "/api/tags")["models"]) == EXPECTED


def test_every_model_answers(llm_02, api):
    for name in EXPECTED:
        answer = api(llm_02, "/api/generate", {"model": name, "prompt": "Hi", "stream": False})
        assert answer["done"], name
        assert answer["eval_count"] > 0, name


def test_every_blob_is_what_its_name_says(llm_02):
    listed = llm_02.check_output(f"cd {STORE}/blobs && sha256sum *").splitlines()
    assert listed
    for line in listed:
        digest, name = line.split()
        assert name == f"sha256-{digest}"


def test_no_blob_is_missing_and_none_is_left_over(llm_02):
    manifests = llm_02.check_output(f"cat {STORE}/manifests/*/*/*/*")
    decoder, position, wanted = json.JSONDecoder(), 0, set()
    while position < len(manifests):
        manifest, position = decoder.raw_decode(manifests, position)
        wanted |= {entry["digest"] for entry in [manifest["config"], *manifest["layers"]]}
    present = llm_02.check_output(f"ls {STORE}/blobs").split()
    assert sorted(present) == sorted(digest.replace(":", "-") for digest in wanted)


def test_the_store_belongs_to_the_engine(llm_02):
    pulled = llm_02.check_output(f"stat -c %U {STORE}/manifests/*/*/gemma2/2b {STORE}/blobs/*")
    assert set(pulled.split()) == {"ollama"}


def run(playbook, name, *arguments, **given):
    """Run a playbook on the host; return its exit status and all that it said, in one line."""
    done = playbook(
        f"playbooks/{name}.yml",
        *("--limit=llm-02", "--extra-vars", json.dumps({"llm_store_dir": STORE, **given})),
        *arguments,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_an_archive_is_written_once_and_its_directory_stays_as_it_is(llm_02, playbook):
    llm_02.check_output("rm -rf /srv/export && install -d -m 1777 /srv/export")
    given = {"llm_export_dir": "/srv/export", "llm_export_models": ["gemma2:2b"]}
    dry, said = run(playbook, "export_models", "--check", **given)
    assert (dry, llm_02.check_output("ls /srv/export")) == (0, ""), said
    made, said = run(playbook, "export_models", **given)
    assert (made, "changed=1 " in said) == (0, True), said
    checksum = llm_02.check_output("cd /srv/export && sha256sum -c --quiet *.sha256; cat *.sha256")
    assert f'checksum: "sha256:{checksum.split()[0]}"' in said.replace('\\"', '"'), said
    again, said = run(playbook, "export_models", **given)
    assert (again, "changed=0 " in said) == (0, True), said
    assert llm_02.check_output("stat -c %a /srv/export") == "1777"


def test_an_audit_names_the_host_whose_declaration_is_wrong(playbook):
    whole, said = run(playbook, "audit_models", llm_models=[{"name": "gemma2:2b"}])
    assert (whole, "llm-02 1 of 1 4" in said) == (0, True), said
    wrong, said = run(
        playbook, "audit_models", llm_models=[{"name": "gemma2:2b"}, {"name": "No 1"}]
    )
    assert wrong != 0
    assert "llm-02: FAIL: 'No 1' is no model name" in said, said
    assert "llm-02 1 of 2 4" in said, said
