"""Owns the transport between a worker and a model's process: shared memory for data, a socket for small messages.

A segment has no name. The kernel frees it when the last process that has it open ends, however it ends.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from failsoft.models.isolation.codec import Block, Bytes, Damaged, JsonObject
from failsoft.schemas import wire

FIRST_SEGMENT = 1 << 18
"""Bytes of a new segment. It holds some hundred events, and its size doubles as batches grow."""

LARGEST_ANSWER = 1 << 32
"""Largest size in bytes that an answer may claim. A batch is a few megabytes; only a damaged process claims more."""

_ALIGNED = 64
"""Blocks begin at multiples of a cache line (bytes), which is more than any number type needs."""

_MARK = struct.Struct("=q")  # the number of the call under way; at the beginning, before the first block

_FRAME = 1 << 20
"""Bytes of the longest message. A message has a number for each block, and each feature has one or two blocks."""

_CHUNK = 1 << 16


class Segment:
    """Shared memory that grows and never shrinks. The two sides write in turn; a message passes the turn."""

    def __init__(self, fd: int) -> None:
        """Opens the segment in the file ``fd``. The segment owns ``fd`` from now on."""
        self.fd = fd
        self._map: mmap.mmap | None = None
        self._size = 0

    @classmethod
    def create(cls) -> Segment:
        """A new segment of size 0. Raises OSError."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("failsoft-batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            # Reading the map of a file that was shortened raises SIGBUS. The seal keeps the model's process from
            # ending the worker in this way.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        else:
            with tempfile.TemporaryFile(prefix="failsoft-batch-") as file:
                fd = os.dup(file.fileno())
        return cls(fd)

    def write(self, blocks: Sequence[Block]) -> list[int]:
        """Writes ``blocks`` and returns their sizes in bytes, which ``read`` needs to find them. Raises OSError."""
        views = [memoryview(block) for block in blocks]  # type: ignore[arg-type]  # numpy's stubs know no Buffer
        sizes = [view.nbytes for view in views]
        self._map_at_least(_end(sizes), grow=True)
        assert self._map is not None
        with memoryview(self._map) as whole:
            at = _ALIGNED
            for view, size in zip(views, sizes, strict=True):
                if size:  # an empty array cannot be cast
                    whole[at : at + size] = view.cast("B")
                at = _after(at, size)
        return sizes

    def read(self, sizes: Sequence[int]) -> list[Bytes]:
        """The blocks with these sizes in bytes, as views that are valid until the other side writes. Raises Damaged."""
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise Damaged("block sizes that are not whole numbers from 0")
        self._map_at_least(_end(sizes), grow=False)
        blocks: list[Bytes] = []
        at = _ALIGNED
        for size in sizes:
            assert self._map is not None
            blocks.append(np.frombuffer(self._map, np.uint8, size, at) if size else np.empty(0, np.uint8))
            at = _after(at, size)
        return blocks

    def mark(self, number: int) -> None:
        """Writes into the memory that call ``number`` is under way. The mark outlives the process that wrote it."""
        self._map_at_least(_ALIGNED, grow=True)
        assert self._map is not None
        _MARK.pack_into(self._map, 0, number)

    @property
    def marked(self) -> int:
        """The number of the last mark, 0 if there is none."""
        self._map_at_least(_ALIGNED, grow=True)
        assert self._map is not None
        (number,) = _MARK.unpack_from(self._map, 0)
        return int(number)

    def close(self) -> None:
        """Closes the file. Views that are still in use keep the memory until they are deleted."""
        self._map = None
        os.close(self.fd)

    def _map_at_least(self, size: int, grow: bool) -> None:
        if self._map is not None and size <= self._size:
            return
        there = os.fstat(self.fd).st_size
        if size > there or there == 0:
            if not grow or size > LARGEST_ANSWER:
                raise Damaged(f"{size} bytes claimed of {there}")
            there = max(size, 2 * there, FIRST_SEGMENT)
            os.ftruncate(self.fd, there)
        self._map, self._size = mmap.mmap(self.fd, there), there


def _after(at: int, size: int) -> int:
    return -(-(at + size) // _ALIGNED) * _ALIGNED


def _end(sizes: Sequence[int]) -> int:
    at = _ALIGNED
    for size in sizes:
        at = _after(at, size)
    return at


class ChannelClosed(Exception):
    """The other side has closed the socket or ended."""


class Channel:
    """Sends and receives messages, one JSON object per line, over a socket. The channel owns the socket from now on."""

    def __init__(self, connection: socket.socket, tick: float | None = None) -> None:
        """``tick``: seconds after which ``receive`` returns without a message; None waits without a limit."""
        self.socket = connection
        self._got = b""
        if tick is not None:
            # Not settimeout: it makes two calls, a poll and a read. Each releases the GIL, and the thread gets the GIL
            # back only when the event loop has finished its batch.
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(tick), int(tick % 1 * 1_000_000))
            )

    def send(self, message: JsonObject) -> None:
        """Sends one message without waiting: it is far smaller than the socket's buffer. Raises ChannelClosed."""
        try:
            self.socket.sendall(wire.dumps(message) + b"\n")
        except OSError as error:
            raise ChannelClosed(str(error)) from None

    def receive(self) -> dict[str, Any] | None:
        """The next message, or None after a tick. Raises ChannelClosed, and Damaged if the bytes are not a message."""
        while b"\n" not in self._got:
            try:
                chunk = self.socket.recv(_CHUNK)
            except BlockingIOError:
                return None
            except OSError as error:
                raise ChannelClosed(str(error)) from None
            if not chunk:
                raise ChannelClosed("the socket was closed")
            self.feed(chunk)
        line, _, self._got = self._got.partition(b"\n")
        try:
            message = wire.loads(line, _FRAME)
        except wire.Malformed as error:
            raise Damaged(f"a message that is not JSON: {error}") from None
        if not isinstance(message, dict):
            raise Damaged("a message that is not an object")
        return message

    def feed(self, chunk: bytes) -> None:
        """Adds bytes that were received together with file descriptors. Raises Damaged for a message over the limit."""
        self._got += chunk
        if len(self._got) > _FRAME:
            raise Damaged(f"a message of over {_FRAME} bytes")

    @property
    def pending(self) -> bool:
        """A whole message has arrived, so ``receive`` returns without waiting."""
        return b"\n" in self._got

    def close(self) -> None:
        self.socket.close()
