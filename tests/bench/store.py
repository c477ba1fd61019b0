# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``bench/store``: what verifying, planning and an idle run of the model catalog cost.

The verification and as many processes of ``sha256sum`` as there are cores read the same files, the
largest first, in turns, so that other work on the machine meets both; the ratio is taken within a
pair. ``openssl dgst`` does the same where it is installed, because the ``sha256sum`` of some
distributions doesn't use what the processor has for SHA-256. Prints figures, asserts nothing.

    store.py [ROUNDS]
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sim"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))

from catalog_host import Catalog
from harness import start_ollama, start_registry

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog as catalog
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils import _ollama_store as stores
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import REGISTRY, Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._page_cache import cached_windows
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import Remote
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import Ledger
from ansible_collections.hx_infra.llm.plugins.module_utils._store_verify import cores, verify

MIB = 1024 * 1024
SIZES = [size * MIB for size in (256, 192, 160, 128, 96, 64, 64, 32, 16, 8, 4, 2, 1, 1)]
MANY = 10_000  # blobs of the store that is checked again
MANY_SIZE = 2 * MIB  # of each; they are sparse, so that they need no disk
MODELS = (10, 100, 1000)
LAYERS = 6  # blobs of a planned model: five of its own and a licence that all share
REPEATS = 5


def real_files(blobs):
    """Write files that look like the blobs of a few models; return them, the largest first."""
    found = []
    for number, size in enumerate(SIZES):
        part, checksum = os.urandom(MIB), hashlib.sha256()
        temporary = blobs / f"writing-{number}"
        with temporary.open("wb") as stream:
            for turn in range(size // MIB):
                chunk = turn.to_bytes(8, "big") + part[8:]
                checksum.update(chunk)
                stream.write(chunk)
            os.fsync(stream.fileno())
        found.append(temporary.rename(blobs / f"sha256-{checksum.hexdigest()}"))
    return found


def sparse_files(blobs):
    """Make many blobs of zeros whose lengths differ, so that their digests do."""
    checksum = hashlib.sha256(b"\0" * MANY_SIZE)
    for number in range(MANY):
        path = blobs / f"sha256-{checksum.hexdigest()}"
        with path.open("wb") as stream:
            stream.truncate(MANY_SIZE + number)
        checksum.update(b"\0")


def cool(paths):
    """Have files dropped from the page cache; tell whether they are."""
    for path in paths:
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            if any(cached_windows(descriptor, path.stat().st_size)):
                return False
        finally:
            os.close(descriptor)
    return True


def warm(paths):
    """Read files into the page cache."""
    subprocess.run(["cat", *paths], stdout=subprocess.DEVNULL, check=True)


def ours(root, _paths):
    """Verify all blobs of a store as the modules do; return the seconds."""
    begin = time.perf_counter()
    store = stores.read_store(str(root))
    found = verify(store, list(store.blobs), Ledger(None), full=True)
    seconds = time.perf_counter() - begin
    if found.corrupt or found.unreadable:
        sys.exit(f"blobs that are good were found bad: {found}")
    return seconds


def by_program(*command):
    """Return a function that hashes files with a program, a process per core."""

    def run(_root, paths):
        begin = time.perf_counter()
        subprocess.run(
            ["xargs", "-0", "-n", "1", "-P", str(cores()), *command],
            input=b"\0".join(os.fsencode(path) for path in paths),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - begin

    return run


def reading(folder, rounds, show):
    """Compare the rates of reading and hashing, cold and warm."""
    root = folder / "real"
    (root / "blobs").mkdir(parents=True)
    paths = real_files(root / "blobs")
    total = sum(path.stat().st_size for path in paths)
    peers = {"sha256sum": by_program("sha256sum")}
    if shutil.which("openssl"):
        peers["openssl dgst"] = by_program("openssl", "dgst", "-sha256")
    print(f"{len(paths)} files, {total / 1e9:.2f} GB, {cores()} workers or processes")
    for state, prepare in (("cold", cool), ("warm", warm)):
        rates = {name: [] for name in ("our verification", *peers)}
        ways = {"our verification": ours, **peers}
        for turn in range(rounds):
            for name in list(ways) if turn % 2 else list(ways)[::-1]:
                if prepare(paths) is False:
                    print(f"{state}: the files can't be dropped from the page cache here; skipped")
                    break
                rates[name].append(total / ways[name](root, paths) / 1e6)
            else:
                continue
            break
        else:
            tell_rates(state, rates, show)
    shutil.rmtree(root)


def tell_rates(state, rates, show):
    for name, found in rates.items():
        show(f"{name}, {state}", found, "MB/s")
    for name in list(rates)[1:]:
        ratios = [mine / its for mine, its in zip(rates["our verification"], rates[name])]
        show(f"ratio to {name}, {state}", ratios, "")


def again(folder, rounds, show):
    """Compare checking an unchanged store again with reading it."""
    root = folder / "many"
    (root / "blobs").mkdir(parents=True)
    sparse_files(root / "blobs")
    path = str(folder / "state" / "ledger.json")
    full, repeated, ratios = [], [], []
    for _turn in range(rounds):
        seconds, found = checked(root, path, full=True)
        full.append(seconds)
        once = [checked(root, path, full=False) for _repeat in range(REPEATS)]
        if any(again.read for _seconds, again in once):
            sys.exit("an unchanged store was read again")
        repeated.append(statistics.median(seconds for seconds, _found in once) * 1000)
        ratios.append(repeated[-1] / 10 / full[-1])
    size = f"{found.bytes_read / 1e9:.0f} GB"
    show(f"full check of {MANY:,} blobs, {size}", full, "s")
    show(f"the same store again, {REPEATS} times", repeated, "ms")
    show("again / full", ratios, "%")
    shutil.rmtree(root)


def checked(root, path, *, full):
    """Check a store as a run does, its ledger read and written; return the seconds, too."""
    begin = time.perf_counter()
    store = stores.read_store(str(root))
    ledger = Ledger(path)
    found = verify(store, list(store.blobs), ledger, full=full)
    ledger.save(keep=store.blobs)
    return time.perf_counter() - begin, found


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def world(count, damaged):
    """Return a declaration of models, a store that has them, and offers of those it must get."""
    store, models, offers = stores.Store("/store"), [], {}
    for number in range(count):
        name = parse_name(f"model-{number}:1b")
        models.append({"name": str(name), "digest": digest(name.key)})
        own = [stores.Layer(digest(f"{number} {part}"), 1000) for part in range(LAYERS - 1)]
        layers = (*own, stores.Layer(digest("licence"), 10))
        store.models[name.key] = stores.StoredModel(
            name, digest(name.key), layers, path=name.manifest
        )
        lost = damaged and number % 10 == 0
        for layer in layers[1:] if lost else layers:
            path = f"blobs/sha256-{layer.digest}"
            file = stores.StoredFile(path, layer.digest, layer.size, layer.size, 0.0)
            store.blobs[layer.digest] = file
        if lost:
            remote = Remote("https://registry", (digest(name.key),), layers)
            offers[name.key] = [Offer("registry", REGISTRY, remote)]
    params = {
        "models": models,
        "forbidden": [],
        "exclusive": False,
        "reserve_bytes": 0,
        "prune_partials": True,
        "partial_min_age_s": 3600,
        "prune_orphans": True,
    }
    return words.read_declaration(params), store, offers


def planning(rounds, show):
    """Measure how long a plan takes, for whole models and with a tenth of them damaged.

    Elapsed time is what is aimed at; the processor's time says the same on a busy machine.
    """
    moment = words.Moment(1e9, frozenset(), True)
    for count in MODELS:
        for damaged in (False, True):
            declaration, store, offers = world(count, damaged)
            taken, computed = [], []
            for _turn in range(rounds * REPEATS):
                begin, cpu = time.perf_counter(), time.process_time()
                plan = catalog.make_plan(declaration, store, offers, moment)
                taken.append((time.perf_counter() - begin) * 1000)
                computed.append((time.process_time() - cpu) * 1000)
            state = "a tenth damaged" if damaged else "all whole"
            show(f"plan for {count:,} models, {state}", taken, "ms", f"{len(plan.changes)} changes")
            show("the same, processor's time", computed, "ms")


def calls(folder, show):
    """Count what a run without changes asks of the engine."""
    with (
        start_registry(folder) as registry,
        start_ollama(folder, "tiny", env={"OLLAMA_NOPRUNE": "1"}) as ollama,
    ):
        module = Catalog(ollama, registry)
        names = module.names()
        module.good(*names)
        before = ollama.log().count("[GIN]")
        if module.good(*names)["changed"]:
            sys.exit("a run without changes has changed something")
        asked = re.findall(r"\[GIN\].*\| +(\S+) +\"([^\"]+)\"", ollama.log())[before:]
        listed = ", ".join(f"{method} {path}" for method, path in asked)
        show(f"requests of a run without changes, {len(names)} models", [len(asked)], "", listed)


def main(rounds, show):
    """Measure and print; the files are removed again."""
    print(f"{os.cpu_count()} cores, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="bench-store-") as name:
        folder = Path(name)
        reading(folder, rounds, show)
        again(folder, rounds, show)
        planning(rounds, show)
        calls(folder, show)


def _show(name, samples, unit, note=""):
    middle = statistics.median(samples)
    spread = f"{min(samples):.2f} .. {max(samples):.2f}"
    print(f"{name:44} {middle:8.2f} {unit:4} ({spread}, n={len(samples)}) {note}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, _show)
