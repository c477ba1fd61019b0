# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Samples GPUs, host and engine, step by step; a program that stands alone.

The first line of its input holds the settings (see ``_bench_sampler.Sampler``). It ends when its
input ends, and by itself after ``limit_s``. Each source has a thread of its own: a driver or an
engine that doesn't answer delays nothing else, and a call that hangs ends with the process.

Lines, ``at`` by CLOCK_MONOTONIC, which all processes of a host share:

``{"source": "gpu", "state": "nvml", ...}``     where readings come from, or "none: why"
``{"at": 12.3, "gpu": [{...}]}``                likewise "host" and "engine"; a GPU may be
                                                ``{"index": 1, "failed": "why", "code": 15}``
``{"at": 12.3, "missed": "gpu", "why": "..."}`` a reading that failed
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import select
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Callable
from urllib.parse import urlsplit

NICENESS = 5  # what is measured goes first
BODY_LIMIT = 8 * 2**20
SMI_STEP_S = 5.0  # each run of nvidia-smi opens the driver anew
MIB, PERCENT = 2**20, 100.0
SMI_FIELDS = (
    "index,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw,"
    "clocks_throttle_reasons.active"  # also known to branches that say "event" for "throttle"
)
SMI_APPS = "gpu_uuid,pid,process_name,used_memory"
READINGS = ("utilization", "memory", "temperature", "power", "clock_events")
PROCESSES = "processes"  # a reading that is taken only when it is asked for
# nvml.h, nvmlClocksEventReasons: those that slow a busy GPU down.
THROTTLES = (
    (0x4, "sw_power_cap"),
    (0x8, "hw_slowdown"),
    (0x20, "sw_thermal_slowdown"),
    (0x40, "hw_thermal_slowdown"),
    (0x80, "hw_power_brake_slowdown"),
)
# vLLM's metric: our name, factor; the second spelling is that of versions before 0.12.
VLLM = {
    "num_requests_running": ("running", 1),
    "num_requests_waiting": ("waiting", 1),
    "kv_cache_usage_perc": ("kv_cache_percent", PERCENT),  # a fraction in spite of its name
    "gpu_cache_usage_perc": ("kv_cache_percent", PERCENT),
    "generation_tokens_total": ("generation_tokens_total", 1),
    "prompt_tokens_total": ("prompt_tokens_total", 1),
    "num_preemptions_total": ("preemptions_total", 1),
}
VLLM_LINE = re.compile(rf"^vllm:({'|'.join(VLLM)})(?:\{{.*\}})? (\S+)", re.MULTILINE)

Reading = Any
Settings = dict[str, Any]


class UnavailableError(Exception):
    """A source that isn't there, and why."""


# -- GPU ------------------------------------------------------------------------------------------


class Nvml:
    """GPUs through NVML, which stays initialised.

    Args:
        readers: text of the collection's NVML reader, whose functions know the driver branches.
        readings: what to read, by the names of those functions. With ``processes`` a GPU that
            fails is told as such, so that it doesn't hide what the others do.
    """

    label = "nvml"

    def __init__(self, readers: str, readings: Sequence[str] = READINGS) -> None:
        try:
            import pynvml  # noqa: PLC0415 - its absence is an answer, not a crash
        except ImportError as error:
            raise UnavailableError(f"{sys.executable}: {error}") from error
        space: dict[str, Any] = {"__name__": "nvml_reader"}
        exec(compile(readers, "nvml_reader", "exec"), space)  # noqa: S102 - our own text
        self._nvml = pynvml
        self._away = space["NOT_AVAILABLE"]
        self._read = [space[f"_{name}"] for name in readings]
        self._listing = PROCESSES in readings
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except pynvml.NVMLError as error:
            raise UnavailableError(f"NVML: {error}") from error
        if not self._gpus:
            raise UnavailableError("the driver sees no GPU")

    def read(self) -> list[Reading]:
        """Return what each GPU tells."""
        return [self._gpu(index, gpu) for index, gpu in enumerate(self._gpus)]

    def _gpu(self, index: int, gpu: Any) -> Reading:
        fields: dict[str, Any] = {}
        for reader in self._read:
            try:
                fields.update(reader(self._nvml, gpu))
            except self._nvml.NVMLError as error:
                if error.value in self._away:
                    continue
                if self._listing:
                    return {"index": index, "failed": str(error), "code": error.value}
                raise OSError(f"GPU {index}: {error}") from error
        ratio = fields.get("utilization_gpu_ratio")
        reasons = fields.get("clocks_event_reasons", ())
        return {
            "index": index,
            "util_percent": None if ratio is None else round(ratio * PERCENT, 1),
            "memory_used_bytes": fields.get("memory_used_bytes"),
            "memory_total_bytes": fields.get("memory_total_bytes"),
            "temperature_c": fields.get("temperature_c"),
            "power_w": fields.get("power_draw_watts"),
            "throttle": [name for _bit, name in THROTTLES if name in reasons],
            **({PROCESSES: fields.get(PROCESSES)} if self._listing else {}),
        }


class Smi:
    """GPUs through nvidia-smi, one run a reading, and one more when processes are wanted."""

    label = "nvidia-smi"

    def __init__(
        self,
        program: str,
        timeout_s: float,
        listing: bool = False,
        least_step_s: float = SMI_STEP_S,
    ) -> None:
        form = "--format=csv,noheader,nounits"
        self._argv = [program, f"--query-gpu={SMI_FIELDS}{',uuid' if listing else ''}", form]
        self._apps = [program, f"--query-compute-apps={SMI_APPS}", form] if listing else []
        self._timeout_s = timeout_s
        self.least_step_s = least_step_s
        try:
            self.read()
        except OSError as error:
            raise UnavailableError(str(error)) from error

    def read(self) -> list[Reading]:
        """Return what each GPU tells."""
        gpus = smi_gpus(self._run(self._argv))
        if self._apps:
            add_processes(gpus, self._run(self._apps))
        return gpus

    def _run(self, argv: list[str]) -> str:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self._timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"nvidia-smi did not answer within {self._timeout_s:g} s") from error
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines()[:1] or ["it printed nothing"]
            raise OSError(f"nvidia-smi ended with {done.returncode}: {said[0]}")
        return done.stdout


def smi_gpus(text: str) -> list[Reading]:
    """Turn nvidia-smi's lines into readings; a word in place of a number is no reading.

    A line may end with the UUID, which the list of processes needs.
    """
    gpus: list[Reading] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) - SMI_FIELDS.count(",") not in (1, 2) or not cells[0].isdigit():
            continue
        util, used, total, heat, power = (_number(cell) for cell in cells[1:6])
        try:
            mask = int(cells[6], 16)
        except ValueError:
            mask = 0
        gpus.append(
            {
                "index": int(cells[0]),
                "util_percent": util,
                "memory_used_bytes": None if used is None else int(used * MIB),
                "memory_total_bytes": None if total is None else int(total * MIB),
                "temperature_c": heat,
                "power_w": power,
                "throttle": [name for bit, name in THROTTLES if mask & bit],
                **({"uuid": cells[7]} if len(cells) > 7 else {}),
            }
        )
    return gpus


def add_processes(gpus: list[Reading], text: str) -> None:
    """Add to each GPU the processes that nvidia-smi lists by its UUID."""
    found = {gpu["uuid"]: gpu.setdefault(PROCESSES, []) for gpu in gpus if "uuid" in gpu}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < 4 or cells[0] not in found or not cells[1].isdigit():
            continue
        name, used = ",".join(cells[2:-1]), _number(cells[-1])
        entry: Reading = {"pid": int(cells[1]), "type": "C"}
        if not name.startswith("["):  # [Not Found], [Insufficient Permissions]
            entry["name"] = name
        if used is not None:
            entry["memory_bytes"] = int(used * MIB)
        found[cells[0]].append(entry)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def open_gpu(settings: Settings) -> Nvml | Smi:
    """Return the best reader of GPUs that this host has."""
    missed = []
    readings = settings.get("readings") or READINGS
    if settings.get("nvml"):
        try:
            return Nvml(settings["readers"], readings)
        except UnavailableError as error:
            missed.append(str(error))
    else:
        missed.append(settings["why"])
    if settings.get("smi"):
        try:
            step_s = settings.get("smi_step_s", SMI_STEP_S)
            return Smi(settings["smi"], SMI_STEP_S, PROCESSES in readings, step_s)
        except UnavailableError as error:
            missed.append(str(error))
    else:
        missed.append("nvidia-smi is not installed")
    raise UnavailableError("; ".join(missed))


# -- host -----------------------------------------------------------------------------------------


class Host:
    """CPU, memory and load from /proc (proc(5))."""

    label = "/proc"

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._before = self._ticks()
        if self._before is None:
            raise UnavailableError(f"{proc}/stat can't be read")

    def read(self) -> Reading:
        """Return the figures; CPU since the reading before."""
        now, before = self._ticks(), self._before
        self._before = now
        memory = self._memory()
        total, free = memory.get("MemTotal"), memory.get("MemAvailable")
        used = total - free if total is not None and free is not None else None
        return {
            "cpu_percent": busy_percent(before, now),
            "memory_used_bytes": used,
            "memory_total_bytes": total,
            "load1": _number((self._text("loadavg").split() or [""])[0]),
        }

    def _ticks(self) -> list[int] | None:
        first = self._text("stat").partition("\n")[0].split()
        return [int(word) for word in first[1:9]] if first[:1] == ["cpu"] else None

    def _memory(self) -> dict[str, int]:
        lines = (line.split() for line in self._text("meminfo").splitlines()[:5])
        return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}

    def _text(self, name: str) -> str:
        try:
            with open(f"{self._proc}/{name}", encoding="ascii") as file:
                return file.read(65536)
        except OSError:
            return ""


def busy_percent(before: list[int] | None, now: list[int] | None) -> float | None:
    """Return the share of all CPUs' time that was not idle and not waiting for disks."""
    if before is None or now is None:
        return None
    spent = [b - a for a, b in zip(before, now)]  # user nice system idle iowait irq softirq steal
    total = sum(spent)
    return round(PERCENT * (total - spent[3] - spent[4]) / total, 1) if total > 0 else None


# -- engine ---------------------------------------------------------------------------------------


class Engine:
    """The engine's own figures over one connection that stays open."""

    def __init__(self, settings: Settings) -> None:
        parts = urlsplit(settings["url"])
        self._base = parts.path.rstrip("/")
        self._headers = dict(settings.get("headers") or {})
        timeout = settings.get("timeout_s", 2.0)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=settings.get("ca_path"))
            if not settings.get("validate_certs", True):
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._wire: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=timeout, context=context
            )
        else:
            self._wire = http.client.HTTPConnection(
                parts.hostname or "", parts.port, timeout=timeout
            )
        self.label, self._path, self._parse = self._known(settings.get("engine", "auto"))

    def read(self) -> Reading:
        """Return what the engine tells now."""
        return self._parse(self._get(self._path))

    def _known(self, wanted: str) -> tuple[str, str, Callable[[bytes], Reading]]:
        missed = []
        for name, path, parse in (
            ("vllm", "/metrics", vllm_figures),
            ("ollama", "/api/ps", ollama_figures),
        ):
            if wanted in ("auto", name):
                try:
                    parse(self._get(path))
                    return f"{name} {path}", path, parse
                except OSError as error:
                    missed.append(str(error))
        raise UnavailableError("; ".join(missed) or f"engine is {wanted}")

    def _get(self, path: str) -> bytes:
        try:
            self._wire.request("GET", self._base + path, headers=self._headers)
            answer = self._wire.getresponse()
            body = answer.read(BODY_LIMIT)
            if answer.status != 200 or not answer.isclosed():
                raise OSError(f"it answered {answer.status}")
            return body
        except (OSError, http.client.HTTPException) as error:
            self._wire.close()
            raise OSError(f"GET {path}: {str(error) or type(error).__name__}") from error


def vllm_figures(body: bytes) -> Reading:
    """Sum vLLM's gauges and counters over its engines; the fullest cache stands for all."""
    found: dict[str, float] = {}
    for metric, text in VLLM_LINE.findall(body.decode("utf-8", "replace")):
        name, factor = VLLM[metric]
        value = (_number(text) or 0.0) * factor
        if name == "kv_cache_percent":
            found[name] = round(max(value, found.get(name, 0.0)), 2)
        else:
            found[name] = found.get(name, 0) + int(value)
    if not found:
        raise OSError("GET /metrics: no metric of vLLM in it")
    return found


def ollama_figures(body: bytes) -> Reading:
    """Return the loaded models and the memory that they take."""
    try:
        models = json.loads(body)["models"] or []
        return {
            "models": sorted(model["name"] for model in models),
            "size_bytes": sum(model.get("size") or 0 for model in models),
            "size_vram_bytes": sum(model.get("size_vram") or 0 for model in models),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise OSError("GET /api/ps: not what Ollama answers") from error


# -- the program ----------------------------------------------------------------------------------

_speaking = threading.Lock()


def say(line: Reading) -> None:
    """Write one line at once; without a reader there is nothing left to do."""
    data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    with _speaking:
        try:
            os.write(1, data)
        except OSError:
            os._exit(1)


def watch(name: str, opened: Callable[[], Any], step_s: float) -> None:
    """Read one source for ever; a step that a slow reading took is left out."""
    try:
        source = opened()
    except Exception as error:  # at the border of a thread: the reason is passed on
        say({"source": name, "state": f"none: {str(error) or type(error).__name__}"})
        return
    step_s = max(step_s, getattr(source, "least_step_s", 0.0))
    say({"source": name, "state": source.label, "step_s": step_s})
    due = time.monotonic() + (step_s if name == "host" else 0.0)  # CPU time needs two readings
    while True:
        time.sleep(max(0.0, due - time.monotonic()))
        begin = time.monotonic()
        try:
            line = {name: source.read()}
        except Exception as error:
            line = {"missed": name, "why": str(error) or type(error).__name__}
        end = time.monotonic()
        line["at"] = round((begin + end) / 2, 4)
        if name == "host":
            used = [resource.getrusage(who) for who in (0, -1)]  # this process, those it started
            line["cpu_s"] = round(sum(one.ru_utime + one.ru_stime for one in used), 6)
        say(line)
        due += step_s * max(1, -int(-(end - due) // step_s))


def settings_line() -> Settings:
    """Return the first line of the input, reading no byte more."""
    data = b""
    while not data.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            os._exit(0)
        data += piece
    return json.loads(data)


def main() -> None:
    """Watch what the settings name until the input ends."""
    settings = settings_line()
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    sources: dict[str, Callable[[], Any]] = {
        "gpu": lambda: open_gpu(settings["gpu"]),
        "host": lambda: Host(settings["proc"]),
        "engine": lambda: Engine(settings["engine"]),
    }
    for name in settings["sources"]:
        threading.Thread(
            target=watch, args=(name, sources[name], settings["step_s"]), daemon=True
        ).start()
    select.select([0], [], [], settings["limit_s"])


if __name__ == "__main__":
    main()
    os._exit(0)  # a sick driver may hang in its exit handlers
