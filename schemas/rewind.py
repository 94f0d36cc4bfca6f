"""A rewind: an operator's permission to answer events again, kept in the metadata of the committed offset.

It stands before a lane's crash marker. While a lane reads the rewound part of a partition, it keeps the permission
beside each offset that it commits, and marks what it writes. After that part the permission is gone by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from failsoft.schemas import scored_avro, wire
from failsoft.schemas.positions import REWIND, origin_of
from failsoft.schemas.record import Header
from failsoft.schemas.scored_read import is_avro

ID_PATTERN = r"[A-Za-z0-9_-]{1,60}"
_METADATA = re.compile(rf"failsoft-rewind/1 id=({ID_PATTERN}) until=([0-9]{{1,19}})(?:; (.*))?", re.DOTALL)

Row = tuple[bytes | None, bytes | None, list[Header]]
"""A record to write: key, value, headers."""


@dataclass(frozen=True, slots=True)
class Rewind:
    """A permission to answer events again.

    Attributes:
        id: the rewind's id.
        until: the offset before which events may be answered again.
    """

    id: str
    until: int

    def beside(self, metadata: str) -> str:
        """The metadata of a committed offset with this permission, and with a lane's own ``metadata``."""
        own = f"failsoft-rewind/1 id={self.id} until={self.until}"
        return f"{own}; {metadata}" if metadata else own


def split(metadata: str) -> tuple[Rewind | None, str]:
    """The permission in an offset's metadata, and the rest of it."""
    match = _METADATA.fullmatch(metadata)
    return (Rewind(match[1], int(match[2])), match[3] or "") if match else (None, metadata)


def marked(rows: Sequence[Row], rewinds: Mapping[str, Rewind], again: Rewind | None) -> list[Row]:
    """``rows`` with the mark of the rewind that caused each.

    Args:
        rows: outputs of one batch of a lane.
        rewinds: the rewinds of the input topics that the batch was read from.
        again: the rewind of a rung or of the replay topic that the batch was read from. All that is no first answer
            counts as caused by it.
    """
    return [_marked(row, by) if (by := _cause(row, rewinds, again)) else row for row in rows]


def _cause(row: Row, rewinds: Mapping[str, Rewind], again: Rewind | None) -> Rewind | None:
    _, value, headers = row
    if any(name == REWIND for name, _ in headers):
        return None  # it has the mark of an earlier one
    origin = origin_of(value, headers)
    if origin is not None and (rewind := rewinds.get(origin[0])) is not None and origin[1] < rewind.until:
        return rewind
    named = dict(headers)
    repeated = named.get("failsoft-revision", b"0") != b"0" or named.get("failsoft-attempt", b"0") != b"0"
    return again if repeated else None


def _marked(row: Row, by: Rewind) -> Row:
    key, value, headers = row
    if value is not None and "failsoft-revision" in dict(headers):  # an answer
        if is_avro(value):
            value = scored_avro.rewound(value, by.id)
        elif value.endswith(b"}"):
            value = value[:-1] + b',"rewind":' + wire.dumps(by.id) + b"}"
    return key, value, [*headers, (REWIND, by.id.encode())]
