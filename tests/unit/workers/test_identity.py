"""The folder of a worker's own files, where nothing or little can be written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from failsoft.workers import identity
from failsoft.workers.commands.error_codes import code_of
from failsoft.workers.identity import NoOwnFolder, claim, own_folder


@pytest.fixture
def no_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the folders that Python tries can be written, as with a read-only root file system."""

    def refuses() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", refuses)


@pytest.mark.usefixtures("no_temporary_folder")
def test_shared_memory_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container has it even if nothing is mounted."""
    monkeypatch.setattr(identity, "SHARED_MEMORY", tmp_path)
    assert own_folder().parent == tmp_path
    claimed = claim("loans", "w")
    assert list(own_folder().iterdir()) == [own_folder() / "loans.w.lock"]
    claimed.release()


@pytest.mark.usefixtures("no_temporary_folder")
def test_without_any_folder_a_sentence_says_what_to_mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is no traceback. The exit code is one after which a supervisor does not restart the worker."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(identity, "SHARED_MEMORY", tmp_path / "file")  # also root cannot make a folder in a file
    with pytest.raises(NoOwnFolder, match=r"mount a writable folder on /tmp .*emptyDir.* TMPDIR") as refused:
        claim("loans", "w")
    assert code_of(refused.value) == 2


def test_a_lock_that_cannot_be_written_is_the_same_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder may be left from a time when it could be written."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    (own_folder() / "loans.w.lock").mkdir()  # root can write any file, but not a folder
    with pytest.raises(NoOwnFolder, match=r"loans\.w\.lock: cannot be written"):
        claim("loans", "w")
