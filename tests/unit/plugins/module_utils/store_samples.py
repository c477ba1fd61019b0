# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A store on disk for the tests of the audit."""

from __future__ import annotations

import hashlib
import json
import os

from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._store_audit import CONFIG_TYPE

LONG_AGO = 1_700_000_000


def digest_of(content):
    return hashlib.sha256(content).hexdigest()


def blob_path(root, content):
    return root / "blobs" / f"sha256-{digest_of(content)}"


def write_blob(root, content):
    path = blob_path(root, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def write_model(root, name, *layers, config=b"config"):
    """Write a model; the blobs of ``layers`` and its configuration come from their contents."""
    entries = []
    for media_type, content in ((CONFIG_TYPE, config), *(("weights", layer) for layer in layers)):
        write_blob(root, content)
        digest = f"sha256:{digest_of(content)}"
        entries.append({"mediaType": media_type, "digest": digest, "size": len(content)})
    path = root / parse_name(name).manifest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"config": entries[0], "layers": entries[1:]}))
    return path


def write_partial(root, content, completed, record=None):
    """Write an unfinished download of a blob; return its two files."""
    data = root / "blobs" / f"sha256-{digest_of(content)}-partial"
    part = data.with_name(f"{data.name}-0")
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_bytes(b"\0" * len(content))
    state = {"N": 0, "Offset": 0, "Size": len(content), "Completed": completed}
    part.write_text(json.dumps(state) if record is None else record)
    for path in (data, part):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return data, part
