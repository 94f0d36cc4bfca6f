"""Who a worker is: an id that is the same after a restart, and that no other living worker on this machine has.

The id is the group's static member id, so two workers with one id evict each other for ever. A file lock refuses the
second on one machine; between machines the default id has the host's name in it.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_VALID = re.compile(r"[A-Za-z0-9._-]{1,200}")
_SLOTS = 1024


class DuplicateId(Exception):
    """Another worker of this pipeline runs under that id. Exit code 2."""


class InvalidId(ValueError):
    """An id that Kafka would not take. Exit code 2."""


@dataclass(slots=True)
class Identity:
    """An id, held until ``release`` or the end of the process (even by ``kill -9``: the lock is the kernel's)."""

    id: str
    _lock: IO[str]

    def release(self) -> None:
        self._lock.close()


def claim(pipeline: str, worker_id: str | None) -> Identity:
    """The id asked for, or ``<host>-<n>`` with the first n that is free. Raises DuplicateId or InvalidId."""
    if worker_id is not None:
        if not _VALID.fullmatch(worker_id):
            raise InvalidId(f"--id {worker_id!r}: use 1 to 200 letters, digits, '.', '_' and '-'")
        found = _try(pipeline, worker_id)
        if found is None:
            raise DuplicateId(f"a worker of {pipeline} with --id {worker_id} is running on this machine already")
        return found
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:180] or "worker"
    for n in range(_SLOTS):
        found = _try(pipeline, f"{host}-{n}")
        if found is not None:
            return found
    raise DuplicateId(f"{_SLOTS} workers of {pipeline} run on this machine; give --id")


def own_folder() -> Path:
    """This user's folder for what workers of one machine share: one, so that no crash leaves another behind."""
    folder = Path(tempfile.gettempdir()) / f"failsoft-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _try(pipeline: str, worker_id: str) -> Identity | None:
    lock = (own_folder() / f"{pipeline}.{worker_id}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return Identity(worker_id, lock)
