"""Runs a command in a watcher process, which ends the command when the watcher's parent ends.

It is started by path, as ``python -I -S watcher.py PARENT DOOMED LOG FILES COMMAND…``. It imports only the standard
library, so it is small and does not fail for the same reasons as its parent. It prints the command's process id and
then reads orders from its standard input: ``stop`` (SIGTERM) and ``kill`` (SIGKILL). The end of the input means that
the parent is gone: kernels close a dead process's pipes, even after ``kill -9``.

``DOOMED`` is a directory to remove when the parent is gone. When it is empty, the command has data to keep and is
stopped cleanly. ``FILES`` are the numbers of open files that the command inherits, separated by commas: the lock on its
data.
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
"""Seconds for a clean stop of a command with data to keep. An idle broker needs about one."""

POLL = 0.2
"""Seconds between two checks of the command and the parent. A restart may wait this long without need."""

PARENT_GONE = b""
# Also in models/runtime/parent_death.py, which topics may not import.
PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code, or 128 plus the number of the signal that ended it, like a shell."""
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
            # A fork of the parent may keep the pipe open after the parent's death. Then only the parent's id shows it.
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
    # Not sys.stdin: this thread would hold its lock while waiting, which breaks the interpreter's exit.
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
    """A function that makes Linux kill the command when this process dies, so ``kill -9`` leaves no orphan; else None.

    The parent does not set it itself: Linux sends the signal when the *thread* that forked ends, and a thread of the
    parent may end early.
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
