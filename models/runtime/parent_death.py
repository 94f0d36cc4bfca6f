"""Owns the call that ends a process with its parent, even if ``kill -9`` ends the parent: PR_SET_PDEATHSIG.

topics/embedded/watcher.py has its own copy, because topics may not import models.
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
    """A function for the new process to call. After that call Linux sends it signal ``number`` when ``parent`` (pid)
    ends, and already when the thread of ``parent`` ends that started it: start it from a thread that stays.

    If the parent has ended before the call, the process exits at once. Other systems send no signal. The C library is
    loaded here and not in the returned function, because that may be called between a fork and an exec.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)

    return end_with_parent
