"""A lock on an open file: one process at a time, freed by the system when its holder dies."""

from __future__ import annotations

import sys
import time
from typing import IO

LOOK_EVERY = 0.1
"""Seconds between two attempts; neither system's blocking call takes a deadline."""


def lock(handle: IO[bytes], within: float) -> bool:
    """True once this open file is locked, False if somebody else holds it for ``within`` seconds more.

    Where the system is POSIX, a child process that inherits the file holds the lock too: it is free when the last of
    them has closed it.
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
