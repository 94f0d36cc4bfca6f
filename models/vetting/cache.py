"""The passes that are remembered on this machine: a version whose files are the same need not be vetted again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from failsoft.models.vetting.verdict import Vetting
from failsoft.schemas import wire

MOST = 200
"""VettingCache kept, some 300 kB: more versions than a machine serves between two of its restarts."""


class VettingCache:
    """A file in ``folder``, shared by the processes of one user. Failures are not remembered: they may be mended.

    A folder or a file that somebody else could have written is not believed, and nothing is written there. What
    cannot be read or written is forgotten, which costs a second at the next start and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "vetted.ndjson"

    def recall(self, key: str) -> Vetting | None:
        """The pass that was remembered under ``key`` (hex)."""
        found = self._lines().get(key)
        try:
            return None if found is None else Vetting.parse(found)
        except wire.Malformed:
            return None

    def remember(self, key: str, vetting: Vetting) -> None:
        """Keep a pass, and forget the oldest beyond MOST. Raises ValueError for what is no pass."""
        if not vetting.passed:
            raise ValueError(f"{vetting.key} did not pass: {vetting.describe()}")
        if not _own(self._folder):
            return
        with suppress(OSError), self._locked():
            kept = self._lines()
            kept.pop(key, None)
            kept[key] = vetting.to_bytes()
            lines = [f"{each} ".encode() + raw for each, raw in list(kept.items())[-MOST:]]
            new = self._folder / "vetted.new"  # one name: what a crash leaves is written over by the next
            new.write_bytes(b"\n".join(lines) + b"\n")
            new.chmod(0o600)  # whatever the umask says: see _own
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
        """Two workers that start together each keep the other's pass; a lock lasts for one small write."""
        with (self._folder / "vetted.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _own(path: Path) -> bool:
    """It is there, this user's, and no other user may write to it."""
    try:
        stat = path.stat()
    except OSError:
        return False
    return stat.st_uid == os.getuid() and not stat.st_mode & 0o022
