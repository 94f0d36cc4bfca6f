"""Unpacks a record batch in which a header's key is not UTF-8, which aiokafka refuses.

Kafka's protocol defines a header's key as a string, but the broker does not check it. aiokafka raises
UnicodeDecodeError for a key that is not UTF-8, so one mistake of a producer would stop the lane at that record for
ever. Java clients read such a key with U+FFFD in it; so does this module. Header values are bytes and need no decoding.
"""

from __future__ import annotations

from typing import Any

from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.util import decode_varint_py


class LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """aiokafka's Python implementation of a record batch, over a buffer that decodes any bytes.

    It reads numbers in Python too: aiokafka's function for it is C code that reads behind the end of the buffer, where
    a damaged length says so, and the process ends with a segmentation fault.
    """

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        buffer: Any = self._buffer  # type: ignore[has-type]
        self._buffer = buffer if isinstance(buffer, _Text) else _Text(buffer)

    def _read_msg(self, decode_varint: Any = decode_varint_py) -> Any:
        return super()._read_msg(decode_varint)


class _Text(bytearray):
    """Bytes whose slices decode without an error: each invalid sequence becomes U+FFFD."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Text(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)
