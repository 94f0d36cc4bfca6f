"""Locks an open file for one process at a time. The system frees the lock when the process dies."""

from __future__ import annotations

import sys
import time
from typing import IO

LOOK_EVERY = 0.1
"""Seconds between two attempts. The blocking calls of POSIX and Windows take no deadline, so ``lock`` polls."""


def lock(handle: IO[bytes], within: float) -> bool:
    """True when the file is locked; False if another process still holds the lock after ``within`` seconds.

    On POSIX a child process that inherits the open file holds the lock too. The lock is free when all have closed it.
    """
    deadline = time.monotonic() + within
    while not _locked(handle):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True


def _locked(handle: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
