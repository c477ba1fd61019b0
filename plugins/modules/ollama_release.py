#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_release
short_description: Installs one release of Ollama from an archive with a checksum
version_added: 0.1.0
description:
  - Downloads a release archive, compares its SHA-256 and puts C(bin/ollama) and C(lib/ollama) into
    place. The library folder is replaced as a whole, because libraries of another version beside
    the binary break its GPU discovery.
  - Does nothing when the installed binary has the declared version. An interrupted installation is
    seen by the next run and done again.
  - Doesn't restart the service; a running server keeps the old version until it is restarted.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    platforms: linux
options:
  version:
    description: The version that has to be installed, for example V(0.11.4).
    type: str
    required: true
  url:
    description:
      - The archive, C(.tgz) or C(.tar.zst), by HTTP or as C(file://). The second needs C(zstd).
    type: str
    required: true
  checksum:
    description:
      - The archive's SHA-256, with or without C(sha256:) in front; or C(sha256:) and the address of
        the release's C(sha256sum.txt), in which the archive's name is looked up.
    type: str
    required: true
  prefix:
    description: Where it is installed.
    type: path
    default: /usr/local
  cache:
    description: A directory for the archive, the staging copy and the marker of an unfinished run.
    type: path
    default: /var/cache/hx-llm
  timeout:
    description: How many seconds a stalled connection is given.
    type: int
    default: 60
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Install Ollama
  hx_infra.llm.ollama_release:
    version: 0.11.4
    url: https://github.com/ollama/ollama/releases/download/v0.11.4/ollama-linux-amd64.tgz
    checksum: sha256:0000000000000000000000000000000000000000000000000000000000000000
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: always
  type: list
  elements: str
plan:
  description: The same as data, with C(action) and C(target).
  returned: always
  type: list
  elements: dict
version_before:
  description: The version that was installed, empty when there was none.
  returned: always
  type: str
version_after:
  description: The version that is installed, in check mode the one that would be.
  returned: always
  type: str
"""

import http.client
import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.hx_infra.llm.plugins.module_utils import _release as release
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import write_atomic


def fetch(url: str, timeout: int) -> Any:
    """Open an address for reading."""
    try:
        return open_url(url, timeout=timeout, http_agent="hx_infra.llm")
    except Exception as error:  # open_url raises a dozen unrelated classes
        raise HostError(f"{url} can't be fetched: {error}.") from error


def archive_name(url: str) -> str:
    return os.path.basename(url.split("?", maxsplit=1)[0])


def resolve_checksum(text: str, url: str, timeout: int) -> str:
    """Return the 64 hex digits, from the text itself or from the list that it points to."""
    source = text[len("sha256:") :] if text.startswith("sha256:") else text
    if "://" not in source:
        return release.parse_checksum(text)
    try:
        listing = fetch(source, timeout).read().decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise HostError(f"{source} can't be fetched: {error!r}.", "Run again.") from error
    return release.checksum_from_list(listing, archive_name(url), source)


def download(url: str, target: str, timeout: int) -> None:
    """Fetch ``url`` into ``target``, under a temporary name until it is complete."""
    partial = target + ".partial"
    response = fetch(url, timeout)
    with open(partial, "wb") as handle:
        try:
            shutil.copyfileobj(response, handle, 1024 * 1024)
        except http.client.HTTPException as error:
            raise HostError(f"{url} broke off: {error!r}.", "Run again.") from error
        handle.flush()
        os.fsync(handle.fileno())
    os.rename(partial, target)


def install(module: AnsibleModule, checksum: str, marker: str) -> None:
    params = module.params
    cache = params["cache"]
    os.makedirs(cache, mode=0o755, exist_ok=True)
    archive = os.path.join(cache, archive_name(params["url"]))
    if not (os.path.isfile(archive) and release.file_sha256(archive) == checksum):
        download(params["url"], archive, params["timeout"])
    release.verify_archive(archive, checksum)
    staging = os.path.join(params["prefix"], "lib", ".ollama.hx-staging")
    release.unpack(archive, staging, module.run_command)
    write_atomic(marker, params["version"].encode())
    release.put_in_place(staging, params["prefix"])
    os.sync()
    os.unlink(marker)
    os.unlink(archive)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "checksum": {"type": "str", "required": True},
            "prefix": {"type": "path", "default": "/usr/local"},
            "cache": {"type": "path", "default": "/var/cache/hx-llm"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    params = module.params
    wanted = params["version"]
    binary = os.path.join(params["prefix"], "bin", "ollama")
    marker = os.path.join(params["cache"], "ollama.unfinished")
    found = release.installed_version(binary, module.run_command)
    plan = release.plan(found, wanted, os.path.exists(marker), params["url"], params["prefix"])
    result: dict[str, Any] = {
        "changed": bool(plan),
        "actions": release.sentences(plan),
        "plan": plan,
        "version_before": found,
        "version_after": wanted,
        "diff": {"before": f"Ollama {found or 'none'}\n", "after": f"Ollama {wanted}\n"},
    }
    try:
        # Also in check mode: a release that can't be verified is refused before anything changes.
        checksum = ""
        if plan:
            checksum = resolve_checksum(params["checksum"], params["url"], params["timeout"])
        if plan and not module.check_mode:
            install(module, checksum, marker)
            after = release.installed_version(binary, module.run_command)
            if after != wanted:
                raise HostError(
                    f"{binary} says version '{after or 'nothing'}' after the installation,"
                    f" wanted {wanted}."
                )
    except (HostError, OSError) as error:
        module.fail_json(msg=f"{os.uname().nodename}: {error}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
