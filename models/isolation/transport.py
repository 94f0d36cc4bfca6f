"""How a worker and a model's process reach each other: a segment of shared memory, and small messages over a socket.

A segment has no name: it is gone with the last process that has it open, whatever ends that one.
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

from failsoft.models.isolation.codec import About, Block, Bytes, Damaged
from failsoft.schemas import wire

FIRST = 1 << 18
"""Bytes of a new segment: some hundred events; it doubles as batches grow."""

MOST = 1 << 32
"""Bytes that an answer may claim. A batch is a few megabytes; what says more is out of its mind."""

_ALIGNED = 64
"""Blocks begin at multiples of a cache line, which is more than any number's own alignment."""

_MARK = struct.Struct("=q")  # stands at the beginning, before the first block

_FRAME = 1 << 20
"""Bytes of the longest message: a number for each block, and there is a block or two for each feature."""

_CHUNK = 1 << 16


class Segment:
    """Shared memory that grows and never shrinks. One side writes and then the other: they take turns by messages."""

    def __init__(self, fd: int) -> None:
        """Of the file ``fd``, which is the segment's from now on."""
        self.fd = fd
        self._map: mmap.mmap | None = None
        self._size = 0

    @classmethod
    def create(cls) -> Segment:
        """A new one, of no size yet. Raises OSError."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("failsoft-batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            # Who reads a map of a file that shrank is ended by SIGBUS: the other side may not have that power.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        else:
            with tempfile.TemporaryFile(prefix="failsoft-batch-") as file:
                fd = os.dup(file.fileno())
        return cls(fd)

    def write(self, blocks: Sequence[Block]) -> list[int]:
        """Puts ``blocks`` where ``read`` finds them by their sizes, which are returned. Raises OSError."""
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
        """The blocks of these sizes, as views: they hold until the other side writes. Raises Damaged."""
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise Damaged("sizes that are none")
        self._map_at_least(_end(sizes), grow=False)
        found: list[Bytes] = []
        at = _ALIGNED
        for size in sizes:
            assert self._map is not None
            found.append(np.frombuffer(self._map, np.uint8, size, at) if size else np.empty(0, np.uint8))
            at = _after(at, size)
        return found

    def mark(self, number: int) -> None:
        """Say in the memory itself that ``number`` is what is being worked on: it outlives whoever says it."""
        self._map_at_least(_ALIGNED, grow=True)
        assert self._map is not None
        _MARK.pack_into(self._map, 0, number)

    @property
    def marked(self) -> int:
        """The last mark, 0 for none."""
        self._map_at_least(_ALIGNED, grow=True)
        assert self._map is not None
        (number,) = _MARK.unpack_from(self._map, 0)
        return int(number)

    def close(self) -> None:
        """Views that are still held keep the memory until they are gone."""
        self._map = None
        os.close(self.fd)

    def _map_at_least(self, size: int, grow: bool) -> None:
        if self._map is not None and size <= self._size:
            return
        there = os.fstat(self.fd).st_size
        if size > there or there == 0:
            if not grow or size > MOST:
                raise Damaged(f"{size} bytes claimed of {there}")
            there = max(size, 2 * there, FIRST)
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
    """The other side is gone."""


class Channel:
    """Messages, a JSON object a line, over a socket that is this channel's from now on."""

    def __init__(self, connection: socket.socket, tick: float | None = None) -> None:
        """``tick``: seconds after which ``receive`` comes back without a message; None waits for ever."""
        self.socket = connection
        self._got = b""
        if tick is not None:
            # Not settimeout: that polls before it reads, and each of the two lets go of the GIL, which a thread gets
            # back only when the event loop's batch is done.
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(tick), int(tick % 1 * 1_000_000))
            )

    def send(self, message: About) -> None:
        """Raises ChannelClosed. A message is far smaller than the socket's buffer, so this does not wait."""
        try:
            self.socket.sendall(wire.dumps(message) + b"\n")
        except OSError as error:
            raise ChannelClosed(str(error)) from None

    def receive(self) -> dict[str, Any] | None:
        """The next message, or None after a tick. Raises ChannelClosed, and Damaged for what is no message."""
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
            raise Damaged(f"a message that is none: {error}") from None
        if not isinstance(message, dict):
            raise Damaged("a message that is no object")
        return message

    def feed(self, chunk: bytes) -> None:
        """Bytes that came another way: with file descriptors."""
        self._got += chunk
        if len(self._got) > _FRAME:
            raise Damaged(f"a message of over {_FRAME} bytes")

    @property
    def pending(self) -> bool:
        """Is there a whole message that need not be waited for?"""
        return b"\n" in self._got

    def close(self) -> None:
        self.socket.close()
