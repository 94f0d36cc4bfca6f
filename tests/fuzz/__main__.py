"""`python -m tests.fuzz [TARGET ...] --seconds N --seed S`: each target for N seconds; what is found, made small.

A case goes to the folder ``.fuzz``; once it is fixed, it belongs into ``tests/fuzz/corpus`` with its reason.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import time
import traceback
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

ROUND = 2_000
"""Examples between two looks at the clock, and with one seed."""

FOUND = Path(".fuzz")


def fuzz(target: Target, seconds: float, first_seed: int) -> tuple[int, int, list[str]]:
    """Examples run, how many were more than refused, and a line for what was found: a target ends with its first case,
    since others may be the same.
    """
    ran, accepted, last, number = 0, 0, b"", first_seed
    end = time.monotonic() + seconds
    while time.monotonic() < end:

        @seed(number)
        @settings(
            max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
        )
        @given(target.inputs)
        def one(data: bytes) -> None:
            nonlocal ran, accepted, last
            if time.monotonic() > end + 60:
                return  # long enough: a case that is being made small is small enough
            ran += 1
            try:
                accepted += target.run(data)
            except BaseException:
                last = data
                raise

        try:
            one()
        except Exception as error:  # noqa: BLE001
            FOUND.mkdir(exist_ok=True)
            path = FOUND / f"{target.name}-{hashlib.sha256(last).hexdigest()[:8]}"
            path.write_bytes(last)
            where = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__}: {str(error)[:300]} ({Path(where.filename).name}:{where.lineno})"
            return ran, accepted, [f"{path} (seed {number}, {len(last)} bytes): {told}"]
        number += 1
    return ran, accepted, []


def main() -> int:
    """1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all when left out")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the next ones count on")
    asked = parser.parse_args()
    unknown = [name for name in asked.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target {unknown[0]!r}: there are {', '.join(TARGETS)}")
    logging.disable()
    found: list[str] = []
    for name in asked.targets or TARGETS:
        ran, accepted, cases = fuzz(TARGETS[name], asked.seconds, asked.seed)
        print(f"{name:<12} {ran:>9,} examples, {accepted:>9,} accepted  {'; '.join(cases) or 'held'}", flush=True)
        found += cases
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
