"""A real schema registry for tests: Apicurio Registry, on the Java of the embedded Kafka."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from failsoft.topics.embedded.broker import HOST, free_port, java_runtime
from failsoft.topics.embedded.filelock import lock
from failsoft.topics.embedded.jars import DOWNLOAD_WITHIN, default_cache
from tests.kafka import wait_for
from tests.maven import artifact

VERSION = "3.3.3"
SHA256 = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"
READY_WITHIN = 120.0
"""Seconds for a start; it takes 4 on an idle machine."""
JSON_TYPE = "application/vnd.schemaregistry.v1+json"


class Apicurio:
    """One registry. Its schemas are on disk in ``scratch``: one that was killed has them when it starts again.

    Attributes:
        url: where it speaks Confluent's API.
        native: where it speaks its own.
    """

    def __init__(self, scratch: Path) -> None:
        port = free_port()
        base = f"http://{HOST}:{port}/apis"
        self.url, self.native = f"{base}/ccompat/v7", f"{base}/registry/v3"
        self._log, self._port, self._other_port = scratch / "apicurio.log", port, free_port(but=port)
        self._data = scratch / "registry"
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()

    def start(self) -> Self:
        """Start it, on the same port as before, and return when it answers."""
        settings = {
            "quarkus.http.host": HOST,
            "quarkus.http.port": self._port,
            "quarkus.management.host": HOST,
            "quarkus.management.port": self._other_port,
            # By default H2 writes half a second later, and a killed registry has lost what it confirmed.
            "apicurio.datasource.url": f"jdbc:h2:file:{self._data};WRITE_DELAY=0",
        }
        options = ["-Xmx400m", *(f"-D{name}={value}" for name, value in settings.items())]
        with self._log.open("ab") as out:
            self._running = subprocess.Popen(
                [str(java_runtime()), *options, "-jar", "quarkus-run.jar"],
                cwd=_home(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        running = self._running
        try:
            wait_for(lambda: running.poll() is not None or self._answers(), READY_WITHIN, "Apicurio answers")
            assert running.poll() is None, f"Apicurio ended: {self._log.read_text(errors='replace')[-3000:]}"
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """End it at once. Does nothing if it does not run."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None

    def register(self, subject: str, type_: str, text: str, references: Sequence[dict[str, Any]] = ()) -> int:
        """Register a schema by Confluent's API. Returns its id."""
        body = {"schemaType": type_, "schema": text, "references": list(references)}
        found: int = self.ask("POST", f"/subjects/{subject}/versions", body)["id"]
        return found

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer to one request by Confluent's API. Raises HTTPError."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": JSON_TYPE}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def _answers(self) -> bool:
        try:
            self.ask("GET", "/subjects")
        except OSError:  # that of urllib too
            return False
        return True


def _home() -> Path:
    """The unpacked registry. The first use downloads 158 MB."""
    home = default_cache() / f"apicurio-registry-{VERSION}"
    if not home.is_dir():
        archive = artifact(("io.apicurio", "apicurio-registry-app", VERSION), "all", "tar.gz", SHA256)
        with open(home.with_name(f"{home.name}.lock"), "a+b") as handle:
            assert lock(handle, DOWNLOAD_WITHIN), f"another process has been unpacking {archive.name} for too long"
            if not home.is_dir():
                with tempfile.TemporaryDirectory(dir=home.parent, prefix="unpack-") as scratch:
                    fresh = Path(scratch) / "registry"
                    with tarfile.open(archive) as tar:
                        tar.extractall(fresh, filter="data")
                    fresh.rename(home)
                archive.unlink()
    return home
