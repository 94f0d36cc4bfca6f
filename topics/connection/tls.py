"""The TLS settings of all clients: PEM files, checked when they are read, and read again when they were renewed."""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Mapping
from typing import Any, Self

log = logging.getLogger(__name__)


class UnusablePem(Exception):
    """A PEM file cannot be used. ``key`` is the setting that names it; the text says what is wrong."""

    def __init__(self, key: str, text: str) -> None:
        self.key = key
        super().__init__(text)


class PemContext(ssl.SSLContext):
    """An SSL context made from PEM files. A connection that begins after a file was replaced uses the new one.

    Without this, a worker that outlives its client certificate could not connect again, and would have to be restarted
    for each renewal. Open connections keep what they were opened with. Authorities are added and never removed: an old
    one is trusted until the process ends.

    Attributes:
        cafile: the authorities' file; empty: the system's.
        certfile: the client's certificate; empty: none.
        keyfile: its key; empty: the key is in ``certfile``.
    """

    cafile: str
    certfile: str
    keyfile: str
    _pem_section: str
    _pem_password: str | None
    _pem_stamps: Mapping[str, tuple[int, int, int]]
    _pem_lock: threading.Lock

    @classmethod
    def of(
        cls,
        cafile: str = "",
        certfile: str = "",
        keyfile: str = "",
        password: str | None = None,
        section: str = "kafka",
    ) -> Self:
        """A context for clients that verifies servers and their host names. Raises UnusablePem.

        section: the section of the pipeline file that names the files.
        """
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.cafile, context.certfile, context.keyfile = cafile, certfile, keyfile
        context._pem_section = section
        context._pem_password, context._pem_lock, context._pem_stamps = password, threading.Lock(), {}
        if not cafile:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if keyfile and not certfile:
            raise UnusablePem("ssl_certfile", f"missing; ssl_keyfile ({keyfile}) is the key of a certificate")
        context._pem_stamps = context._stamps()
        context._load()
        return context

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Called by the event loop for each new connection."""
        self._renew()
        return super().wrap_bio(*args, **options)

    def _renew(self) -> None:
        with self._pem_lock:
            stamps = self._stamps()
            if stamps == self._pem_stamps:
                return
            try:
                self._load()
            except UnusablePem as error:  # perhaps half of the files is replaced: the next connection looks again
                where = f"{self._pem_section}.{error.key}"
                log.warning("%s: cannot be used; the former files stay in use: %s", where, error)
                return
            self._pem_stamps = stamps
            log.info("renewed TLS files are in use: %s", ", ".join(stamps))

    def _stamps(self) -> dict[str, tuple[int, int, int]]:
        """What tells a file from its successor: its inode, its size, and when it was written (nanoseconds)."""
        found = {}
        for file in (self.cafile, self.certfile, self.keyfile):
            if file:
                try:
                    stat = os.stat(file)
                except OSError:
                    found[file] = (0, 0, 0)
                    continue
                found[file] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        return found

    def _load(self) -> None:
        for key, file in (("ssl_cafile", self.cafile), ("ssl_certfile", self.certfile), ("ssl_keyfile", self.keyfile)):
            if file and not os.path.isfile(file):
                raise UnusablePem(key, f"{file}: no such file")
        if self.cafile:
            try:
                self.load_verify_locations(self.cafile)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                raise UnusablePem(
                    "ssl_cafile", f"{self.cafile}: cannot be used: no PEM file with certificates: {error}"
                ) from None
        if self.certfile:
            self._load_chain()

    def _load_chain(self) -> None:
        asked = False

        def password() -> str:
            nonlocal asked
            asked = True
            return self._pem_password or ""  # without a function OpenSSL would ask on the terminal

        try:
            # Tried on another context first: a key that does not fit would leave this one with neither pair.
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self):
                context.load_cert_chain(self.certfile, self.keyfile or None, password)
        except (OSError, ValueError) as error:
            raise self._unusable(str(error), asked) from None

    def _unusable(self, text: str, asked: bool) -> UnusablePem:
        """Why the certificate and its key cannot be used. ``asked``: whether OpenSSL wanted a password."""
        name = self.keyfile or self.certfile
        if "MISMATCH" in text:
            return UnusablePem("ssl_keyfile", f"{name}: not the key of {self.certfile}")
        if asked and self._pem_password is None:
            return UnusablePem("ssl_keyfile", f"{name}: the key is encrypted and there is no password")
        if asked:
            return UnusablePem("ssl_keyfile", f"{name}: the password does not open the key")
        if not self.keyfile:
            text = f"{name}: cannot be used: no PEM file with a certificate and its key; a key alone: ssl_keyfile"
            return UnusablePem("ssl_certfile", text)
        text = f"{self.certfile}, {name}: cannot be used: no PEM files of a certificate and its key: {text}"
        return UnusablePem("ssl_certfile, ssl_keyfile", text)
