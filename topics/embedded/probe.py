"""One question to a Kafka: does it serve clients, and which cluster is it?"""

from __future__ import annotations

import socket
import struct


def cluster_at(host: str, port: int) -> str | None:
    """The id of the cluster that answers on ``host:port`` and has a broker in service; None if nobody, or none yet.

    One Metadata request (version 4, no topics), spoken here by hand: a client library would retry, log and cache,
    where this has one question. A port that merely accepts connections is not a Kafka that answers, and an answer with
    another id is somebody else's Kafka.
    """
    request = struct.pack(">hhih", 3, 4, 1, -1) + struct.pack(">i?", 0, False)
    try:
        with socket.create_connection((host, port), timeout=2.0) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", _read(connection, 4))
            return _cluster_in(_read(connection, size))
    except (OSError, EOFError, struct.error, UnicodeDecodeError):
        return None


def _read(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = connection.recv(size - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def _cluster_in(answer: bytes) -> str | None:
    """Of a MetadataResponse v4: correlation id, throttle time, brokers [id, host, port, rack], cluster id, …"""
    (brokers,) = struct.unpack_from(">i", answer, 8)
    at = 12
    for _ in range(brokers):
        (host,) = struct.unpack_from(">h", answer, at + 4)
        at += 4 + 2 + host + 4
        (rack,) = struct.unpack_from(">h", answer, at)
        at += 2 + max(rack, 0)
    (length,) = struct.unpack_from(">h", answer, at)
    return answer[at + 2 : at + 2 + length].decode() if brokers and length > 0 else None
