"""Owns the notes that say which Kafka ``failsoft kafka`` runs on this machine, so that other commands find it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from failsoft.schemas import wire
from failsoft.topics.embedded.broker import Embedded
from failsoft.topics.embedded.probe import cluster_at
from failsoft.workers.identity import own_folder

_LONGEST = 10_000
"""Bytes of the longest note."""


@dataclass(frozen=True, slots=True)
class LocalKafka:
    """A Kafka that runs on this machine.

    Attributes:
        bootstrap: ``host:port`` for clients.
        data: the folder of its topics.
    """

    bootstrap: str
    data: str


@contextmanager
def noted(broker: Embedded) -> Iterator[None]:
    """Notes that this process runs ``broker``, which must have started, until the context ends.

    Raises NoOwnFolder, or OSError if the note cannot be written.
    """
    note = own_folder() / f"kafka-{os.getpid()}.json"
    started = {"bootstrap": broker.bootstrap, "cluster": broker.cluster, "data": str(broker.data)}
    note.write_bytes(wire.dumps(started))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def running() -> list[LocalKafka]:
    """The noted Kafkas that answer now, the newest first. A note whose process is gone is removed.

    A note may also outlive its process and its process id be another's, so the port is asked for the cluster's id.
    """
    found = []
    for note in sorted(own_folder().glob("kafka-*.json"), key=_modified, reverse=True):
        match _read(note):
            case {"bootstrap": str(bootstrap), "cluster": str(cluster), "data": str(data)}:
                host, _, port = bootstrap.rpartition(":")
                if port.isdigit() and cluster_at(host, int(port)) == cluster:
                    found.append(LocalKafka(bootstrap, data))
    return found


def _modified(note: Path) -> float:
    try:
        return note.stat().st_mtime
    except FileNotFoundError:  # its Kafka ended just now
        return 0.0


def _read(note: Path) -> object:
    """The content of a note; None if its process is gone, and then it is removed."""
    pid = note.stem.partition("-")[2]
    if not pid.isdigit() or not _alive(int(pid)):
        note.unlink(missing_ok=True)
        return None
    try:
        return wire.loads(note.read_bytes(), _LONGEST)
    except (FileNotFoundError, ValueError):  # removed, or half written, at this moment
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's: it was started with the id of one that ended
        return False
    return True
