# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes reports from the benchmark runs on the controller and prints them; changes no host."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from jinja2 import TemplateError

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_collect as collect
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_fleet as fleet
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_outcome as outcome
from ansible_collections.hx_infra.llm.plugins.plugin_utils import (
    _performance_report as performance,
)
from ansible_collections.hx_infra.llm.plugins.plugin_utils import (
    _performance_report_render as performance_pages,
)
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_files as files
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_results as results

ARGUMENTS: dict[str, dict[str, Any]] = {
    "kind": {"type": "str", "choices": ["fleet", "performance"], "required": True},
    "dest": {"type": "path", "required": True},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "files": {"type": "list", "elements": "path"},
    "days": {"type": "float", "default": 30.0},
    "models": {"type": "list", "elements": "dict", "default": []},
    "disk": {"type": "dict", "default": {}},
    "limits": {"type": "dict", "default": {}},
}
FLEET, PERFORMANCE = "fleet-benchmark", "performance-report"
COLORS = {"good": "green", "warn": "yellow", "bad": "red"}
FINDINGS = 12  # that are printed; the page has all


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        options = results.plain(self.validate_argument_spec(argument_spec=ARGUMENTS)[1])
        try:
            runs, told = self._runs(options)
            made = (
                self._fleet(options, runs)
                if options["kind"] == "fleet"
                else self._performance(options, runs)
            )
        except HostError as error:
            raise AnsibleActionFail(str(error)) from error
        except (OSError, TemplateError) as error:
            raise AnsibleActionFail(
                f"the report can't be written to {options['dest']}: {error}. See that the"
                " controller may write there."
            ) from error
        result["warnings"] = told
        result.update(changed=False, actions=[], plan=[], **made)
        return result

    def _runs(self, options: dict[str, Any]) -> tuple[list[collect.Run], list[str]]:
        if options["files"] is not None:
            return [collect.read_run(path) for path in options["files"]], []
        found: list[collect.Run] = []
        told: list[str] = []
        for host in options["hosts"]:
            _refuse_path(host)
            runs, strange = collect.runs_of(
                options["dest"], host, datetime.now(timezone.utc), options["days"]
            )
            found += runs
            told += strange
        return found, told

    def _fleet(self, options: dict[str, Any], runs: list[collect.Run]) -> dict[str, Any]:
        rows = fleet.fleet_rows(runs)
        table, _markup = fleet.fleet_table(runs)
        missing = collect.without_runs(options["hosts"], runs)
        reasons = fleet.reasons_of(rows)
        lines = [*table.splitlines(), *([""] if reasons else []), *reasons]
        measured = len(lines)
        if missing:
            lines += ["", f"Nothing was measured of {', '.join(missing)}."]
        pages = [path[: -len("json")] + "html" for path in options["files"] or []]
        lines += ["", *(f"page     {page}" for page in pages)] if pages else []
        words = [str(row["word"]) for row in rows]
        word = max(words, key=outcome.WORDS.index, default="INVALID")
        base = os.path.join(options["dest"], FLEET)
        whole = {
            "schema": collect.SCHEMA,
            "verdict": word,
            "rows": rows,
            "not_measured": missing,
            "runs": [f"{run['host']}: {run.get('run_id') or run['started_at']}" for run in runs],
        }
        contents = {
            "html": fleet.render_fleet(runs),
            "markdown": _fenced("Inference benchmark of a fleet", lines[:measured]),
            "json": json.dumps(whole, indent=1, sort_keys=True) + "\n",
        }
        return self._finish(base, contents, lines, verdict=word, tone=outcome.TONES[word])

    def _performance(self, options: dict[str, Any], runs: list[collect.Run]) -> dict[str, Any]:
        if len(options["hosts"]) != 1:
            raise HostError(
                f"a performance report was wanted of {len(options['hosts'])} hosts, wanted one.",
                "Make one report for each host.",
            )
        [host] = options["hosts"]
        _refuse_path(host)
        facts = {"host": host, "models": _models(options["models"]), "disk": _disk(options["disk"])}
        report = performance.build_report(runs, facts, options["limits"])
        verdict = str(report["verdict"])
        lines = [f"{host}: {verdict}"]
        found = report["recommendations"]
        lines += [
            f"  {item['severity']:<9} {item['subject']}: {item['text']}"
            for item in found[:FINDINGS]
        ]
        if len(found) > FINDINGS:
            lines.append(f"  and {len(found) - FINDINGS} more in the report")
        contents = {
            "html": performance_pages.render_html(report),
            "markdown": performance_pages.render_markdown(report),
            "json": json.dumps(report, indent=1, sort_keys=True) + "\n",
        }
        base = os.path.join(options["dest"], host, PERFORMANCE)
        tone = performance_pages.TONES[verdict]
        return self._finish(base, contents, lines, verdict=verdict, tone=tone)

    def _finish(
        self, base: str, contents: dict[str, str], lines: list[str], *, verdict: str, tone: str
    ) -> dict[str, Any]:
        """Write the documents, unless the run is dry, and print the lines."""
        ends = {"html": "html", "markdown": "md", "json": "json"}
        paths = {name: f"{base}.{end}" for name, end in ends.items()}
        if not self._task.check_mode:
            for name, content in contents.items():
                files.write(paths[name], content)
            lines = [*lines, f"report   {paths['html']}"]
        self._display.display("\n" + "\n".join(lines) + "\n", color=COLORS.get(tone, "cyan"))
        return {
            "verdict": verdict,
            "summary": lines,
            **{f"{name}_path": path for name, path in paths.items()},
        }


def _refuse_path(host: str) -> None:
    if os.path.basename(host) != host or host in ("", ".."):
        raise HostError(f"the host is named {host!r}, wanted a name of the inventory.")


def _models(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the catalog's facts with their sizes as numbers; templates may give texts."""
    return [
        {**model, "size_bytes": int(model["size_bytes"]) if model.get("size_bytes") else None}
        for model in given
    ]


def _disk(given: dict[str, Any]) -> dict[str, Any]:
    sizes = {
        name: int(given[name])
        for name in ("total_bytes", "free_bytes")
        if given.get(name) is not None
    }
    return {**given, **sizes}


def _fenced(title: str, lines: list[str]) -> str:
    return "\n".join([f"# {title}", "", "```text", *lines, "```", ""])
