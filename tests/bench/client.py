# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``bench/client``: our benchmark client and its peers against one server with a known schedule.

Prints figures and ratios, asserts nothing. The server's own account is the truth: a client's error
is what it reports minus what the server did. CPU per token is the slope between two sizes of run,
so that starting up drops out. Raw lines go to build/bench-client.jsonl.

    client.py [ours,guidellm,aiperf,vllm] [ROUNDS]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import client_peers
from client_peers import ROOT, AiPerf, GuideLlm, Job, Ours, VllmBench

sys.path.insert(0, str(ROOT / "tests" / "sim"))

from schedule_host import Schedule

CLIENTS = {client.name: client for client in (Ours(), GuideLlm(), AiPerf(), VllmBench())}
RUN_S = 180
SERVER_S = 6 * 3600  # it ends with this program anyway
SMALLEST = 0.2  # a ratio to less than this says nothing
RAW = ROOT / "build" / "bench-client.jsonl"
TOKENS, FLOOD_TOKENS = 100, 500
PACED = {"ttft_ms": 50.0, "itl_ms": 10.0, "tokens": TOKENS, "jitter": 0.0, "mode": "paced"}
# name, options of the server, streams, requests
RUNS = (
    ("step 1", {}, 1, 10),
    ("step 16", {}, 16, 96),
    ("step 64", {}, 64, 960),
    ("step 64 small", {}, 64, 64),
    ("jitter 16", {"jitter": 0.4}, 16, 96),
    ("jitter 64", {"jitter": 0.4}, 64, 384),
    ("burst small", {"mode": "burst", "tokens": FLOOD_TOKENS}, 16, 50),
    ("burst", {"mode": "burst", "tokens": FLOOD_TOKENS}, 16, 1000),
    ("token small", {"mode": "token", "tokens": FLOOD_TOKENS}, 16, 50),
    ("token", {"mode": "token", "tokens": FLOOD_TOKENS}, 16, 1000),
    ("one", {}, 1, 1),
    ("idle", {"ttft_ms": 6050.0}, 1, 1),
)
IDLE_S = 6.0  # by which the last run waits longer than the one before it


def run(server, client, name, options, streams, requests):
    """Return what one run of a client told, used, and what the server did."""
    options = {**PACED, **options}
    server.reset(**options)
    job = Job(server.url, streams, requests, options["tokens"])
    with tempfile.TemporaryDirectory(prefix="bench-") as name_of_folder:
        folder = Path(name_of_folder)
        used = client_peers.measured(client.command(job, folder), client.environment, folder, RUN_S)
        truth = server.ask("/summary")
        found = {"client": client.name, "run": name, "used": used, "truth": truth}
        found["load1"] = os.getloadavg()[0]
        try:
            found["told"] = client.read(folder)
        except (OSError, ValueError, KeyError, IndexError) as error:
            log = (folder / "log").read_text(errors="replace").strip()
            found |= {"told": None, "why": f"{error!r}; its log ends with: {log[-400:]}"}
    with RAW.open("a") as raw:
        raw.write(json.dumps(found) + "\n")
    return found


class Drain(Ours):
    """Asks as much and throws the answers away."""

    name = "drain"

    def command(self, job, folder):
        argv = super().command(job, folder)
        return [*argv[:2], "drain", *argv[3:]]


def slope(big, small):
    """Return CPU milliseconds per 1,000 tokens between two runs; None where one is missing."""
    tokens = per_run(big) - per_run(small)
    return (big["used"]["cpu_s"] - small["used"]["cpu_s"]) * 1e6 / tokens if tokens > 0 else None


def per_run(found):
    return found["truth"]["records"]


def figures(runs, quiet):
    """Return the figures of one client from its runs by name, and the server's when undisturbed."""
    found = {}
    for name in ("step 1", "step 16", "step 64", "jitter 16", "jitter 64"):
        told, truth = runs[name]["told"], runs[name]["truth"]
        if not told or not truth["ttft_ms"]:
            continue
        found[f"mean TTFT error, {name} [ms]"] = told["ttft"]["mean"] - truth["ttft_ms"]["mean"]
        found[f"gap p99 error, {name} [ms]"] = told["gap"]["p99"] - truth["gap_ms"]["p99"]
        if name in quiet:
            moved = truth["gap_ms"]["p99"] - quiet[name]
            found[f"server's own gap p99 moved by, {name} [ms]"] = moved
    found["CPU ms per 1,000 paced tokens, 64 streams"] = slope(
        runs["step 64"], runs["step 64 small"]
    )
    for mode in ("burst", "token"):
        cost = slope(runs[mode], runs[f"{mode} small"])
        found[f"flood ({mode}): tokens/s per client core"] = 1e6 / cost if cost else None
        told = runs[mode]["told"]
        found[f"flood ({mode}): tokens/s reported"] = told and told["tokens_per_s"]
    one, idle = runs["one"]["used"], runs["idle"]["used"]
    found["one request: wall [s]"] = one["wall_s"]
    found["one request: CPU [s]"] = one["cpu_s"]
    found["one request: memory, PSS [MB]"] = one["pss_mb"]
    found["one request: processes"] = one["processes"]
    found["CPU while waiting [cores]"] = max(0.0, idle["cpu_s"] - one["cpu_s"]) / IDLE_S
    return found


def ansible(server, rounds):
    """Return what the task costs over a task that does nothing, with and without live progress.

    Returns:
        name of the way -> figure -> what Ansible and the task used, and how much of it is the
        task's (CPU s, wall s, memory MB, medians); and why there are none.
    """
    server.reset(**PACED)
    wanted = {"url": server.url, "models": [{"name": "mock-model"}], "iterations": 1, "warmup": 0}
    wanted |= {"calibrate": False, "sample_resources": False}  # those take their own time
    module = "hx_infra.llm.inference_benchmark"
    ways = {
        "ping": ["ansible.builtin.ping"],
        "with progress": [module, "-a", json.dumps(wanted)],
        "without": [module, "-a", json.dumps({**wanted, "progress": False})],
    }
    argv = [str(Path(sys.executable).parent / "ansible"), "localhost", "-c", "local", "-m"]
    costs = {name: [] for name in ways}
    for _turn in range(rounds):
        for name, more in ways.items():
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                environment = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
                used = client_peers.measured([*argv, *more], environment, Path(folder), RUN_S)
                if used["rc"]:
                    log = (Path(folder) / "log").read_text(errors="replace").strip()
                    return None, f"{more[0]} failed: {log[-400:]}"
                costs[name].append(used)
    middle = {
        name: {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        for name, runs in costs.items()
    }
    nothing = middle.pop("ping")
    return {
        name: {key: (used[key], used[key] - nothing[key]) for key in ("cpu_s", "wall_s", "pss_mb")}
        for name, used in middle.items()
    }, ""


def table(columns, rounds):
    """Print one row per figure, one column per client, and each peer's ratio to ours."""
    names = list(columns)
    print(f"\n{'figure (median of n rounds)':56}" + "".join(f"{name:>22}" for name in names))
    for label in columns[names[0]][0]:
        cells = []
        mine = None
        for name in names:
            values = [found[label] for found in columns[name] if found.get(label) is not None]
            if not values:
                cells.append(f"{'-':>22}")
                continue
            middle = statistics.median(values)
            mine = middle if mine is None else mine
            large = mine and abs(mine) >= SMALLEST and "moved" not in label
            ratio = f" ({abs(middle / mine):.1f}x)" if name != names[0] and large else ""
            digits = 0 if abs(middle) >= 1000 else 2
            cells.append(f"{f'{middle:.{digits}f}{ratio}':>22}")
        print(f"{label:56}" + "".join(cells))
    print(f"n = {rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")


def main(names=tuple(CLIENTS), rounds=1):
    """Measure the clients that can be installed, and print the table."""
    RAW.parent.mkdir(exist_ok=True)
    clients = []
    for name in names:
        why = "" if name == "ours" else client_peers.installed(name)
        if why:
            print(f"{name}: skipped, it can't be installed here: {why}")
        else:
            clients.append(CLIENTS[name])
    columns = {client.name: [] for client in clients}
    with Schedule(max_s=SERVER_S) as server:
        for turn in range(rounds):
            drained = {
                entry[0]: run(server, Drain(), *entry)["truth"]["gap_ms"]["p99"]
                for entry in RUNS
                if entry[0] in ("step 64", "jitter 64")
            }
            print(f"round {turn + 1}: server's own gap p99, drained: {drained}", flush=True)
            for client in clients:
                runs = {}
                for entry in RUNS:
                    found = runs[entry[0]] = run(server, client, *entry)
                    if not found["told"]:
                        print(f"{client.name}, {entry[0]}: no figures: {found['why']}")
                columns[client.name].append(figures(runs, drained))
                print(f"{client.name} is through", flush=True)
        cost, why = ansible(server, 3) if "ours" in names else (None, "")
    table(columns, rounds)
    for name, figure in (cost or {}).items():
        for key, (whole, over) in figure.items():
            print(f"the task, one request, {name}: {key} {whole:.2f}, over ping {over:+.2f} (n=3)")
    if why:
        print(f"the task over ping: no figures: {why}")


if __name__ == "__main__":
    wanted = sys.argv[1].split(",") if len(sys.argv) > 1 else tuple(CLIENTS)
    try:
        main(wanted, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{failed}:\n{failed.stderr[-2000:]}")
