#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: integration_check
short_description: Check the services that an inference host depends on, each in its own protocol
version_added: 0.2.0
description:
  - Logs in to PostgreSQL, Redis, Qdrant, Prometheus and Grafana from the host that it runs on,
    reads their versions and asks each for an answer. An open port isn't taken as proof of a
    service.
  - All are checked at once. Every step has its deadline, so that a service that hangs takes a
    known number of seconds and delays no other.
  - Nothing is changed, neither on the host nor on the services.
  - PostgreSQL's login by clear text is only answered with TLS or on the loopback interface. Channel
    binding isn't used. Of Qdrant's gRPC port it is checked that it speaks HTTP/2.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
    details:
      - Checks just as in a real run, because nothing is changed.
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    platforms: posix
options:
  integrations:
    description: The services.
    type: list
    elements: dict
    required: true
    suboptions:
      kind:
        description: Kind of the service.
        type: str
        choices: [postgresql, redis, qdrant, prometheus, grafana]
        required: true
      name:
        description:
          - Name in messages and verdicts.
          - The kind when not given.
        type: str
      host:
        description: Name or address of the service as the host that checks sees it.
        type: str
        required: true
      port:
        description:
          - Its port.
          - When not given, V(5433) for PostgreSQL, V(6379) for Redis, V(6333) for Qdrant, V(9090)
            for Prometheus and V(3000) for Grafana.
        type: int
      tls:
        description: Whether TLS is spoken.
        type: bool
        default: false
      validate_certs:
        description: Whether the certificate is checked.
        type: bool
        default: true
      ca_path:
        description:
          - File with the certificates of the authorities to trust, on the host that checks.
          - The system's authorities when empty.
        type: path
      user:
        description:
          - Account to log in with; PostgreSQL needs one.
          - Without it, O(integrations[].password) is a password of Redis' default user, Qdrant's
            API key, or a bearer token of Prometheus or Grafana.
        type: str
        default: ""
      password:
        description: Password, API key or token.
        type: str
      password_file:
        description:
          - File with it on the host that checks, in one line. Others than its owner and group must
            not be able to read it.
        type: path
      database:
        description: PostgreSQL's database.
        type: str
        default: postgres
      version_min:
        description: Oldest version that will do, such as V(15) or V(7.0).
        type: str
        default: ""
      version_max:
        description: Newest version that will do; V(15) takes in every 15.x.
        type: str
        default: ""
      required:
        description: Whether what fails is V(FAIL); otherwise it is V(WARN).
        type: bool
        default: true
      path:
        description:
          - What stands before the paths of an HTTP service behind a proxy, such as V(/grafana).
        type: str
        default: ""
      grpc_port:
        description: Qdrant's gRPC port. V(0) leaves it out.
        type: int
        default: 6334
      job:
        description: A job of Prometheus of which all targets have to be up. Not judged when empty.
        type: str
        default: ""
      instance:
        description: The one target of O(integrations[].job) to judge, such as V(llm-01:9100).
        type: str
        default: ""
      datasources:
        description: Names of data sources that Grafana has to have.
        type: list
        elements: str
        default: []
  timeout:
    description: Seconds for each step, such as finding the address, connecting, or one answer.
    type: float
    default: 5.0
  fail_on:
    description:
      - The verdict from which the module fails, with all problems in its message.
      - The results are returned in any case.
    type: str
    choices: [never, WARN, FAIL]
    default: FAIL
  host:
    description:
      - Name of the host in messages.
      - The system's node name by default.
    type: str
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Check what this host depends on
  hx_infra.llm.integration_check:
    integrations:
      - kind: postgresql
        host: db-01.example.com
        user: citadel
        password_file: /etc/hx-llm/postgresql.password
        database: citadel
        version_min: "15"
      - kind: redis
        host: cache-01.example.com
        password: "{{ vault_redis_password }}"
      - kind: grafana
        host: metrics-01.example.com
        required: false
"""

RETURN = r"""
actions:
  description: Always empty; nothing is changed.
  returned: always
  type: list
  elements: str
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
verdicts:
  description:
    - One verdict per check, as far as a service could be checked. The checks are C(reachable),
      C(authenticated), C(version) and C(ready), for Qdrant C(grpc_reachable), for Prometheus
      C(targets_up), for Grafana C(datasources).
    - C(authenticated) is V(WARN) where a service answers without the credentials that are declared.
  returned: always
  type: list
  elements: dict
integrations:
  description: One entry per service, in the order of the declaration.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The name.
      type: str
    kind:
      description: The kind.
      type: str
    host:
      description: The host.
      type: str
    port:
      description: The port.
      type: int
    required:
      description: Whether its failures count.
      type: bool
    status:
      description: The gravest of its verdicts.
      type: str
    reachable:
      description: Status of that check; empty when it wasn't reached.
      type: str
    authenticated:
      description: The same of this check.
      type: str
    version:
      description: The same of this check.
      type: str
    ready:
      description: The same of this check.
      type: str
    found_version:
      description: The version that the service has.
      type: str
    role:
      description: Primary or standby of PostgreSQL, master or replica of Redis.
      type: str
    tls:
      description: Version of TLS; empty without.
      type: str
    connect_ms:
      description: Time to connect, in milliseconds, TLS left out.
      type: float
    answer_ms:
      description: Time of one answer, in milliseconds.
      type: float
    cause:
      description: >-
        A word for the failure that ended the check, such as V(name), V(refused), V(timeout),
        V(silent), V(wrong_service), V(certificate), V(password), V(password_missing), V(database)
        or V(not_ready).
      type: str
    problems:
      description: All its problems in sentences.
      type: list
      elements: str
table:
  description: The same for people, as lines of text.
  returned: always
  type: list
  elements: str
problems:
  description: All problems of all services, in sentences.
  returned: always
  type: list
  elements: str
"""

import os
import platform
import stat
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_judge import (
    judge,
    row,
    table,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    Found,
    IntegrationError,
    Wanted,
    problems,
    wanted_from,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_run import check_all
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    as_dicts,
    failure_message,
)

SERVICE: dict[str, dict[str, Any]] = {
    "kind": {
        "type": "str",
        "choices": ["postgresql", "redis", "qdrant", "prometheus", "grafana"],
        "required": True,
    },
    "name": {"type": "str"},
    "host": {"type": "str", "required": True},
    "port": {"type": "int"},
    "tls": {"type": "bool", "default": False},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "user": {"type": "str", "default": ""},
    "password": {"type": "str", "no_log": True},
    "password_file": {"type": "path", "no_log": False},
    "database": {"type": "str", "default": "postgres"},
    "version_min": {"type": "str", "default": ""},
    "version_max": {"type": "str", "default": ""},
    "required": {"type": "bool", "default": True},
    "path": {"type": "str", "default": ""},
    "grpc_port": {"type": "int", "default": 6334},
    "job": {"type": "str", "default": ""},
    "instance": {"type": "str", "default": ""},
    "datasources": {"type": "list", "elements": "str", "default": []},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "integrations": {"type": "list", "elements": "dict", "required": True, "options": SERVICE},
    "timeout": {"type": "float", "default": 5.0},
    "fail_on": {"type": "str", "choices": ["never", "WARN", "FAIL"], "default": "FAIL"},
    "host": {"type": "str"},
}


def secret_of(path: str) -> str:
    """Return what a credential file holds.

    Raises:
        IntegrationError: the file can't be used.
    """
    wanted = "Wanted: a file with one line that only its owner and group can read."
    try:
        with open(path, encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(65536).strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it holds no text"
        message = f"password_file {path} can't be read: {said}"
        raise IntegrationError("authenticated", message, wanted, "password_file") from error
    if mode & stat.S_IRWXO:
        message = f"password_file {path} has mode {mode:04o}, so that everybody can use it"
        raise IntegrationError("authenticated", message, wanted, "password_file")
    if not text or "\n" in text:
        message = f"password_file {path} has {len(text.splitlines())} lines"
        raise IntegrationError("authenticated", message, wanted, "password_file")
    return text


def run(
    params: dict[str, Any], host: str, secrets: Callable[[str], str] = secret_of
) -> dict[str, Any]:
    """Check everything that is declared and return the module's result."""
    all_wanted: list[Wanted] = []
    locked: dict[int, IntegrationError] = {}
    for index, entry in enumerate(params["integrations"]):
        given = dict(entry)
        if entry["password_file"]:
            try:
                given["password"] = secrets(entry["password_file"])
            except IntegrationError as trouble:
                locked[index] = trouble
        all_wanted.append(wanted_from(given, params["timeout"]))
    usable = [wanted for index, wanted in enumerate(all_wanted) if index not in locked]
    checked = iter(check_all(usable))
    verdicts, rows = [], []
    for index, wanted in enumerate(all_wanted):
        found = Found(trouble=locked[index]) if index in locked else next(checked)
        judged = judge(wanted, found)
        verdicts += judged
        rows.append(row(wanted, found, judged, host))
    return {
        "changed": False,
        "actions": [],
        "plan": [],
        "verdicts": as_dicts(verdicts),
        "integrations": rows,
        "table": table(rows),
        "problems": [problem for entry in rows for problem in entry["problems"]],
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    host = params["host"] or platform.node()
    wrong = problems(params["integrations"])
    if params["timeout"] <= 0:
        wrong.append(f"timeout: found {params['timeout']:g}, wanted seconds above 0")
    if wrong:
        module.fail_json(msg="\n".join(f"{host}: {problem}" for problem in wrong))

    def secrets(path: str) -> str:
        secret = secret_of(path)
        module.no_log_values.add(secret)
        return secret

    result = run(params, host, secrets)
    grave = failure_message(result["verdicts"], params["fail_on"], host)
    if grave:
        module.fail_json(msg=grave, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
