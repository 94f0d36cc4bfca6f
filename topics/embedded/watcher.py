"""A process that runs a command and sees to it that the command ends with whoever started this process.

Started by path, as ``python -I -S watcher.py PARENT DOOMED LOG FILES COMMAND…``: it imports nothing but the standard
library, so that it is small and cannot fail for the reasons that its parent fails. It prints the command's process id,
then obeys the lines on its standard input: ``stop`` (SIGTERM) and ``kill`` (SIGKILL). The end of that input means that
the parent is gone, however it went: kernels close a dead process's pipes, even after ``kill -9``.

``DOOMED`` is a directory to remove when the parent is gone, or empty: then what the command keeps is worth a clean end.
``FILES`` are the open files that the command inherits, as numbers with commas: the lock on its data.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

GRACE = 10.0
"""Seconds that a command with data to keep gets to end by itself. An idle broker needs about one."""

POLL = 0.2
"""Seconds between two looks at the command and at the parent: what a restart may wait for nothing."""

PARENT_GONE = b""
# Also in models/runtime/parent_death.py, which topics may not import.
PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code (128 + the signal that ended it, as shells do)."""
    parent, doomed, log, files, *command = argv
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda *_: orders.put(PARENT_GONE))
    with open(log, "ab") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            pass_fds=[int(file) for file in files.split(",") if file],
            preexec_fn=_death_signal(),
        )
    print(child.pid, flush=True)
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    while child.poll() is None:
        try:
            order = orders.get(timeout=POLL)
        except queue.Empty:
            # A fork of the parent's may hold the pipe open after the parent died: then only the parent's id tells.
            if os.name != "posix" or os.getppid() == int(parent):
                continue
            order = PARENT_GONE
        if order == b"stop":
            child.terminate()
        elif order == b"kill":
            child.kill()
        else:
            _end(child, doomed)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _listen(orders: queue.SimpleQueue[bytes]) -> None:
    # Not through sys.stdin: its lock, held by this thread while it waits, would break the interpreter's exit.
    with open(0, "rb", buffering=0, closefd=False) as orders_in:
        for line in orders_in:
            orders.put(line.strip())
    orders.put(PARENT_GONE)


def _end(child: subprocess.Popen[bytes], doomed: str) -> None:
    if not doomed:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    child.kill()
    child.wait()
    if doomed:
        shutil.rmtree(doomed, ignore_errors=True)


def _death_signal() -> Callable[[], None] | None:
    """Linux kills the command when this process dies, so that ``kill -9`` of the watcher leaves no orphan either.

    Not set by the parent itself: the signal comes when the *thread* that forked ends, and a parent's thread may.
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    libc = ctypes.CDLL(None)

    def die_with_me() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return die_with_me


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
