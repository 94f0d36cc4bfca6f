"""What a pipeline wants of an event, and what a reader of one schema gives for the values of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from failsoft.schemas.features.table import FeatureRows


class Want(StrEnum):
    """What a field of an event is wanted as. Where a schema's type has several forms, it decides which one is given."""

    ID = "id"
    TIME = "time"
    NUMBER = "number"
    INTEGER = "integer"
    BOOL = "bool"
    STRING = "string"
    TENSOR = "tensor"


@dataclass(frozen=True, slots=True)
class WantedFields:
    """The fields that a pipeline reads. Paths have dots, as in ``failsoft.schemas.features.paths``.

    Attributes:
        id: path of the event's id; None: the event has no such field.
        time: path of the event's time; None: the event has no such field.
        features: path of the object that holds the features; "" means the event itself.
        fields: what each feature is wanted as, by its path within ``features``.
    """

    id: str | None = None
    time: str | None = None
    features: str = ""
    fields: tuple[tuple[str, Want], ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All names on the paths, where each dot is a step into an object."""
        paths = (self.id or "", self.time or "", self.features, *(path for path, _ in self.fields))
        return frozenset(name for path in paths for name in path.split("."))


class DecodedRows(FeatureRows, Protocol):
    """Decoded values of one schema, in columns; index i is row i. Its values are those of ``FeatureRows``."""

    def column(self, path: str) -> Sequence[Any]:
        """The values at ``path`` from the event's root: that of the id, of the time, or of what holds the features. Of
        the latter only the types count: any dict, also an empty one, stands for an object.
        """


@dataclass(frozen=True, slots=True)
class Decoded:
    """The result of decoding some values of one schema.

    Attributes:
        rows: the values that could be read, in their order.
        kept: the index of each among all values.
        bad: why each of the others could not, by its index. The text names a place in the value where that is known.
    """

    rows: DecodedRows
    kept: Sequence[int]
    bad: Mapping[int, str]


class SchemaReader(Protocol):
    """Reads values of one schema, for one ``WantedFields``. Compiled once a schema.

    A value is what follows Confluent's framing; of Protobuf it begins with the message's indexes.
    """

    def read(self, values: Sequence[bytes]) -> Decoded:
        """Decode ``values``. Never raises because of their content; time and memory are bounded by their bytes."""

    def value(self, value: bytes) -> Any:
        """One whole value as JSON values, for people. Raises Undecodable."""


class Undecodable(ValueError):
    """A value does not fit its schema. The text says how, and where."""
