"""Ends a process with its parent, by PR_SET_PDEATHSIG: also when the parent is killed by kill -9.

topics/embedded/watcher.py has a call of its own, since topics may not import models.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1


def ender(parent: int, number: int = signal.SIGKILL) -> Callable[[], None]:
    """A function for the new process to call: from then on Linux sends it ``number`` when ``parent`` ends.

    A process whose parent has ended before that call ends at once. Other systems send no signal. The C library is
    loaded here and not in the function, which may be called between a fork and an exec.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)

    return end_with_parent
