"""`python -m tests.fuzz [TARGET ...] --seconds N --seed S`: runs each target for N seconds and minimises failing
inputs.

A failing input is written to the folder ``.fuzz``. Once it is fixed, move it to ``tests/fuzz/corpus`` with its reason.
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
"""Examples that run with one seed; the time is checked after each such round."""

FOUND = Path(".fuzz")


def fuzz(target: Target, seconds: float, first_seed: int) -> tuple[int, int, list[str]]:
    """Runs one target for ``seconds``.

    Returns the number of examples, how many of them were accepted, and a line for the failing input, if any. A target
    ends with its first failing input, because later ones may have the same cause.
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
                return  # end the minimising: the case is small enough by now
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
            frame = traceback.extract_tb(error.__traceback__)[-1]
            failure = f"{type(error).__name__}: {str(error)[:300]} ({Path(frame.filename).name}:{frame.lineno})"
            return ran, accepted, [f"{path} (seed {number}, {len(last)} bytes): {failure}"]
        number += 1
    return ran, accepted, []


def main() -> int:
    """Returns 1 when a failing input was found, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"any of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (60)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first round (1); each next round adds 1")
    options = parser.parse_args()
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target {unknown[0]!r}: choose from {', '.join(TARGETS)}")
    logging.disable()
    found: list[str] = []
    for name in options.targets or TARGETS:
        ran, accepted, cases = fuzz(TARGETS[name], options.seconds, options.seed)
        print(f"{name:<12} {ran:>9,} examples, {accepted:>9,} accepted  {'; '.join(cases) or 'ok'}", flush=True)
        found += cases
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
