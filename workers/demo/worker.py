"""A worker process of the demo: a normal failsoft worker whose primary is wrapped by the demo's fault.

Started as ``-m failsoft.workers.demo.worker PIPELINE SWITCH ID``. When ready, it prints the URL of its HTTP server. It
drains on SIGTERM. When its standard input ends, the demo has ended or was killed, and this process exits.
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
    """Runs until SIGTERM or the end of the demo; returns the exit code."""
    file, switch, worker_id = Path(argv[0]), Switch(Path(argv[1])), argv[2]
    logs.configure(terminal=False)
    pipeline = settings.load(file, {})  # {}: ignores the user's environment, which may name a production cluster

    def wrap(session: Model) -> Runs:
        return Faulty(session, switch) if session.model == pipeline.model else session

    threading.Thread(target=_end_with_the_demo, name="demo-watch", daemon=True).start()
    # The id is not claimed: the demo has its own Kafka and starts each id once.
    return serve.run(pipeline, Options(worker_id, metrics_port=0, wrap=wrap), _ready)


def _ready(address: str) -> None:
    print(address, flush=True)


def _end_with_the_demo() -> None:
    # Not sys.stdin: this thread would hold its lock while it waits, which breaks the interpreter's exit.
    with open(0, "rb", buffering=0, closefd=False) as demo:
        while demo.read(1024):
            pass
    os._exit(1)  # no drain: the demo's Kafka is gone too


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
