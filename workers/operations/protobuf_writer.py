"""Writes JSON values as Protobuf messages, by Protobuf's own mapping of JSON. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from failsoft.schemas.formats.avro_encoding import long
from failsoft.workers.operations.avro_scalars import Unwritable

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor


class ProtobufWriter:
    """Writes events that are one message of a schema.

    As in Protobuf's mapping, a field is called by its name or in camel case, a 64-bit integer may be text, bytes are
    base64, an enum is its name, a Timestamp is RFC 3339, and a null is a field that is not set.
    """

    def __init__(self, message: Descriptor) -> None:
        from google.protobuf import message_factory

        self._pool = message.file.pool
        self._make = message_factory.GetMessageClass(message)
        self._indexes = indexes(message)

    def write(self, value: Any) -> bytes:
        """The message's indexes and the message. Raises Unwritable."""
        from google.protobuf import json_format
        from google.protobuf.message import EncodeError

        if not isinstance(value, dict):
            raise Unwritable("the event is not an object")
        try:
            made = json_format.ParseDict(value, self._make(), descriptor_pool=self._pool)
            raw: bytes = made.SerializeToString(deterministic=True)
        except (json_format.ParseError, EncodeError, ValueError, TypeError, RecursionError) as e:
            raise Unwritable(str(e) or type(e).__name__) from None
        return self._indexes + raw


def indexes(message: Descriptor) -> bytes:
    """Where a message is in its file, as Confluent's framing says it: how many indexes, and each, as zigzag varints.

    The first message of a file is one zero byte.
    """
    path: list[int] = []
    at: Descriptor | None = message
    while at is not None:
        outer = at.containing_type
        beside = at.file.message_types_by_name.values() if outer is None else outer.nested_types
        path.append([each.full_name for each in beside].index(at.full_name))
        at = outer
    if path == [0]:
        return b"\0"
    return b"".join(map(long, (len(path), *reversed(path))))
