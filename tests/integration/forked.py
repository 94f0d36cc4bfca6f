"""Workers of several pipelines, forked from one process, so that the imports, most of a start, are paid once.

Run ``python -m tests.integration.forked FOLDER...``. Each folder has a pipeline.toml. Its worker logs to
the folder's worker.log, and its exit code is written to worker.ended. The process ends when all workers have ended.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from failsoft.workers import settings
from failsoft.workers.process import serve
from failsoft.workers.process.composition import Options
from failsoft.workers.telemetry import logs

LOG, ENDED = "worker.log", "worker.ended"


def _work(folder: Path) -> int:
    """The exit code of the worker of ``folder``, whose output goes to its log."""
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logs.configure(terminal=False)
    pipeline = settings.load(folder, {})
    return serve.run(pipeline, Options("w0"), lambda address: print("is ready", address, flush=True))


def main(folders: list[str]) -> int:
    """Forks a worker for each folder and waits for all. Returns 0 if each returned 0."""
    children: dict[int, Path] = {}
    for folder in folders:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = _work(Path(folder))
            finally:
                if sys.exc_info()[1] is not None:
                    traceback.print_exc()
                sys.stdout.flush()
                os._exit(code)
        children[child] = Path(folder)
    codes = []
    while children:
        child, status = os.wait()
        codes.append(os.waitstatus_to_exitcode(status))
        (children.pop(child) / ENDED).write_text(str(codes[-1]))
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
