"""Claims a worker's id: stable over restarts, and unique among the running workers of this machine.

The id is the worker's static member id in the consumer group, so two workers with the same id would evict each other
for ever. On one machine a file lock refuses the second worker. Between machines the host name in the default id
differs.
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

RESERVED = "replayer"
"""A worker's transactional id is ``<pipeline>.<id>``, and that of ``failsoft dead replay`` ends so."""

_VALID = re.compile(r"[A-Za-z0-9._-]{1,200}")
_SLOTS = 1024


class DuplicateId(Exception):
    """Another worker of this pipeline is running with the same id. Exit code 2."""


class InvalidId(ValueError):
    """Kafka would refuse the id. Exit code 2."""


@dataclass(slots=True)
class Identity:
    """A claimed id, held until ``release`` or the end of the process. After ``kill -9`` the kernel frees its lock."""

    id: str
    _lock: IO[str]

    def release(self) -> None:
        self._lock.close()


def claim(pipeline: str, worker_id: str | None) -> Identity:
    """Claim ``worker_id``, or ``<host>-<n>`` with the first free n when it is None. Raises DuplicateId or InvalidId."""
    if worker_id is not None:
        if not _VALID.fullmatch(worker_id):
            raise InvalidId(f"--id {worker_id!r}: use 1 to 200 letters, digits, '.', '_' and '-'")
        if worker_id.rpartition(".")[2] == RESERVED:
            raise InvalidId(f"--id {worker_id!r}: replays of dead letters have this id; choose another")
        found = _try(pipeline, worker_id)
        if found is None:
            raise DuplicateId(f"a worker of {pipeline} with --id {worker_id} is already running on this machine")
        return found
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:180] or "worker"
    for n in range(_SLOTS):
        found = _try(pipeline, f"{host}-{n}")
        if found is not None:
            return found
    raise DuplicateId(f"{_SLOTS} workers of {pipeline} are running on this machine; choose an id with --id")


def own_folder() -> Path:
    """This user's folder for files shared by the workers of one machine. It is fixed, so crashes leave no others."""
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
