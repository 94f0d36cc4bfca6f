"""A schema registry for tests: Confluent's routes on a loopback port, and each way in which a registry fails."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import ssl
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import trustme

HOST = "127.0.0.1"
ANOTHER = '{"type":"record","name":"Another","fields":[{"name":"another","type":"string"}]}'
"""What ``Failing.ANOTHER`` gives for each id."""

_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_HANG_S = 60.0
"""Longer than the deadline of any test; ``stop`` ends a hanging answer at once."""
_DRIP_S = 0.02
"""Between two bytes of an answer that drips: a schema of 100 bytes takes 2 s."""


class Failing(StrEnum):
    """How the registry fails. Each request gets this, whatever it asks."""

    ERROR_500 = "error_500"  # 500, with the registry's error body
    ERROR_503 = "error_503"  # 503, with a proxy's text
    UNAUTHORIZED = "unauthorized"  # 401
    FORBIDDEN = "forbidden"  # 403
    HANG = "hang"  # accepts the request and never answers
    DRIP = "drip"  # the right answer, 50 bytes a second
    HTML = "html"  # 200, and a login page
    RUBBISH = "rubbish"  # 200, and JSON that no registry writes
    NOT_JSON = "not_json"  # 200, the right content type, and half an answer
    HUGE = "huge"  # 200, and 5 MB of valid JSON
    ENDLESS = "endless"  # 200, and chunks that never end
    REDIRECT = "redirect"  # 302 to ``redirect_to``
    CLOSE = "close"  # closes the connection without an answer
    NOTHING_404 = "nothing_404"  # 404 without a word, as of a proxy that lacks the path
    MISSING_PAGE = "missing_page"  # the right answer, but 404 with a page for what is not there
    ANOTHER = "another"  # another schema in the right answer


@dataclass(frozen=True, slots=True)
class StoredSchema:
    """A schema that the registry has. ``references`` are Confluent's: name, subject and version; ``own_guid``: its GUID
    where another registry gave it.
    """

    id: int
    type: str
    text: str
    references: tuple[Mapping[str, Any], ...] = ()
    own_guid: str | None = None

    @property
    def guid(self) -> str:
        """As Confluent does: a GUID that depends on the schema alone."""
        told = json.dumps([self.type, self.text, [dict(each) for each in self.references]])
        return self.own_guid or str(uuid.UUID(bytes=hashlib.md5(told.encode()).digest()))


@dataclass
class _Stock:
    """What the registry has. Guarded by ``lock``: requests come on threads."""

    schemas: dict[int, StoredSchema] = field(default_factory=dict)
    versions: dict[str, list[int]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def register(self, subject: str, type_: str, text: str, references: Iterable[Mapping[str, Any]]) -> int:
        with self.lock:
            told = (type_, text, tuple(references))
            known = (s.id for s in self.schemas.values() if (s.type, s.text, s.references) == told)
            found = next(known, max(self.schemas, default=0) + 1)
            self.schemas.setdefault(found, StoredSchema(found, *told))
            listed = self.versions.setdefault(subject, [])
            if found not in listed:
                listed.append(found)
            return found


class RegistryServer:
    """A registry in this process; use as ``with RegistryServer() as registry:``, and ``registry.url``.

    What was registered outlives ``stop()`` and ``start()``, which listens on the same port again. With an
    ``authority`` it speaks https; ``authorization`` is the one Authorization header that it accepts.

    Attributes:
        failing: how it fails now; None: not at all. May be set at any time.
        redirect_to: where ``Failing.REDIRECT`` sends.
        incompatible: why no schema is compatible, in the registry's words; empty: each one is.
        requests: how often each ``METHOD path`` was asked, the path without its query.
        authorizations: the Authorization header of each request, None where there was none.
    """

    def __init__(self, port: int = 0, *, authority: trustme.CA | None = None, authorization: str | None = None) -> None:
        self._port, self._authority, self._authorization = port, authority, authorization
        self._stock = _Stock()
        self._server: _Server | None = None
        self.failing: Failing | None = None
        self.redirect_to = "http://127.0.0.1:1/elsewhere"
        self.incompatible: list[str] = []
        self.requests: Counter[str] = Counter()
        self.authorizations: list[str | None] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its address. Stays the same after ``stop`` and ``start``."""
        return f"{'http' if self._authority is None else 'https'}://{HOST}:{self._port}"

    @property
    def asked(self) -> int:
        """How many requests came."""
        return sum(self.requests.values())

    def start(self) -> None:
        """Listen; on the port that it had before, if it was stopped."""
        assert self._server is None, "it runs already"
        self._server = _Server((HOST, self._port), _Handler, self)
        self._port = self._server.server_address[1]
        if self._authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert(HOST).configure_cert(context)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="registry", daemon=True).start()

    def stop(self) -> None:
        """Refuse new connections and close the open ones, also those that hang."""
        if self._server is not None:
            self._server.end()
            self._server = None

    def register(self, subject: str, schema_type: str, text: str, references: Iterable[Mapping[str, Any]] = ()) -> int:
        """Register a schema without a request, and give its id. A schema that it has keeps its id."""
        return self._stock.register(subject, schema_type, text, references)

    def put(
        self,
        id_: int,
        schema_type: str,
        text: str,
        references: Iterable[Mapping[str, Any]] = (),
        subject: str = "put",
        guid: str | None = None,
    ) -> None:
        """Have exactly this schema under this id, whatever was there."""
        with self._stock.lock:
            self._stock.schemas[id_] = StoredSchema(id_, schema_type, text, tuple(references), guid)
            listed = self._stock.versions.setdefault(subject, [])
            if id_ not in listed:
                listed.append(id_)

    def forget(self, id_: int) -> None:
        """Have no schema of this id."""
        with self._stock.lock:
            del self._stock.schemas[id_]
            for listed in self._stock.versions.values():
                listed[:] = [each for each in listed if each != id_]

    def schema(self, id_: int) -> StoredSchema:
        """The schema of an id."""
        return self._stock.schemas[id_]

    def latest(self, subject: str) -> StoredSchema:
        """The newest schema of a subject."""
        return self._stock.schemas[self._stock.versions[subject][-1]]

    def guid(self, id_: int) -> str:
        """The GUID of the schema of an id."""
        return self._stock.schemas[id_].guid

    def ca_file(self, folder: Path) -> Path:
        """Write the certificate that an https client must trust into ``folder``."""
        assert self._authority is not None
        path = folder / "registry-ca.pem"
        self._authority.cert_pem.write_to_path(path)
        return path

    def answer(self, method: str, path: str, body: bytes, authorization: str | None) -> tuple[int, Any]:
        """The status and the JSON value of one answer of a registry that does not fail."""
        if self._authorization is not None and authorization != self._authorization:
            return 401, {"error_code": 40101, "message": "User cannot access the resource."}
        for wanted, pattern, route in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found is not None and method == wanted:
                with self._stock.lock:
                    return route(self, *(unquote(each) for each in found.groups()), **_body(method, body))
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _by_id(self, id_: str) -> tuple[int, Any]:
        found = self._stock.schemas.get(int(id_))
        return (404, {"error_code": 40403, "message": "Schema not found"}) if found is None else (200, _told(found))

    def _by_guid(self, guid: str) -> tuple[int, Any]:
        found = [each for each in self._stock.schemas.values() if each.guid == guid]
        return (200, _told(found[0])) if found else (404, {"error_code": 40403, "message": "Schema not found"})

    def _version(self, subject: str, version: str) -> tuple[int, Any]:
        listed = self._stock.versions.get(subject)
        if not listed:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        number = len(listed) if version == "latest" else int(version)
        if not 1 <= number <= len(listed):
            return 404, {"error_code": 40402, "message": f"Version {version} not found."}
        found = self._stock.schemas[listed[number - 1]]
        return 200, {"subject": subject, "version": number, "id": found.id, **_told(found)}

    def _register(self, subject: str, **body: Any) -> tuple[int, Any]:
        if self.incompatible and self._stock.versions.get(subject):
            return 409, {"error_code": 409, "message": "; ".join(self.incompatible)}
        type_, text = body.get("schemaType", "AVRO"), body["schema"]
        if type_ != "PROTOBUF" and not _is_json(text):
            return 422, {"error_code": 42201, "message": f"Invalid schema {text} of type {type_}"}
        return 200, {"id": self._stock.register(subject, type_, text, body.get("references", ()))}

    def _compatibility(self, subject: str, **_: Any) -> tuple[int, Any]:
        if not self._stock.versions.get(subject):
            return 404, {"error_code": 40402, "message": "Version -1 not found."}
        return 200, {"is_compatible": not self.incompatible, "messages": list(self.incompatible)}


_ROUTES = (
    ("GET", r"/schemas/ids/([0-9]+)", RegistryServer._by_id),
    ("GET", r"/schemas/guids/([^/]+)", RegistryServer._by_guid),
    ("GET", r"/subjects/([^/]+)/versions/(latest|[0-9]+)", RegistryServer._version),
    ("POST", r"/subjects/([^/]+)/versions", RegistryServer._register),
    ("POST", r"/compatibility/subjects/([^/]+)/versions/latest", RegistryServer._compatibility),
)


def _told(schema: StoredSchema) -> dict[str, Any]:
    """A schema as a registry tells it: Avro's type and empty references are left out, as Confluent does."""
    told: dict[str, Any] = {"schema": schema.text, "guid": schema.guid}
    if schema.type != "AVRO":
        told["schemaType"] = schema.type
    if schema.references:
        told["references"] = [dict(each) for each in schema.references]
    return told


def _body(method: str, body: bytes) -> dict[str, Any]:
    given: dict[str, Any] = json.loads(body) if method == "POST" else {}
    return given


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


class _Server(ThreadingHTTPServer):
    """The listening socket, and the connections of one start."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[_Handler], registry: RegistryServer) -> None:
        self.registry, self.ended = registry, threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves, or that does not trust the certificate, is not the server's error."""

    def end(self) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):  # the client has closed it
                    each.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Answers requests of one connection."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, format: str, *args: Any) -> None:
        """Tests need no log of requests."""

    def _answer(self, method: str) -> None:
        registry, path = self.server.registry, urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        registry.requests[f"{method} {unquote(path)}"] += 1
        registry.authorizations.append(self.headers.get("authorization"))
        status, value = registry.answer(method, path, body, self.headers.get("authorization"))
        told = json.dumps(value).encode()
        match registry.failing:
            case Failing.MISSING_PAGE if status == 404:
                self._send(404, b"<html><body>Error code: 404</body></html>", "text/html")
            case None | Failing.MISSING_PAGE:
                self._send(status, told)
            case Failing.ERROR_500:
                self._send(500, b'{"error_code": 50001, "message": "Error in the backend datastore"}')
            case Failing.ERROR_503:
                self._send(503, b"no healthy upstream", "text/plain")
            case Failing.NOTHING_404:
                self._send(404, b"", "text/plain")
            case Failing.UNAUTHORIZED:
                self._send(401, b'{"error_code": 401, "message": "Unauthorized"}')
            case Failing.FORBIDDEN:
                self._send(403, b'{"error_code": 40301, "message": "User is denied operation Read"}')
            case Failing.HANG:
                self.server.ended.wait(_HANG_S)
                self.close_connection = True
            case Failing.DRIP:
                self._head(status, len(told), _CONTENT_TYPE)
                self._drip(told)
            case Failing.HTML:
                self._send(200, b"<html><body>Please sign in</body></html>", "text/html")
            case Failing.RUBBISH:
                self._send(200, b'{"schema": 7, "schemaType": ["x"], "id": "x", "references": 5, "is_compatible": 1}')
            case Failing.NOT_JSON:
                self._send(200, told[: len(told) // 2])
            case Failing.HUGE:
                self._send(200, json.dumps({"schema": '"string"', "doc": "x" * 5_000_000}).encode())
            case Failing.ENDLESS:
                self._endless()
            case Failing.REDIRECT:
                self.send_response(302)
                self.send_header("location", registry.redirect_to)
                self.send_header("content-length", "0")
                self.end_headers()
            case Failing.CLOSE:
                self.close_connection = True
            case Failing.ANOTHER:
                self._send(status, json.dumps({**value, "schema": ANOTHER, "schemaType": "AVRO"}).encode())

    def _head(self, status: int, length: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(length))
        self.end_headers()

    def _send(self, status: int, body: bytes, content_type: str = _CONTENT_TYPE) -> None:
        self._head(status, len(body), content_type)
        self.wfile.write(body)

    def _drip(self, body: bytes) -> None:
        for byte in body:
            if self.server.ended.wait(_DRIP_S):
                return
            self.wfile.write(bytes([byte]))

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("content-type", _CONTENT_TYPE)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while not self.server.ended.is_set():
            self.wfile.write(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
