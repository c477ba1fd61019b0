# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What can be known of a model's files: from the disk, from the declaration, or from the hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.hx_infra.llm.plugins.module_utils._redact import redact
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import Service

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# (method, address) -> (content, headers in lower case); raises FetchError
Fetch = Callable[[str, str], "tuple[bytes, Mapping[str, str]]"]


class FetchError(Exception):
    """A request without the wanted answer; ``status`` is 0 when there was none at all."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class ModelFiles:
    """A model's size and configuration; None is a value that isn't known."""

    present: bool
    weights: int | None = None
    config: Mapping[str, Any] | None = None
    origin: str = ""
    other_formats: tuple[str, ...] = ()  # weights in a form that is not served
    trouble: str = ""
    notes: tuple[str, ...] = ()  # why something isn't known: what was asked, and what came


def look(service: Service, hub_url: str, fetch: Fetch | None) -> ModelFiles:
    """Look for a service's model on disk, then in its declaration, then at the hub."""
    path = service.model_path
    if os.path.isdir(path):
        return on_disk(path)
    if os.path.exists(path):
        return ModelFiles(False, trouble="is a file, wanted a directory")
    declared = service.section("model").get("weights_bytes")
    if service.source.get("hub") and hub_url and fetch is not None:
        return _at_hub(service.source, hub_url.rstrip("/"), fetch, declared)
    return ModelFiles(False, declared, None, "declared" if declared else "")


def on_disk(path: str) -> ModelFiles:
    """Read the configuration and the size of the weights of a model's directory.

    A repository may hold its weights twice (``consolidated`` beside ``model-...``), so the index
    decides which files count, and a second set counts only where there is no first one.
    """
    sizes = {entry.name: entry.stat().st_size for entry in os.scandir(path) if entry.is_file()}
    tensors = {name: size for name, size in sizes.items() if name.endswith(".safetensors")}
    first = {name: size for name, size in tensors.items() if not name.startswith("consolidated")}
    tensors = first or tensors
    trouble = ""
    listed = _listed(os.path.join(path, INDEX)) if INDEX in sizes else frozenset()
    absent = sorted((listed or frozenset()) - set(tensors))
    if listed is None:
        trouble = f"has an {INDEX} that can't be read"
    elif absent:
        trouble = f"lacks {len(absent)} of {len(listed)} files of {INDEX}, such as {absent[0]}"
    elif listed:
        tensors = {name: size for name, size in tensors.items() if name in listed}
    others = tuple(
        sorted(name for name in sizes if name.endswith((".gguf", ".bin", ".pt", ".pth")))
    )
    config, problem = _config(os.path.join(path, "config.json"))
    return ModelFiles(
        present=True,
        weights=sum(tensors.values()) if tensors and not trouble else None,
        config=config,
        origin=f"{len(tensors)} safetensors file(s) in {path}",
        other_formats=() if tensors else others,
        trouble=trouble or problem or ("" if tensors else "holds no *.safetensors"),
    )


def _listed(path: str) -> frozenset[str] | None:
    try:
        with open(path, encoding="utf-8") as stream:
            return frozenset(json.load(stream)["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _config(path: str) -> tuple[Mapping[str, Any] | None, str]:
    try:
        with open(path, encoding="utf-8") as stream:
            config = json.load(stream)
    except FileNotFoundError:
        return None, "holds no config.json"
    except (OSError, ValueError) as error:
        return None, f"config.json can't be read ({error})"
    return (config, "") if isinstance(config, Mapping) else (None, "config.json is no mapping")


def _at_hub(
    source: Mapping[str, Any], hub_url: str, fetch: Fetch, declared: int | None
) -> ModelFiles:
    asked = _Asked(f"{hub_url}/{source['hub']}/resolve/{source['revision']}", fetch)
    config = asked.mapping("config.json")
    if declared:
        return ModelFiles(False, declared, config, "declared", notes=tuple(asked.notes))
    weights, notes = asked.size()
    origin = "the hub's index" if weights else ""
    return ModelFiles(False, weights, config, origin, notes=(*asked.notes, *notes))


class _Asked:
    """What a hub is asked for one model; ``notes`` says what it didn't tell, and why."""

    def __init__(self, base: str, fetch: Fetch) -> None:
        self.notes: list[str] = []
        self._base = base
        self._fetch = fetch
        self._silent = False

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        """Return a file that holds a JSON mapping; None, and a note, when it can't be had."""
        answer = self._ask("GET", name)
        if answer is None:
            return None
        try:
            content = json.loads(answer[0])
        except ValueError as error:
            self._note("GET", name, f"the answer is no JSON ({error})")
            return None
        if not isinstance(content, Mapping):
            self._note("GET", name, "the answer is no mapping")
            return None
        return content

    def size(self) -> tuple[int | None, list[str]]:
        """Return the size of the weights, or the notes why it isn't known.

        A model has an index or is one file, so that one of both is not there is no trouble.
        """
        before, self.notes = self.notes, []
        index = self.mapping(INDEX)
        metadata = (index or {}).get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
        if index is not None and total is None:
            self._note("GET", INDEX, "it names no total_size")
        if total is None:
            answer = self._ask("HEAD", SINGLE)
            headers = answer[1] if answer else {}
            total = headers.get("x-linked-size") or headers.get("content-length")
            if answer and not total:
                self._note("HEAD", SINGLE, "the answer tells no size")
        weights = None
        try:
            weights = int(total) if total else None
        except (TypeError, ValueError):
            self._note("GET", INDEX, f"the size is {total!r}")
        notes, self.notes = self.notes, before
        return weights, [] if weights else notes

    def _ask(self, method: str, name: str) -> tuple[bytes, Mapping[str, str]] | None:
        if self._silent:  # each further request would wait as long again
            return None
        try:
            return self._fetch(method, f"{self._base}/{name}")
        except FetchError as error:
            self._silent = not error.status
            self._note(method, name, str(error))
            return None

    def _note(self, method: str, name: str, why: str) -> None:
        self.notes.append(redact(f"{method} {self._base}/{name}: {why}"))
