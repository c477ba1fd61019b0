# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, Callable

from sim_ollama import envconfig, gpu, runner, serve
from sim_ollama.version import at_least, name_process, own_version

UNITS = ("B", "KB", "MB", "GB", "TB")
USAGE = """Large language model runner

Usage:
  ollama [flags]
  ollama [command]

Available Commands:
  serve       Start ollama
  show        Show information for a model
  run         Run a model
  stop        Stop a running model
  pull        Pull a model from a registry
  list        List models
  ps          List running models
  cp          Copy a model
  rm          Remove a model
  help        Help about any command

Flags:
  -h, --help      help for ollama
  -v, --version   Show version information
"""


class CliError(Exception):
    """A failure that is printed after `Error:`."""


def request(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Send one request to the server and return the response; errors become CliError."""
    _scheme, host, port = envconfig.host()
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(host, port, timeout=None)
    data = None if body is None else json.dumps(body).encode()
    try:
        connection.request(method, path, body=data)
        response = connection.getresponse()
    except OSError:
        if at_least(own_version(), "0.12.0"):
            text = "could not connect to ollama server, run 'ollama serve' to start it"
        else:
            text = "could not connect to ollama app, is it running?"
        raise CliError(text) from None
    if response.status >= 400:
        raw = response.read().decode("utf-8", "replace")
        try:
            raise CliError(str(json.loads(raw)["error"]))
        except (ValueError, KeyError, TypeError):
            raise CliError(f"{response.status} {response.reason}") from None
    return response


def call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send one request and return its JSON answer."""
    raw = request(method, path, body).read()
    return json.loads(raw) if raw else {}


def stream(path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Send one request and yield its lines; a line with an error becomes CliError."""
    response = request("POST", path, body)
    try:
        for raw in response:
            line = json.loads(raw)
            if "error" in line:
                raise CliError(str(line["error"]))
            yield line
    except (OSError, http.client.HTTPException, ValueError):
        raise CliError("unexpected EOF") from None


def table(rows: list[list[str]]) -> str:
    """Format rows in columns, four blanks apart."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["".join(cell.ljust(w + 4) for cell, w in zip(row, widths)) for row in rows]
    return "\n".join(lines)


def human_size(size: float) -> str:
    """Return a size in powers of 1000 as the program prints it."""
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size /= 1000
        unit += 1
    shown = f"{size:.0f}" if size >= 10 or unit == 0 else f"{size:.1f}"
    return f"{shown} {UNITS[unit]}"


def human_time(stamp: str, zero: str) -> str:
    """Return how far away a time is."""
    moment = datetime.fromisoformat(stamp[:19]).replace(tzinfo=timezone.utc)
    offset = datetime.strptime(stamp[-6:].replace(":", ""), "%z").utcoffset()
    moment -= offset or moment.utcoffset()  # the text's clock was local
    seconds = (datetime.now(timezone.utc) - moment).total_seconds()
    word = "ago" if seconds >= 0 else "from now"
    seconds = abs(seconds)
    if seconds > 3.2e9:
        return "Forever"
    steps = ((1, "second"), (60, "minute"), (3600, "hour"), (86400, "day"), (604800, "week"))
    for size, unit in reversed(steps):
        count = int(seconds // size)
        if count >= 1:
            return f"{count} {unit}{'' if count == 1 else 's'} {word}"
    return zero


def command_list(args: list[str]) -> None:
    """List models; an argument filters by the name's beginning."""
    rows = [["NAME", "ID", "SIZE", "MODIFIED"]]
    for model in call("GET", "/api/tags").get("models") or []:
        if not args or model["name"].lower().startswith(args[0].lower()):
            when = human_time(model["modified_at"], "Less than a second ago")
            rows.append([model["name"], model["digest"][:12], human_size(model["size"]), when])
    print(table(rows))


def command_ps(_args: list[str]) -> None:
    """List loaded models."""
    rows = [["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]]
    for model in call("GET", "/api/ps").get("models") or []:
        until = human_time(model["expires_at"], "Stopping...")
        until = "Stopping..." if until.endswith("ago") else until
        share = processor(model["size"], model.get("size_vram", 0))
        context = str(model.get("context_length", ""))
        size = human_size(model["size"])
        rows.append([model["name"], model["digest"][:12], size, share, context, until])
    print(table(rows))


def processor(size: int, vram: int) -> str:
    """Return the GPU share as the program words it."""
    if vram == 0:
        return "100% CPU"
    if vram == size:
        return "100% GPU"
    if vram > size or size == 0:
        return "Unknown"
    cpu = round((size - vram) / size * 100)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def command_pull(args: list[str]) -> None:
    """Pull a model."""
    insecure = "--insecure" in args
    model = _one([a for a in args if a != "--insecure"])
    last = ""
    for line in stream("/api/pull", {"model": model, "insecure": insecure}):
        text = str(line.get("status", ""))
        if text != last:
            print(text, file=sys.stderr, flush=True)
        last = text


def command_rm(args: list[str]) -> None:
    """Remove models."""
    for model in args or [_one(args)]:
        call("POST", "/api/generate", {"model": model, "keep_alive": 0})
        call("DELETE", "/api/delete", {"model": model})
        print(f"deleted '{model}'")


def command_cp(args: list[str]) -> None:
    """Copy a model."""
    if len(args) != 2:
        raise CliError(f"accepts 2 arg(s), received {len(args)}")
    call("POST", "/api/copy", {"source": args[0], "destination": args[1]})
    print(f"copied '{args[0]}' to '{args[1]}'")


def command_stop(args: list[str]) -> None:
    """Unload a model."""
    call("POST", "/api/generate", {"model": _one(args), "keep_alive": 0})


def command_show(args: list[str]) -> None:
    """Show a model, or one part of it."""
    flags = [a[2:] for a in args if a.startswith("--")]
    model = _one([a for a in args if not a.startswith("--")])
    shown = call("POST", "/api/show", {"model": model})
    if flags:
        print(shown.get(flags[0], ""))
        return
    print("  Model")
    for key, value in shown["details"].items():
        if value:
            print(f"    {key:<20}{value}")
    print("\n  Capabilities")
    for capability in shown.get("capabilities", []):
        print(f"    {capability}")
    if shown.get("parameters"):
        print("\n  Parameters")
        print("\n".join(f"    {line}" for line in shown["parameters"].splitlines()))


def command_run(args: list[str]) -> None:
    """Answer one prompt from the arguments or standard input."""
    words, options = [], {}
    for arg in args:
        if arg.startswith("--think"):
            options["think"] = arg != "--think=false"
        elif arg.startswith("--keepalive="):
            options["keep_alive"] = arg.split("=", 1)[1]
        elif not arg.startswith("--"):
            words.append(arg)
    model = _one(words[:1])
    prompt = " ".join(words[1:])
    if not sys.stdin.isatty():
        prompt = "\n".join(p for p in (prompt, sys.stdin.read().strip("\n")) if p)
    call("POST", "/api/show", {"model": model})
    if not prompt:
        call("POST", "/api/generate", {"model": model, **options})
        return
    for line in stream("/api/generate", {"model": model, "prompt": prompt, **options}):
        sys.stdout.write(str(line.get("response", "")))
        sys.stdout.flush()
    print("\n")


def print_version() -> None:
    """Print the server's version, and this program's where it differs."""
    own = own_version()
    try:
        found = str(call("GET", "/api/version").get("version", ""))
    except CliError:
        found = ""
        print("Warning: could not connect to a running Ollama instance")
    if found:
        print(f"ollama version is {found}")
    if found != own:
        print(f"Warning: client version is {own}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "list": command_list,
    "ls": command_list,
    "ps": command_ps,
    "pull": command_pull,
    "rm": command_rm,
    "cp": command_cp,
    "stop": command_stop,
    "show": command_show,
    "run": command_run,
}


def main(argv: list[str]) -> int:
    """Run one command and return the exit status."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if argv[0] in ("-v", "--version"):
        print_version()
        return 0
    if argv[0] in ("serve", "start", "runner"):
        name_process("ollama")
    if argv[0] in ("serve", "start"):
        return serve.serve()
    if argv[0] == "runner":
        return gpu.discovery_child() if "--discover" in argv else runner.runner_child()
    command = COMMANDS.get(argv[0])
    try:
        if command is None:
            raise CliError(f'unknown command "{argv[0]}" for "ollama"')
        command(argv[1:])
    except CliError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        return 1
    return 0


def _one(args: list[str]) -> str:
    if len(args) != 1:
        raise CliError(f"accepts 1 arg(s), received {len(args)}")
    return args[0]
