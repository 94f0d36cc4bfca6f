"""The command line of the soak test: ``python -m tests.system.soak``."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import uuid
from pathlib import Path

from benchmarks import machine
from tests.kafka import Broker, start_broker
from tests.system.soak.brokers import Three
from tests.system.soak.report import Report
from tests.system.soak.run import soak
from tests.system.soak.schedule import Fault, Kind, Options, plan
from tests.system.stops import ANONYMOUS, BEFORE_COMMIT, BROKEN, UNSTABLE

TEETH = Options(events=2_400, minutes=0.4, workers=2, partitions=2, brokers=1)
"""The options of a run with workers that are broken on purpose: one stopped worker suffices to show it."""


STOP_AT = {UNSTABLE: "before EndTxn", ANONYMOUS: BEFORE_COMMIT}
"""Where the stopped worker's transaction stands when another worker takes over: with its offsets in it, so that these
are unstable; and not begun, so that its generation is old before its offsets are sent."""

TEETH_AT = 3.0
"""Seconds after the first event: the workers are past their start."""


def teeth(flaw: str) -> tuple[Fault, ...]:
    """One fault: a worker is stopped in a commit, past its session timeout, and continued after the takeover."""
    return (Fault(TEETH_AT, Kind.STOP_IN_COMMIT, 7.0, 0, STOP_AT[flaw]),)


def main() -> int:
    """Returns 0 when the promise was kept and every fault was made, else 1."""
    given = _arguments()
    if given.breaks or given.mends:
        options, schedule = TEETH, teeth(given.breaks or given.mends)
    else:
        options = Options(
            given.events,
            given.minutes,
            given.workers,
            given.partitions,
            given.seed,
            given.brokers,
            frozenset(Kind(kind) for kind in given.without),
        )
        schedule = plan(options)
    if given.schedule:
        print("\n".join(f"{f.at:7.1f} s  {f.kind}, {f.lasts:.1f} s, w{f.victim} {f.moment}" for f in schedule))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # run the clean-up, so that no worker or broker is left
    with contextlib.ExitStack() as stack:
        folder = Path(given.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="failsoft-soak-")))
        _say("starting Kafka …")
        broker: Broker
        if options.brokers == 1:
            broker = start_broker(folder / "kafka" if given.keep else None)
            stack.callback(broker.stop)
        else:
            broker = Three(folder / "kafka")
            stack.callback(broker.stop)
            broker.start()
        name = f"soak-{uuid.uuid4().hex[:6]}"
        report = soak(options, schedule, folder, broker, name, changes=_changes(given), say=_say)
    print(machine.describe() + "\n")
    print(report.render())
    if given.json:
        given.json.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    return _code(report)


def _changes(given: argparse.Namespace) -> list[str]:
    """How the workers differ from the product's. A stopped transaction must not time out before the takeover."""
    if given.breaks:
        return ["patient", given.breaks]
    return ["patient"] if given.mends else []


def _code(report: Report) -> int:
    return 0 if report.kept else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    plain = Options()
    parser = argparse.ArgumentParser(prog="python -m tests.system.soak", description=__doc__)
    parser.add_argument("--events", type=int, default=plain.events, help=f"number of events ({plain.events})")
    parser.add_argument(
        "--minutes", type=float, default=plain.minutes, help=f"duration of the load ({plain.minutes:g})"
    )
    parser.add_argument("--workers", type=int, default=plain.workers, help=f"worker processes ({plain.workers})")
    parser.add_argument("--partitions", type=int, default=plain.partitions, help=f"lanes ({plain.partitions})")
    of = "1 or 3 Kafka brokers; a single one may lose transaction markers when it dies (docs/decisions/0008)"
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=plain.brokers, help=f"{of} ({plain.brokers})")
    parser.add_argument("--seed", type=int, default=plain.seed, help=f"seed of the schedule ({plain.seed})")
    kinds = [kind.value for kind in Kind]
    parser.add_argument("--without", action="append", default=[], choices=kinds, metavar="KIND", help=", ".join(kinds))
    parser.add_argument("--schedule", action="store_true", help="print the faults and exit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="keep logs, pipeline and the embedded Kafka's data in this folder",
    )
    teeth = parser.add_mutually_exclusive_group()
    help = "break the workers on purpose and stop one in a commit: the verifier must find it; exit code 1"
    teeth.add_argument("--break", dest="breaks", choices=BROKEN, help=help)
    help = "the same stop with sound workers: nothing may be found"
    teeth.add_argument("--not-break", dest="mends", choices=BROKEN, help=help)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
