# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Computes nothing, but goes the whole way to each GPU through CUDA; a program that stands alone.

It is run as a child (its text after ``python -c``, then one JSON argument) and killed when the
driver doesn't come back. Per device it takes the primary context, allocates 1 MiB, copies two
patterns there and back, compares, and lets go of everything before it goes on to the next, so that
it never needs more than one context's memory.

Each line is printed at once, so that a killed child tells where it hung: ``{"step": call}``,
with ``"index"`` within a device; ``{"gpu": {...}}`` per device; ``{"done": true}`` at the end, or
``{"error": {...}}`` when CUDA as a whole doesn't work.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import time
from typing import Any

LIBRARY = "libcuda.so.1"
SIZE = 1 << 20
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38  # linux/prctl.h
UUID_BYTES = 16


class CudaError(Exception):
    """A call failed.

    Attributes:
        call: name of the function.
        code: its CUresult.
    """

    def __init__(self, call: str, code: int, message: str) -> None:
        super().__init__(message)
        self.call = call
        self.code = code


def say(line: dict[str, Any]) -> None:
    """Print one line at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Cuda:
    """The driver's library; each call says its name before it is made."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.index: int | None = None

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            CudaError: it did not return CUDA_SUCCESS, or this library has no such function.
        """
        place = {} if self.index is None else {"index": self.index}
        say({"step": name, **place})
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise CudaError(name, -1, f"{name} is not in this {LIBRARY}") from None
        function.restype = ctypes.c_int
        code = function(*arguments)
        if code:
            raise CudaError(name, code, f"{name}: {self._text(code)}")

    def has(self, name: str) -> bool:
        """Tell whether the library has a function."""
        return hasattr(self._library, name)

    def _text(self, code: int) -> str:
        """Return an error in CUDA's words: ``CUDA_ERROR_NO_DEVICE (100): no CUDA-capable ...``."""
        words = []
        for function in ("cuGetErrorName", "cuGetErrorString"):
            text = ctypes.c_char_p()
            known = self.has(function)
            if known and getattr(self._library, function)(code, ctypes.byref(text)) == 0:
                words.append((text.value or b"").decode("utf-8", "replace"))
        if not words or not words[0]:
            return f"error {code}"
        return ": ".join([f"{words[0]} ({code})", *words[1:]])


def identifier(cuda: Cuda, device: ctypes.c_int) -> str:
    """Return the UUID of the physical GPU; the newer call gives the one of a MIG instance."""
    name = "cuDeviceGetUuid" if cuda.has("cuDeviceGetUuid") else "cuDeviceGetUuid_v2"
    raw = (ctypes.c_ubyte * UUID_BYTES)()
    cuda.call(name, ctypes.byref(raw), device)
    text = bytes(raw).hex()
    parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
    return "GPU-" + "-".join(parts)


def patterns() -> tuple[bytes, bytes]:
    """Return two contents of 1 MiB of which every bit differs, and no two 4 KiB are the same."""
    blocks = (number.to_bytes(8, "little") + bytes(range(256)) * 16 for number in range(256))
    first = b"".join(block[:4096] for block in blocks)
    return first, first.translate(bytes(range(255, -1, -1)))


def compare(got: bytes, wanted: bytes) -> None:
    """Compare what came back with what was sent.

    Raises:
        CudaError: it is not the same.
    """
    if got == wanted:
        return
    wrong = [at for at, pair in enumerate(zip(got, wanted)) if pair[0] != pair[1]]
    text = f"{len(wrong)} of {len(wanted)} bytes came back wrong, the first at {wrong[0]}"
    raise CudaError("compare", 0, text)


def there_and_back(cuda: Cuda) -> None:
    """Copy both patterns to the current device and back.

    Raises:
        CudaError: a call failed, or other bytes came back.
    """
    address = ctypes.c_uint64()
    cuda.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(SIZE))
    try:
        back = ctypes.create_string_buffer(SIZE)
        for pattern in patterns():
            size = ctypes.c_size_t(SIZE)
            cuda.call("cuMemcpyHtoD_v2", address, pattern, size)
            ctypes.memset(back, 0x5A, SIZE)
            cuda.call("cuMemcpyDtoH_v2", back, address, size)
            compare(back.raw, pattern)
    finally:
        cuda.call("cuMemFree_v2", address)


def try_device(cuda: Cuda, index: int) -> dict[str, Any]:
    """Go the whole way to one device and say how it went."""
    gpu: dict[str, Any] = {"index": index, "ok": False}
    begin = time.monotonic()
    device, context = ctypes.c_int(), ctypes.c_void_p()
    try:
        cuda.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
        gpu["uuid"] = identifier(cuda, device)
        cuda.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        try:
            cuda.call("cuCtxSetCurrent", context)
            there_and_back(cuda)
        finally:
            release = "cuDevicePrimaryCtxRelease_v2"
            cuda.call(release if cuda.has(release) else release[: -len("_v2")], device)
        gpu.update(ok=True, message="")
    except CudaError as error:
        first = error
        while isinstance(first.__context__, CudaError):  # what failed before the tidying did
            first = first.__context__
        gpu.update(message=str(first), call=first.call, code=first.code)
    gpu["milliseconds"] = round((time.monotonic() - begin) * 1000, 1)
    return gpu


def become(settings: dict[str, Any]) -> None:
    """Take the service's groups and user, and its lack of privileges.

    Raises:
        OSError: only root can become somebody else.
    """
    account = settings["account"]
    if account is not None and (os.geteuid() == 0 or account["uid"] != os.geteuid()):
        os.setgroups(account["groups"])
        os.setresgid(account["gid"], account["gid"], account["gid"])
        os.setresuid(account["uid"], account["uid"], account["uid"])
        control(PR_SET_DUMPABLE)  # as after an exec: /proc/self belongs to this user again
    if settings["no_new_privileges"]:  # the set-user-ID nvidia-modprobe can't make nodes then
        control(PR_SET_NO_NEW_PRIVS)
    os.chdir("/")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def control(option: int) -> None:
    """Switch a property of this process on (prctl)."""
    zero = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(ctypes.c_int(option), ctypes.c_ulong(1), zero, zero, zero)


def prepare_environment() -> None:
    """See all devices, numbered as nvidia-smi does; write no cache."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    os.environ.update(CUDA_DEVICE_ORDER="PCI_BUS_ID", CUDA_CACHE_DISABLE="1")


def main() -> int:
    """Try every device; 0 when CUDA could be asked, 1 when it could not."""
    settings = json.loads(sys.argv[1])
    try:
        become(settings)
    except OSError as error:
        say({"error": {"state": "not_tried", "message": f"{error.strerror or error}"}})
        return 1
    prepare_environment()
    say({"step": "load"})
    try:
        cuda = Cuda(ctypes.CDLL(LIBRARY))
    except OSError as error:
        say({"error": {"state": "no_library", "message": str(error)}})
        return 1
    count = ctypes.c_int()
    try:
        cuda.call("cuInit", ctypes.c_uint(0))
        cuda.call("cuDeviceGetCount", ctypes.byref(count))
    except CudaError as error:
        say({"error": {"state": "failed", "message": str(error), "code": error.code}})
        return 1
    say({"count": count.value})
    for index in range(count.value):
        cuda.index = index
        say({"gpu": try_device(cuda, index)})
    say({"done": True})
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # nothing is left to do, and a sick driver may hang in its exit handlers
