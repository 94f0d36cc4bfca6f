"""Asks a Kafka, with one request, whether it serves clients and which cluster it is."""

from __future__ import annotations

import socket
import struct


def cluster_at(host: str, port: int) -> str | None:
    """The id of the cluster at ``host:port`` if it has a broker in service; None if there is no answer, or none yet.

    Sends one Metadata request (version 4, no topics) without a client library, which would retry, log and cache. A port
    that accepts connections need not be a Kafka that answers, and another cluster id means another Kafka.
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
    """The cluster id in a MetadataResponse v4, or None without brokers.

    Its fields: correlation id, throttle time, brokers [id, host, port, rack], cluster id, …
    """
    (brokers,) = struct.unpack_from(">i", answer, 8)
    at = 12
    for _ in range(brokers):
        (host,) = struct.unpack_from(">h", answer, at + 4)
        at += 4 + 2 + host + 4
        (rack,) = struct.unpack_from(">h", answer, at)
        at += 2 + max(rack, 0)
    (length,) = struct.unpack_from(">h", answer, at)
    return answer[at + 2 : at + 2 + length].decode() if brokers and length > 0 else None
