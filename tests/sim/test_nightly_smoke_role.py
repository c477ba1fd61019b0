# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role nightly_smoke: its refusals, and what it would write by the diff of a dry run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nightly_host import COLLECTION

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles" / "nightly_smoke" / "files"
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
NOTIFIER = "nightly-smoke-notify@.service"
# What the sandbox has to say, whatever its number is; then what it says where no GPU is read, and
# where one is.
CLOSED = (
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=\n",
    "MemoryDenyWriteExecute=yes",
    "SystemCallFilter=~@privileged @resources @obsolete",
)
BLIND = ("PrivateDevices=yes", "ProtectProc=invisible", "ProcSubset=pid")
SEEING = ("DevicePolicy=closed\nDeviceAllow=char-nvidia* rw\n", "Wants=modprobe@nvidia_uvm.service")


class Host:
    """A host's files with secrets, and dry runs of the role for it."""

    def __init__(self, folder):
        self.folder = folder

    def secret(self, name, mode=0o600):
        path = self.folder / name
        path.write_text("http://chat/Some-Secret\n")
        path.chmod(mode)
        return str(path)

    def play(self, *arguments, tasks_from="main", hosts=None, **variables):
        """Run the role on one host, or on several with variables of their own."""
        role = {"name": "hx_infra.llm.nightly_smoke", "tasks_from": tasks_from}
        places = {
            "nightly_smoke_make_account": False,
            "nightly_smoke_user": "root",
            "nightly_smoke_group": "root",
            "nightly_smoke_lib_dir": str(self.folder / "lib"),
            "nightly_smoke_config_dir": str(self.folder / "etc"),
            "nightly_smoke_state_dir": str(self.folder / "state"),
            "nightly_smoke_textfile_dir": str(self.folder / "textfile"),
            "nightly_smoke_log": str(self.folder / "log" / "nightly.log"),
        }
        run = {"name": "Run", "ansible.builtin.import_role": role}
        book = [{"hosts": "all", "gather_facts": False, "tasks": [run]}]
        path = self.folder / "play.yml"
        path.write_text(json.dumps(book))
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        everywhere = {**local, **places, **variables}
        inventory = {"all": {"hosts": hosts or {"llm-01": {}}, "vars": everywhere}}
        (self.folder / "hosts.json").write_text(json.dumps(inventory))
        done = subprocess.run(
            [str(PLAYBOOK), "-i", str(self.folder / "hosts.json"), str(path), *arguments],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


def files_of(output):
    """Return the files that a dry run would write: {host: {name: text}}."""
    found, name, lines = {}, "", []
    for line in output.splitlines():
        if after := re.match(r"\+\+\+ after: \S*/(\S+)$", line):
            name, lines = after[1].removesuffix(".j2"), []
        elif line.startswith("+"):
            lines.append(line[1:])
        elif (of := re.match(r"changed: \[([^]]+)\]", line)) and name:
            found.setdefault(of[1], {})[name] = "\n".join(lines) + "\n"
            name = ""
    return found


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def given(host):
    """Return engines and receivers of every kind, with their secrets."""
    return {
        "nightly_smoke_engines": [
            {"kind": "ollama", "url": "http://127.0.0.1:11434", "models": [{"name": "phi3"}]},
            {
                "name": "qwen3",
                "kind": "openai",
                "url": "http://llm-01:8001",
                "key_file": host.secret("key", 0o640),
            },
        ],
        "nightly_smoke_notify": [
            {"name": "chat", "kind": "webhook", "url_file": host.secret("chat.url")},
            {
                "name": "ops",
                "kind": "mail",
                "to": ["ops@example.com"],
                "host": "mx",
                "tls": "starttls",
                "user": "hx",
                "password_file": host.secret("mail"),
            },
            {"name": "alerts", "kind": "alertmanager", "url": "http://metrics-01:9093"},
        ],
        "nightly_smoke_on_failure": ["site-alert.service"],
    }


def checked(program, text, folder):
    """Let the program read settings as the role does before it installs them."""
    path = folder / "settings.json"
    path.write_text(text)
    argv = [sys.executable, "-B", str(FILES / program), "--check", "--config", str(path)]
    argv += ["--state", "/none", "--textfile", "/none"]
    environment = {**os.environ, **COLLECTION}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """Run dry for hosts with different declarations, once; their files and the folder."""
    host = Host(tmp_path_factory.mktemp("dry"))
    mail = {"name": "ops", "kind": "mail", "to": ["a@b"], "via": "sendmail"}
    several = given(host)
    before = sorted(path.name for path in host.folder.iterdir())
    rc, output = host.play(
        "--check",
        "--diff",
        # One host after the other: a file's diff and the line that names its host stand together.
        "--forks=1",
        hosts={
            "plain": {},
            "several": {**several, "nightly_smoke_gpus": {"count": 2}},
            "blind": {
                **several,
                "nightly_smoke_gpus": {"name": "T4"},
                "nightly_smoke_gpu_python": "",
            },
            "mailing": {
                "nightly_smoke_gpus": {"count": 0},
                "nightly_smoke_notify": [mail],
                "nightly_smoke_ip_allow": ["localhost", "192.0.2.0/24"],
            },
        },
    )
    assert rc == 0, output
    after = sorted(path.name for path in host.folder.iterdir())
    assert [name for name in after if name not in ("play.yml", "hosts.json")] == before
    return files_of(output), host.folder


def test_what_is_written_without_anything_said(dry, tmp_path):
    files = dry[0]["plain"]
    assert {"nightly-smoke.service", "nightly-smoke.timer", "nightly-smoke.json"} <= set(files)
    assert NOTIFIER not in files
    unit = files["nightly-smoke.service"]
    assert "OnFailure" not in unit
    assert "LoadCredential" not in unit
    assert "TimeoutStartSec=3660" in unit
    for line in (*CLOSED, *SEEING):
        assert line in unit
    for line in BLIND:  # each would hide the GPUs, or whose the processes on them are
        assert line.partition("=")[0] + "=" not in unit
    timer = files["nightly-smoke.timer"]
    for line in ("OnCalendar=*-*-* 00:00:00", "RandomizedDelaySec=15m", "Persistent=true"):
        assert line in timer
    assert "copytruncate" not in files["hx-nightly-smoke"]
    assert checked("nightly_smoke.py", files["nightly-smoke.json"], tmp_path) == (0, "")
    settings = json.loads(files["nightly-smoke.json"])
    assert settings["host"] == "plain"
    assert settings["call_seconds"] == 10
    assert settings["gpu_python"] == "/opt/hx-infrastructure/venv/bin/python"
    assert (settings["gpu_seconds"], settings["gpus_declared"]) == (10, False)
    assert [Path(path).name for path in settings["suites"]] == [
        "smoke.sh",
        "comprehensive-smoke.sh",
    ]


def test_engines_with_keys_and_receivers(dry, tmp_path):
    hosts, folder = dry
    files = hosts["several"]
    unit, notifier = files["nightly-smoke.service"], files[NOTIFIER]
    assert "OnFailure=nightly-smoke-notify@failure.service site-alert.service" in unit
    assert "OnSuccess=nightly-smoke-notify@success.service" in unit
    assert f"LoadCredential=engine-qwen3:{folder}/key" in unit
    assert f"LoadCredential=notify-chat-url:{folder}/chat.url" in notifier
    assert f"LoadCredential=notify-ops-password:{folder}/mail" in notifier
    assert notifier.count("LoadCredential") == 2
    assert "--outcome %i" in notifier
    for line in (*CLOSED, *BLIND):
        assert line in notifier
    assert "Some-Secret" not in "".join(files.values())
    for program, name in (
        ("nightly_smoke.py", "nightly-smoke.json"),
        ("nightly_notify.py", "nightly-smoke-notify.json"),
    ):
        assert checked(program, files[name], tmp_path) == (0, "")


def test_a_mail_program_that_changes_its_group_can_do_so(dry):
    notifier = dry[0]["mailing"][NOTIFIER]
    # Each of these would set NoNewPrivileges, or hide the mail program's queue.
    for name in ("NoNewPrivileges", "SystemCallFilter", "PrivateUsers", "RestrictSUIDSGID"):
        assert name not in notifier
    assert "-/var/spool" in notifier
    assert "ProtectSystem=strict" in notifier


def test_addresses_that_it_may_talk_to(dry):
    unit = dry[0]["mailing"]["nightly-smoke.service"]
    assert "IPAddressDeny=any\nIPAddressAllow=localhost 192.0.2.0/24\n" in unit


@pytest.mark.parametrize(
    ("name", "declared"), [("several", True), ("mailing", False), ("blind", True)]
)
def test_gpus_that_have_to_be_readable(dry, name, declared):
    settings = json.loads(dry[0][name]["nightly-smoke.json"])
    assert settings["gpus_declared"] is declared


def test_gpus_that_nobody_reads_stay_hidden(dry):
    files = dry[0]["blind"]
    unit = files["nightly-smoke.service"]
    for line in (*CLOSED, *BLIND):
        assert line in unit
    assert "nvidia" not in unit
    assert json.loads(files["nightly-smoke.json"])["gpu_python"] == ""


def test_what_is_installed_runs_by_itself_and_stays_as_it_is(host):
    """Also where another collection's directory stands on Python's path."""
    other = host.folder / "other" / "ansible_collections"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    install = ("--tags", "nightly_smoke_install")
    rc, output = host.play(*install)
    assert rc == 0, output
    assert re.search(r"changed=\d", host.play(*install)[1])[0] == "changed=0"
    (host.folder / "settings.json").write_text('{"suites": ["/x"], "gpu_python": "/v/python"}')
    argv = [sys.executable, "-B", str(host.folder / "lib" / "nightly_smoke.py"), "--list"]
    argv += ["--config", str(host.folder / "settings.json"), "--state", "/none"]
    environment = {**os.environ, "PYTHONPATH": str(other.parent)}
    done = subprocess.run(
        [*argv, "--textfile", "/none"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "GPUs   read by /v/python, up to 10 s a model" in done.stdout


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
@pytest.mark.parametrize("kind", ["several", "blind"])
def test_units_that_systemd_understands(dry, tmp_path, kind):
    for name, text in dry[0][kind].items():
        if name.startswith("nightly-smoke") and not name.endswith(".json"):
            (tmp_path / name).write_text(text)
    units = [str(tmp_path / name) for name in ("nightly-smoke.service", NOTIFIER)]
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", *units]
    report = subprocess.run(argv, capture_output=True, text=True, check=False)
    said = report.stdout + report.stderr
    levels = re.findall(r"exposure level for (\S+): (\S+)", said)
    assert len(levels) == 2, said
    for unit, level in levels:  # the notifier has the name of an instance
        reads = kind == "several" and unit == "nightly-smoke.service"
        assert float(level) < (2.0 if reads else 1.5), said
    assert "Unknown" not in said


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        ("chat.url", 0o644, "chat.url has mode 0644, wanted 0600."),
        ("chat.url", 0o640, "chat.url has mode 0640, wanted 0600."),
        ("key", 0o644, "key has mode 0644, wanted 0600, or 0640 for a group that may read it."),
        ("mail", None, "mail is not there, wanted a file with the secret"),
    ],
)
def test_a_secret_that_cannot_be_used_stops_the_role(host, name, mode, said):
    variables = given(host)
    path = host.folder / name
    if mode is None:
        path.unlink()
    else:
        path.chmod(mode)
    rc, output = host.play(tasks_from="preflight", **variables)
    assert rc == 2
    told = " ".join(output.split())
    assert f"llm-01: {host.folder}/{said}" in told
    assert "Some-Secret" not in told


def test_a_dry_run_may_come_before_who_writes_the_secrets(host):
    variables = given(host)
    (host.folder / "mail").unlink()
    rc, output = host.play("--check", tasks_from="preflight", **variables)
    assert rc == 0, output
