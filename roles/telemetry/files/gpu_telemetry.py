# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Collects the readings of all GPUs: a CSV line per GPU, Prometheus textfiles, events.

Without ``--stream`` it takes one sample and ends: exit status 0 sampled, 1 the GPUs could not be
read, 2 not everything could be written. With it, it takes one every ``--interval`` seconds until
a signal ends it. With ``--forget`` no sample is taken: a GPU that was taken out is missed no more.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from gpu_files import WriteError
from gpu_reader import READER, CollectError, collect
from gpu_record import ForgetError, Paths, Recorder, utc
from gpu_xids import PROGRAM, Search


def take_one(options: argparse.Namespace, recorder: Recorder) -> int:
    """Take one sample and write it down; return the exit status."""
    search = Search(options.xid_program, options.xids) if options.xids else None
    begin, now = time.monotonic(), utc(time.time())
    sample, error = None, None
    try:
        sample = collect(options.reader, options.timeout, recorder.left)
    except CollectError as failed:
        error = failed
        print(f"{failed.state}: {failed}", file=sys.stderr)
    seconds = round(time.monotonic() - begin, 3)
    found = search.result(wait=True) if search else None
    if sample is not None:
        recorder.sampled(sample, found)
    elif error is not None:
        recorder.failed(error, now, seconds, found)
    return 0 if error is None else 1


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Collect the readings of all GPUs.")
    parser.add_argument(
        "--csv", type=Path, required=True, help="stable name of the CSV files; events lie beside it"
    )
    parser.add_argument("--textfile", type=Path, required=True, help="Prometheus textfile")
    parser.add_argument("--dcgm", type=Path, help="second textfile, with DCGM's classic names")
    parser.add_argument("--xids", type=Path, help="history of Xid messages that is kept up to date")
    parser.add_argument("--keep-days", type=int, default=365, help="how long files and events stay")
    parser.add_argument("--interval", type=float, default=300.0, help="seconds between samples")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds that the driver has")
    parser.add_argument("--stream", action="store_true", help="go on until a signal comes")
    parser.add_argument("--forget", metavar="UUID", help="miss a GPU no more that was taken out")
    parser.add_argument("--reader", type=Path, default=READER, help=argparse.SUPPRESS)
    parser.add_argument("--xid-program", type=Path, default=PROGRAM, help=argparse.SUPPRESS)
    parser.add_argument("--xid-interval", type=float, default=60.0, help=argparse.SUPPRESS)
    return parser


def main(given: list[str] | None = None) -> int:
    """Parse the command line and collect."""
    options = arguments().parse_args(given)
    paths = Paths(options.csv, options.textfile, options.dcgm, options.xids)
    if options.stream and options.forget is None:
        from gpu_service import Service  # noqa: PLC0415 - a single sample is cheaper without it

        return Service(options, paths).run()
    try:
        recorder = Recorder(paths, options.keep_days, options.interval)
        if options.forget is not None:
            print(recorder.forget(options.forget, utc(time.time())))
            return 0
        return take_one(options, recorder)
    except ForgetError as error:
        print(error, file=sys.stderr)
        return 1
    except WriteError as error:
        print(f"not_written: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
