# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Opens device nodes as a service's account would; a program that stands alone.

It is run as a child (its text after ``python -c``, then one JSON argument) and killed when a
driver doesn't let go of it. Each line is printed at once, so that a killed child tells which node
it was opening: ``{"opening": path}``, then ``{"opened": path, "ok": true}`` or the same with
``false`` and a ``message``; ``{"error": text}`` when it can't become that account.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import Any


def say(line: dict[str, Any]) -> None:
    """Print one line at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def become(account: dict[str, Any] | None) -> None:
    """Take the groups, then the group, then the user of an account; none: stay who we are.

    Raises:
        OSError: only root can become somebody else.
    """
    if account is None or (account["uid"] == os.geteuid() and os.geteuid() != 0):
        return
    os.setgroups(account["groups"])
    os.setresgid(account["gid"], account["gid"], account["gid"])
    os.setresuid(account["uid"], account["uid"], account["uid"])


def open_node(path: str) -> dict[str, Any]:
    """Open a node for reading and writing, as the driver's libraries do, and close it."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        return {"opened": path, "ok": False, "message": f"{error.strerror} ({name})"}
    return {"opened": path, "ok": True}


def main() -> int:
    """Open what the argument lists; 0 when that was done, whatever came of it."""
    settings = json.loads(sys.argv[1])
    try:
        become(settings["account"])
    except OSError as error:
        say({"error": f"{error.strerror or error}"})
        return 1
    for path in settings["paths"]:
        say({"opening": path})
        say(open_node(path))
    return 0


if __name__ == "__main__":
    os._exit(main())  # closing what is left open is the kernel's work
