"""A worker process of the demo's: a failsoft worker like any other, but for the fault between it and its primary.

Started as ``-m failsoft.workers.demo.worker PIPELINE SWITCH ID``. When it is ready it prints where its /metrics are. It
drains on SIGTERM; when its standard input ends the demo is gone, however it went, and so is this process.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from failsoft.workers import settings
from failsoft.workers.demo.fault import Faulty, Switch
from failsoft.workers.execution.runner import Runs
from failsoft.workers.process import serve
from failsoft.workers.process.composition import Options
from failsoft.workers.serving.loader import Model
from failsoft.workers.telemetry import logs


def main(argv: list[str]) -> int:
    """Runs until SIGTERM or the end of the demo; the exit code."""
    file, switch, worker_id = Path(argv[0]), Switch(Path(argv[1])), argv[2]
    logs.configure(terminal=False)
    pipeline = settings.load(file, {})  # not the user's environment: it may point to a cluster that is in earnest

    def wrap(session: Model) -> Runs:
        return Faulty(session, switch) if session.model == pipeline.model else session

    threading.Thread(target=_end_with_the_demo, name="demo-watch", daemon=True).start()
    # No claim on the id: this Kafka is the demo's own, and it starts one of each.
    return serve.run(pipeline, Options(worker_id, metrics_port=0, wrap=wrap), _ready)


def _ready(address: str) -> None:
    print(address, flush=True)


def _end_with_the_demo() -> None:
    # Not through sys.stdin: its lock, held by this thread while it waits, would break the interpreter's exit.
    with open(0, "rb", buffering=0, closefd=False) as demo:
        while demo.read(1024):
            pass
    os._exit(1)  # its Kafka is gone too: there is nothing to drain into


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
