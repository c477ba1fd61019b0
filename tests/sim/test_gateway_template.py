# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration that the role gateway writes, judged by HAProxy itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gateway_host import HAPROXY

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="no haproxy")

ROOT = Path(__file__).resolve().parent.parent.parent
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
ROLE = ROOT / "roles" / "gateway"
MAPS = ("models.map", "models.json", "keys.map", "rpm.map", "parallel.map", "engine-keys.map")
TINY = {"name": "tiny", "service": {"port": 8001}, "model": {"served_names": ["llama3.2:3b"]}}
LLAMA = {"llm_models": [{"name": "llama3.2:3b"}]}
DECLARED = {
    "llm-01": {**LLAMA, "llm_address": "fd00::7"},
    "llm-02": {**LLAMA, "llm_address": "[::1]", "llm_vllm_services": [TINY]},
    "llm-03": {**LLAMA, "llm_address": "10.0.0.3"},
    "localhost": LLAMA,
}


def rendered(folder: Path, **variables: Any) -> dict[str, Any]:
    """Render configuration and maps into a folder; return how the host reaches itself."""
    for name in ("templates", "files"):
        (folder / name).symlink_to(ROLE / name)
    (folder / "hx").mkdir()
    files = {"haproxy.cfg": "etc/haproxy/haproxy.cfg.j2"}
    files.update({f"hx/{name}": f"etc/haproxy/hx/{name}.j2" for name in MAPS})
    book = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "vars": {
            "ansible_python_interpreter": sys.executable,
            "declared": DECLARED,
            "__gateway_tls_file": {},
        },
        "tasks": [
            {
                "name": "Write",
                "ansible.builtin.template": {"src": "{{ item.value }}", "dest": "{{ item.key }}"},
                "loop": [
                    {"key": str(folder / key), "value": source} for key, source in files.items()
                ],
            },
            {
                "name": "Tell",
                "ansible.builtin.copy": {
                    "content": "{{ [__gateway_url, __gateway_metrics_url] | to_json }}",
                    "dest": str(folder / "urls.json"),
                },
            },
        ],
    }
    (folder / "play.yml").write_text(json.dumps([book]))
    given = {  # these outrank the role's defaults
        "gateway_open": True,
        "gateway_routes": "{{ declared | list | hx_infra.llm.gateway_routes(declared) }}",
        "__gateway_hx_dir": str(folder / "hx"),
        "__gateway_lua": str(ROLE / "files/usr/local/lib/hx-gateway/wait-for-place.lua"),
        **variables,
    }
    result = subprocess.run(
        [str(PLAYBOOK), "-i", "localhost,", str(folder / "play.yml"), "-e", json.dumps(given)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads((folder / "urls.json").read_text())


@pytest.mark.parametrize(
    ("listen", "metrics", "urls"),
    [
        (":8000", "0.0.0.0:8404", ["127.0.0.1:8000", "127.0.0.1:8404"]),
        ("[::]:8000", "::1:8404", ["[::1]:8000", "[::1]:8404"]),
        (":::8000", "localhost:8404", ["[::1]:8000", "localhost:8404"]),
    ],
)
def test_haproxy_takes_the_configuration_and_the_host_reaches_itself(
    tmp_path: Path, listen: str, metrics: str, urls: list[str]
) -> None:
    found = rendered(tmp_path, gateway_listen=listen, gateway_metrics_listen=metrics)
    assert found == [f"http://{urls[0]}", f"http://{urls[1]}/metrics"]
    config = tmp_path / "haproxy.cfg"
    judged = subprocess.run(
        [str(HAPROXY), "-c", "-q", "-f", str(config)], capture_output=True, text=True, check=False
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr
    servers = [line.split()[1:3] for line in config.read_text().splitlines() if "  server " in line]
    assert servers == [
        ["llm-01.ollama", "[fd00::7]:11434"],
        ["llm-02.ollama", "[::1]:11434"],
        ["llm-02.vllm.tiny", "[::1]:8001"],
        ["llm-03.ollama", "10.0.0.3:11434"],
        ["localhost.ollama", "localhost:11434"],
    ]
