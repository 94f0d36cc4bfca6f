"""Serves a worker's /metrics, /livez and /readyz on threads of its own, since the event loop may be stuck."""

from __future__ import annotations

import errno
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

Check = Callable[[], str | None]
"""A check of the worker: returns None when all is well, else the reason."""

_TEXT = "text/plain; charset=utf-8"


class CannotListen(Exception):
    """The worker's web server cannot listen on the address and port that it was given."""


class PortTaken(CannotListen):
    """Another program listens on the port of the worker's web server."""


class Web:
    """A worker's web server.

    ``live`` and ``ready`` are called on the server's threads, possibly while the event loop is stuck, so they may only
    read state.

    Args:
        registry: the Prometheus registry behind /metrics.
        live: the check behind /livez. The reason that it returns is the text of a 503.
        ready: the check behind /readyz, in the same way.
        host: the address to listen on.
        port: the port to listen on; 0 takes any that is free.
    """

    def __init__(
        self, registry: CollectorRegistry, live: Check, ready: Check, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._registry = registry
        self._checks = {"/livez": live, "/readyz": ready}
        self._host = host
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Start to listen. Returns the port. Raises PortTaken, or CannotListen for any other failure."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            server = _Server((self._host, self._port), family)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be encoded for DNS
            if not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
                reason = error.strerror if isinstance(error, OSError) else "not a host name"
                raise CannotListen(
                    f"cannot listen on {self._host}, port {self._port}: {reason}: choose an address of this machine "
                    "with --metrics-host, and a port with --metrics-port"
                ) from error
            raise PortTaken(
                f"port {self._port} of {self._host} is taken by another program: "
                "choose one with --metrics-port (0 takes any that is free)"
            ) from error
        server.set_app(self._answer)
        # A daemon thread: a running scrape must not keep the process from exiting.
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="web", daemon=True)
        self._server = server
        self._thread.start()
        return int(server.server_address[1])

    def stop(self) -> None:
        """Stop listening. Does nothing if the server is not running."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        self._server = self._thread = None

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _reply(environ, start, "405 Method Not Allowed", "only GET and HEAD\n", ("Allow", "GET, HEAD"))
        if path == "/metrics":
            encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
            return _reply(environ, start, "200 OK", encode(self._registry), type_=content_type)
        check = self._checks.get(path)
        if check is None:
            return _reply(environ, start, "404 Not Found", "not found; this server has /metrics, /livez and /readyz\n")
        why_not = check()
        if why_not is None:
            return _reply(environ, start, "200 OK", "ok\n")
        return _reply(environ, start, "503 Service Unavailable", f"{why_not}\n")


def _reply(
    environ: WSGIEnvironment,
    start: StartResponse,
    status: str,
    body: str | bytes,
    *headers: tuple[str, str],
    type_: str = _TEXT,
) -> Iterable[bytes]:
    data = body.encode() if isinstance(body, str) else body
    start(
        status, [("Content-Type", type_), ("Content-Length", str(len(data))), ("Cache-Control", "no-store"), *headers]
    )
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [data]


class _Handler(WSGIRequestHandler):
    # Seconds. A client that connects and sends nothing must not keep a thread; scrapers send their request at once.
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: there is a scrape every few seconds."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # and server_close() does not wait for them

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's method: it asks DNS for the machine's name, which can hang the start of a worker.
        TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that closed the connection or sent nothing is no error of the server. Any other error is shown.
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)
