"""Owns the passes remembered on this machine: a version whose files have not changed is not vetted again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from failsoft.models.vetting.verdict import Vetting
from failsoft.schemas import wire

PASSES_KEPT = 200
"""Largest number of passes kept, about 300 kB: more versions than a machine serves between two restarts."""


class VettingCache:
    """A file of passes in ``folder``, shared by the processes of one user. Failures are not kept: they may be
    corrected.

    A folder or file that another user could have written is neither read nor written. A read or write error only loses
    passes, which costs about a second of vetting at the next start.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "vetted.ndjson"

    def recall(self, key: str) -> Vetting | None:
        """The pass kept under ``key`` (hex), or None."""
        line = self._lines().get(key)
        try:
            return None if line is None else Vetting.parse(line)
        except wire.Malformed:
            return None

    def remember(self, key: str, vetting: Vetting) -> None:
        """Keeps a pass under ``key`` (hex), at most PASSES_KEPT of them. Raises ValueError for a failed vetting."""
        if not vetting.passed:
            raise ValueError(f"{vetting.key} did not pass: {vetting.describe()}")
        if not _own(self._folder):
            return
        with suppress(OSError), self._locked():
            kept = self._lines()
            kept.pop(key, None)
            kept[key] = vetting.to_bytes()
            lines = [f"{each} ".encode() + raw for each, raw in list(kept.items())[-PASSES_KEPT:]]
            new = self._folder / "vetted.new"  # always the same name, so a file left by a crash is overwritten
            new.write_bytes(b"\n".join(lines) + b"\n")
            new.chmod(0o600)  # independent of the umask, because _own refuses a file that others may write
            new.replace(self._file)

    def _lines(self) -> dict[str, bytes]:
        """The file's lines by key, oldest first."""
        if not (_own(self._folder) and _own(self._file)):
            return {}
        with suppress(OSError):
            parted = (line.partition(b" ") for line in self._file.read_bytes().splitlines())
            return {key.decode(errors="replace"): raw for key, _, raw in parted}
        return {}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Locks the file for one small write, so that two workers that start together keep each other's passes."""
        with (self._folder / "vetted.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _own(path: Path) -> bool:
    """True if the path exists, belongs to this user, and no other user may write to it."""
    try:
        stat = path.stat()
    except OSError:
        return False
    return stat.st_uid == os.getuid() and not stat.st_mode & 0o022
