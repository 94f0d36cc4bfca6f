"""Apache Kafka's jars, fetched once and cached for every project on the machine."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from failsoft.topics.embedded.filelock import lock

KAFKA = "4.3.1"
COORDINATES = (("org.apache.kafka", "kafka_2.13", KAFKA), ("org.slf4j", "slf4j-simple", "1.7.36"))
"""The broker, and a logger that needs no configuration (1.7, as the broker's slf4j-api is)."""

DOWNLOADS = 4
"""At a time: enough to hide the round trips of 46 small files, few enough to be polite."""

DOWNLOAD_WITHIN = 600.0
"""Seconds to wait for another process's download: 44 MB over a slow line."""


NOT_INSTALLED = "the embedded Kafka is not installed: pip install 'failsoft[kafka]', or use a Kafka that runs"
"""Said where the extra of the package is missing."""


class JarsUnavailable(Exception):
    """The jars are neither cached nor to be had now; says what was tried."""


def default_cache() -> Path:
    """``FAILSOFT_CACHE``, else the platform's place for what may be deleted and fetched again."""
    if given := os.environ.get("FAILSOFT_CACHE"):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "failsoft"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "failsoft"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "failsoft"


def cached(cache: Path | None = None) -> bool:
    """Is nothing left to download?"""
    return _home(cache).is_dir()


def kafka_jars(cache: Path | None = None) -> list[Path]:
    """Every jar that a broker's class path needs, in a fixed order. Downloads 44 MB at the first use (10 to 30 s).

    Any number of processes may call this at once with an empty cache: one downloads, the others wait for it, and what
    was downloaded appears in one rename or not at all. Raises JarsUnavailable.
    """
    home = _home(cache)
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with open(home.with_suffix(".lock"), "a+b") as handle:
            if not lock(handle, DOWNLOAD_WITHIN):
                raise JarsUnavailable(f"another process has been filling {home.parent} for {DOWNLOAD_WITHIN:g} s")
            if not home.is_dir():
                _download(home)
    return sorted(home.glob("*.jar"))


def _home(cache: Path | None) -> Path:
    return (cache or default_cache()) / f"kafka-{KAFKA.replace('.', '_')}"


def _download(home: Path) -> None:
    """Fills ``home``. A Maven repository of our own, thrown away: a half-written file in the user's is left behind."""
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="download-") as scratch:
        ready = Path(scratch) / "jars"
        ready.mkdir()
        try:
            for jar in _fetch(Path(scratch) / "maven"):
                _check(jar)
                shutil.move(jar, ready / jar.name)
        except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
            raise JarsUnavailable(
                f"Apache Kafka {KAFKA} is not in {home.parent}, and its download from Maven Central failed: {error}"
            ) from error
        os.rename(ready, home)


def _fetch(repository: Path) -> list[Path]:
    # Imported here: who has the jars cached need not load a Maven resolver, nor have one. And not ``jgo.build``: it
    # downloads a Java 11 to sort jars into modules, which a class path does not need.
    try:
        from jgo.maven import MavenContext
        from jgo.parse import Coordinate
    except ImportError as error:
        raise JarsUnavailable(NOT_INSTALLED) from error

    maven = MavenContext(repo_cache=repository, timeout=60)
    wanted = [maven.create_dependency(Coordinate(*gav, scope="compile")) for gav in COORDINATES]
    direct, transitive = maven.resolver.resolve(wanted)
    needed = [d.artifact for d in [*direct, *transitive] if d.scope in ("compile", "runtime")]
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        return list(pool.map(lambda artifact: Path(artifact.resolve()), needed))


def _check(jar: Path) -> None:
    """The resolver only warns of a wrong checksum, and a jar cut short would fail much later, obscurely."""
    with zipfile.ZipFile(jar) as archive:
        bad = archive.testzip()
    if bad is not None:
        raise zipfile.BadZipFile(f"{jar.name} arrived damaged ({bad})")
