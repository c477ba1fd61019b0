# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Checking all integrations at once, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _integration_grafana,
    _integration_postgres,
    _integration_prometheus,
    _integration_qdrant,
    _integration_redis,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_identify import explain
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    Found,
    IntegrationError,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_wire import (
    Dialer,
    tls_context,
)

PROTOCOLS: dict[str, Callable[[Wanted, Dialer, Found], None]] = {
    "postgresql": _integration_postgres.check,
    "redis": _integration_redis.check,
    "qdrant": _integration_qdrant.check,
    "prometheus": _integration_prometheus.check,
    "grafana": _integration_grafana.check,
}


def check_one(wanted: Wanted) -> Found:
    """Check one integration; every failure is in the result."""
    found = Found()
    try:
        context = tls_context(wanted.ca_path, wanted.validate_certs) if wanted.tls else None
        dial = Dialer(wanted.host, wanted.timeout, context)
        try:
            PROTOCOLS[wanted.kind](wanted, dial, found)
        except IntegrationError as trouble:
            raise explain(wanted, trouble, dial) from trouble
    except IntegrationError as trouble:
        found.trouble = without_secret(trouble, wanted.password)
    return found


def without_secret(trouble: IntegrationError, secret: str) -> IntegrationError:
    """Return the failure without the password: some servers repeat what they were sent."""
    if not secret or secret not in trouble.message:
        return trouble
    message = trouble.message.replace(secret, "********")
    return IntegrationError(trouble.check, message, trouble.remedy, trouble.cause)


def check_all(
    all_wanted: Sequence[Wanted], check: Callable[[Wanted], Found] = check_one
) -> list[Found]:
    """Check all at once, so that one that doesn't answer delays no other."""
    results: list[Found | Exception] = [Found() for _wanted in all_wanted]

    def work(index: int) -> None:
        try:
            results[index] = check(all_wanted[index])
        except Exception as error:  # it is raised again below, where somebody sees it
            results[index] = error

    workers = [
        threading.Thread(target=work, args=(index,), daemon=True)
        for index in range(len(all_wanted))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = []
    for result in results:
        if isinstance(result, Exception):
            raise result
        found.append(result)
    return found
