"""Single files from Maven Central for tests, kept in the cache where Kafka's jars are."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from jgo.maven import MavenContext

from failsoft.topics.embedded.filelock import lock
from failsoft.topics.embedded.jars import DOWNLOAD_WITHIN, default_cache


def artifact(coordinate: tuple[str, str, str], classifier: str, packaging: str, sha256: str) -> Path:
    """The file of a group, artifact and version, without what it needs. The first use downloads it."""
    _, name, version = coordinate
    kept = default_cache() / f"{name}-{version}-{classifier}.{packaging}"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{kept}.lock", "a+b") as handle:
            assert lock(handle, DOWNLOAD_WITHIN), f"another process has been downloading {kept.name} for too long"
            if not kept.is_file():
                _download(kept, coordinate, classifier, packaging, sha256)
    return kept


def _download(kept: Path, coordinate: tuple[str, str, str], classifier: str, packaging: str, sha256: str) -> None:
    """Download ``kept``; it appears whole, with the right content, or not at all."""
    group, name, version = coordinate
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="download-") as scratch:
        maven = MavenContext(repo_cache=Path(scratch), timeout=600)
        file = Path(maven.project(group, name).at_version(version).artifact(classifier, packaging).resolve())
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        assert found == sha256, f"{kept.name} was damaged in the download: its SHA-256 is {found}"
        os.rename(file, kept)
