"""Faults of single Kafka requests for a proxy: answered late, twice or never, sent twice, or delivered long afterwards.

A proxy (tests.proxy) cuts each connection's bytes into requests and answers, and asks a ``Trap`` what to do with each.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

API_KEYS = {
    "Produce": 0,
    "OffsetFetch": 9,
    "InitProducerId": 22,
    "AddPartitionsToTxn": 24,
    "AddOffsetsToTxn": 25,
    "EndTxn": 26,
    "TxnOffsetCommit": 28,
}
"""The requests that a trap can name."""


class RequestFault(StrEnum):
    """What happens to a request that falls into a trap."""

    LATE = "answered late"
    ANSWERED_TWICE = "answered twice"
    LOST = "obeyed, and the connection reset before the answer"
    SILENT = "obeyed, and never answered"
    SENT_TWICE = "sent twice, and answered once"
    STALE = "held while the connection is reset, and delivered long afterwards"


@dataclass(frozen=True, slots=True)
class Trap:
    """Waits for one request.

    Attributes:
        request: the request's name in Kafka.
        fault: what happens to it.
        seconds: how late a late answer or a stale request is.
        clients: the client ids whose requests fall into it.
    """

    request: str
    fault: RequestFault
    seconds: float
    clients: Collection[str]

    def catches(self, frame: bytes) -> bool:
        """Is it this request?"""
        return key_of(frame) == API_KEYS[self.request] and client_of(frame) in self.clients


class Traps:
    """The trap that is set on several proxies at once. The first request that fits goes into it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set: Trap | None = None
        self.sprung = 0

    def set(self, trap: Trap) -> None:
        """Set a trap in place of the last one."""
        with self._lock:
            self._set = trap

    def clear(self) -> None:
        """Remove the trap."""
        with self._lock:
            self._set = None

    def catch(self, frame: bytes) -> Trap | None:
        """The trap into which a request goes, or None. A trap catches one request."""
        with self._lock:
            trap = self._set
            if trap is None or not trap.catches(frame):
                return None
            self._set = None
            self.sprung += 1
            return trap


class Frames:
    """Cuts a stream into messages of Kafka's protocol: each has four bytes of length before it."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def cut(self, chunk: bytes) -> Iterator[bytes]:
        """The messages that ``chunk`` completes, each with its length."""
        self._rest += chunk
        while len(self._rest) >= 4 and len(self._rest) >= (size := 4 + int.from_bytes(self._rest[:4], "big")):
            yield bytes(self._rest[:size])
            del self._rest[:size]


def key_of(request: bytes) -> int:
    """The API key of a request."""
    return int.from_bytes(request[4:6], "big")


def correlation(request: bytes) -> bytes:
    """What its answer has as its first four bytes, after the length."""
    return request[8:12]


def answers(answer: bytes) -> bytes:
    """The correlation of the request that an answer belongs to."""
    return answer[4:8]


def client_of(request: bytes) -> str:
    """The client id of a request."""
    size = int.from_bytes(request[12:14], "big", signed=True)
    return request[14 : 14 + size].decode() if size > 0 else ""
