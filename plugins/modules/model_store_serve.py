#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_store_serve
short_description: Serves models of a host to other hosts for a while
version_added: 0.5.0
description:
  - Starts a small read-only web server that gives the manifests and blobs of named models of an
    Ollama store to whoever has the token, so that other hosts copy them over the network between
    them. In M(hx_infra.llm.model_catalog) such a host is a source of the type V(peer).
  - The server is a transient unit of systemd, run as the account that owns the blobs, without
    privileges and with the whole host read only. It ends by itself after O(runtime_max_s), and
    nothing of it survives a restart of the host.
  - The engine isn't involved and goes on serving.
  - A server that runs with the same options, the same models and the same token stays as long as
    half of O(runtime_max_s) is left. Otherwise it is started anew. Those who copy from it go on
    where they were.
options:
  state:
    description: Whether the models are served.
    type: str
    choices: [started, stopped]
    default: started
  id:
    description: Part of the unit's name, which tells several of them on one host apart.
    type: str
    default: models
  store:
    description: The directory with C(blobs) and C(manifests). Required to start.
    type: path
  models:
    description: Names of the models that are served. Each has to be whole. Required to start.
    type: list
    elements: str
    default: []
  token:
    description:
      - What every request has to bring, 20 characters or more. Required to start.
      - It is kept in a file that only the service can read, never in a command line.
    type: str
  address:
    description: The address that it listens at. The default is all of them.
    type: str
    default: 0.0.0.0
  port:
    description: The port that it listens at. V(0) stands for a free one, which RV(port) names.
    type: int
    default: 0
  host:
    description:
      - The name or address by which other hosts reach it, for RV(url). The default is O(address),
        or the host's own name when it listens at all addresses.
    type: str
  allow:
    description: Addresses or networks that may ask. The default is all who have the token.
    type: list
    elements: str
    default: []
  connections:
    description: How many transfers there are at once. Further ones are told to come back.
    type: int
    default: 32
  runtime_max_s:
    description: Seconds after which the server ends.
    type: int
    default: 14400
author:
  - hx_infra.llm contributors (@hx-infra)
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
    details: The port of a server that isn't there yet is known only when O(port) names it.
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - Has to run as root.
  - The traffic isn't encrypted. Blobs are verified by those who copy them, but whoever reads along
    sees the token, which is good for these models until the server ends.
  - Firewalls aren't changed.
"""

EXAMPLES = r"""
- name: Serve a model to the other hosts
  hx_infra.llm.model_store_serve:
    store: /mnt/active_llm_models
    models: ["llama3.2:3b"]
    token: "{{ peer_token }}"
    host: "{{ ansible_host }}"
    allow: [192.0.2.0/24]
  register: serving

- name: Serve it no more
  hx_infra.llm.model_store_serve:
    state: stopped
"""

RETURN = r"""
unit:
  description: Name of the unit.
  returned: always
  type: str
  sample: hx-model-store-serve-models.service
url:
  description: Base URL for the other hosts. Empty when nothing is served, or when it isn't known.
  returned: always
  type: str
  sample: http://192.0.2.10:40123
port:
  description: Where it listens; V(0) when nothing is served, or when it isn't known.
  returned: always
  type: int
models:
  description: The models that are served.
  returned: when O(state=started)
  type: list
  elements: dict
  contains:
    name:
      description: The model.
      type: str
    digest:
      description: Its digest.
      type: str
    size_bytes:
      description: Its size.
      type: int
ends_in_s:
  description: Seconds until the server ends.
  returned: when O(state=started)
  type: int
actions:
  description: What was done, or would be done in check mode, in sentences.
  returned: always
  type: list
  elements: str
"""

import ipaddress
import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _store_serve as serve
from ansible_collections.hx_infra.llm.plugins.module_utils import _store_serve_unit as units
from ansible_collections.hx_infra.llm.plugins.module_utils._engine_unit import Runner
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_archive import whole_models
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    StoredModel,
    read_store,
)

MIN_TOKEN = 20
ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "id": {"type": "str", "default": "models"},
    "store": {"type": "path"},
    "models": {"type": "list", "elements": "str", "default": []},
    "token": {"type": "str", "no_log": True},
    "address": {"type": "str", "default": "0.0.0.0"},  # noqa: S104
    "port": {"type": "int", "default": 0},
    "host": {"type": "str"},
    "allow": {"type": "list", "elements": "str", "default": []},
    "connections": {"type": "int", "default": 32},
    "runtime_max_s": {"type": "int", "default": 14400},
}


def run(
    params: dict[str, Any], check_mode: bool, command: Runner, place: units.Place
) -> dict[str, Any]:
    """Bring the server to the wanted state, or say what would be done.

    Raises:
        HostError: that failed, or an option makes no sense.
    """
    if params["state"] == "stopped":
        return _stopped(check_mode, command, place)
    if not params["models"]:
        raise HostError(f"no models are named for {place.unit}.")
    models = whole_models(read_store(params["store"]), params["models"])
    serving = _serving(params, models)
    standing = serve.observe(command, place)
    changed = not serve.as_wanted(standing, serving, place)
    port, left_s = params["port"], float(params["runtime_max_s"])
    if changed and not check_mode:
        standing = serve.start(command, serving, place)
    if standing and not (changed and check_mode):
        port, left_s = standing.port, standing.left_s
    names = ", ".join(str(model.name) for model in models)
    return {
        "changed": changed,
        "actions": [f"Serve {names} by {place.unit}."] if changed else [],
        "unit": place.unit,
        "port": port,
        "url": serve.url_of(_host(params), port) if port else "",
        "ends_in_s": int(left_s),
        "models": [
            {"name": str(model.name), "digest": model.digest, "size_bytes": model.size}
            for model in models
        ],
    }


def _stopped(check_mode: bool, command: Runner, place: units.Place) -> dict[str, Any]:
    changed = serve.remains(command, place)
    if changed and not check_mode:
        serve.stop(command, place)
    actions = [f"Stop {place.unit}."] if changed else []
    return {"changed": changed, "actions": actions, "unit": place.unit, "port": 0, "url": ""}


def _serving(params: dict[str, Any], models: list[StoredModel]) -> units.Serving:
    token = params["token"]
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
        raise HostError(
            f"the token has {len(token)} characters, wanted at least {MIN_TOKEN}, printable "
            "and of ASCII."
        )
    try:
        allow = tuple(str(ipaddress.ip_network(text)) for text in params["allow"])
        ipaddress.ip_address(params["address"])
    except ValueError as error:
        raise HostError(f"the options address and allow want addresses: {error}.") from error
    for option, least in (("connections", 1), ("runtime_max_s", 60), ("port", 0)):
        if params[option] < least:
            raise HostError(f"{option} is {params[option]}, wanted {least} or more.")
    owner = units.blob_owner(params["store"])
    return units.Serving(
        ident=params["id"],
        root=params["store"],
        manifests=tuple(sorted(model.path or model.name.manifest for model in models)),
        address=params["address"],
        port=params["port"],
        allow=allow,
        token=token,
        owner=owner,
        connections=params["connections"],
        lifetime_s=params["runtime_max_s"],
        python=units.interpreter(owner[0]),
    )


def _host(params: dict[str, Any]) -> str:
    if params["host"]:
        return str(params["host"])
    everywhere = ipaddress.ip_address(params["address"]).is_unspecified
    return platform.node() if everywhere else str(params["address"])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        required_if=[("state", "started", ("store", "models", "token"))],
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8"}
    try:
        place = units.Place(module.params["id"])
        result = run(
            module.params,
            module.check_mode,
            lambda argv: module.run_command(list(argv)),
            place,
        )
    except HostError as error:
        module.fail_json(msg=f"{platform.node()}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
