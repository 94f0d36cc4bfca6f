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

RESERVED = {"replayer": "replays of dead letters", "operator": "orders that move offsets"}
"""A worker's transactional id is ``<pipeline>.<id>``, and those of ``failsoft dead replay`` and ``offsets`` end so."""

_VALID = re.compile(r"[A-Za-z0-9._-]{1,200}")
_SLOTS = 1024


class DuplicateId(Exception):
    """Another worker of this pipeline is running with the same id. Exit code 2."""


class InvalidId(ValueError):
    """Kafka would refuse the id. Exit code 2."""


class NoOwnFolder(Exception):
    """No folder can be written for the worker's own files. Exit code 2: a restart would end the same way."""


SHARED_MEMORY = Path("/dev/shm")
"""Where a container can write even if its root file system is read-only and nothing is mounted."""


@dataclass(slots=True)
class Identity:
    """A claimed id, held until ``release`` or the end of the process. After ``kill -9`` the kernel frees its lock."""

    id: str
    _lock: IO[str]

    def release(self) -> None:
        self._lock.close()


def claim(pipeline: str, worker_id: str | None) -> Identity:
    """Claim ``worker_id``, or ``<host>-<n>`` with the first free n when it is None.

    Raises DuplicateId, InvalidId or NoOwnFolder.
    """
    if worker_id is not None:
        if not _VALID.fullmatch(worker_id):
            raise InvalidId(f"--id {worker_id!r}: use 1 to 200 letters, digits, '.', '_' and '-'")
        if (taken := RESERVED.get(worker_id.rpartition(".")[2])) is not None:
            raise InvalidId(f"--id {worker_id!r}: {taken} have this id; choose another")
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
    """This user's folder for files shared by the workers of one machine. It is fixed, so crashes leave no others.

    It holds the locks of ids and the passed vettings, some kilobytes. Raises NoOwnFolder.
    """
    try:
        base = Path(tempfile.gettempdir())
    except FileNotFoundError:  # none of TMPDIR, /tmp and the others can be written
        base = SHARED_MEMORY
    folder = base / f"failsoft-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as e:
        raise _no_folder(folder, e) from None
    return folder


def _no_folder(path: Path, error: OSError) -> NoOwnFolder:
    return NoOwnFolder(
        f"{path}: cannot be written: {error.strerror}; a worker keeps the lock of its id and the passed vettings "
        "there: mount a writable folder on /tmp (in Kubernetes an emptyDir), or name one in TMPDIR"
    )


def _try(pipeline: str, worker_id: str) -> Identity | None:
    path = own_folder() / f"{pipeline}.{worker_id}.lock"
    try:
        lock = path.open("w")
    except OSError as e:
        raise _no_folder(path, e) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return Identity(worker_id, lock)
