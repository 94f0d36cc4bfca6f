"""Columns of decoded Protobuf messages: a path is looked up in the message type once, then read from all rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, repeat
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.paths import MISSING, Absent, find
from failsoft.schemas.formats.protobuf_known import JSON_TYPES, Convert, known, known_column
from failsoft.schemas.formats.protobuf_values import (
    NUMBERS,
    STRING,
    Values,
    by_key,
    is_map,
    is_message,
    repeated,
    short,
)
from failsoft.schemas.formats.reader import DecodedRows, Want, WantedFields

Messages = Sequence[Any]

_NUMBERS: frozenset[type] = frozenset({int, float})
_NUMBERS_OR_NONE = _NUMBERS | {Absent, type(None)}

HOLDER: dict[str, Any] = {}
"""Stands for each message that holds features and is there: its content is read as columns."""


@dataclass(frozen=True, slots=True)
class Types:
    """The message types of a schema.

    Attributes:
        class_of: the class of a message type.
        checked: the files whose strings are checked to be UTF-8 when a value is decoded.
        values: makes values of their fields.
    """

    class_of: Callable[[Any], Any]
    checked: frozenset[str]
    values: Values


@dataclass(frozen=True, slots=True)
class MessageStep:
    """A message that a path leads through: its field's name, the class that has the field, and why the path ends there
    if it is not set."""

    name: str
    owner: Any
    absent: Absent


@dataclass(frozen=True, slots=True)
class Column:
    """How one path is read.

    Attributes:
        steps: the messages that the path leads through.
        owner: the class of the last one, or the message's own.
        leaf: the field at the end; "" where the path ends in the last message itself.
        absent: what stands for a leaf that is not set; None if it always has a value.
        convert: makes a value of the leaf; None if it is one as it is.
        convert_all: makes the values of all leaves at once; None: ``convert`` makes each.
        rest: the path within the object that the leaf is; "" if the path ends in the leaf.
        number: the leaf is a plain number.
        inside: how the rest of the path is read in a map of messages; None: it is looked up in JSON values.
        unchecked: the leaf is a string of which decoding does not check that it is UTF-8; it is bytes if it is not.
        nothing: why the path leads to nothing in this message type.
    """

    steps: tuple[MessageStep, ...] = ()
    owner: Any = None
    leaf: str = ""
    absent: Absent | None = None
    convert: Convert | None = None
    convert_all: Callable[[Messages], list[Any]] | None = None
    rest: str = ""
    number: bool = False
    unchecked: bool = False
    nothing: Absent | None = None
    inside: InMap | None = None

    @property
    def object(self) -> Column:
        """How the object is read that the rest of the path leads into."""
        return replace(self, rest="", inside=None)

    def read(self, messages: Messages) -> list[Any]:
        """The value of each row, at the end of the whole path."""
        return self.within(self.values(messages)) if self.rest else self.values(messages)

    def within(self, objects: list[Any]) -> list[Any]:
        """The values at the ``rest`` of the path in what ``values`` gave."""
        return [find(each, self.rest) for each in objects] if self.inside is None else self.inside.values(objects)

    def holders(self, messages: Messages) -> tuple[Messages, dict[int, Absent]]:
        """The messages that have the leaf, and the rows that have none. These have an empty message."""
        at, missing = messages, dict[int, Absent]()
        for step in self.steps:
            for row in _unset(step.owner, at, step.name):
                missing.setdefault(row, step.absent)
            at = list(map(attrgetter(step.name), at))
        return at, missing

    def values(self, messages: Messages) -> list[Any]:
        """The value of each row; of a path with a ``rest``, the object that it leads into."""
        if self.nothing is not None:
            return [self.nothing] * len(messages)
        at, missing = self.holders(messages)
        if self.leaf:
            values = list(map(attrgetter(self.leaf), at))
            if self.convert_all is not None:
                values = self.convert_all(values)
            elif self.convert is not None:
                values = list(map(self.convert, values))
            if self.absent is not None:
                for row in _unset(self.owner, at, self.leaf):
                    values[row] = self.absent
        else:
            values = [HOLDER] * len(at)
        for row, absent in missing.items():
            values[row] = absent
        return values


@dataclass(frozen=True, slots=True)
class InMap:
    """How a path is read that leads into a map of messages: as one outside of a map, so also what is not on the wire.

    Attributes:
        ways: each key that the path may begin with, the longest first, and how the rest is read in the key's message.
        absent: what stands for a map that has none of these keys.
    """

    ways: Sequence[tuple[str, Column | Convert]]
    absent: Absent

    def values(self, maps: Sequence[Any]) -> list[Any]:
        """The values of maps, whose messages are by the keys' text; an Absent stands for itself."""
        made = [each if isinstance(each, Absent) else self.absent for each in maps]
        left = [row for row, each in enumerate(maps) if not isinstance(each, Absent)]
        for key, way in self.ways:
            there = [row for row in left if key in maps[row]]
            messages = [maps[row][key] for row in there]
            found = way.read(messages) if isinstance(way, Column) else list(map(way, messages))
            for row, value in zip(there, found, strict=True):
                made[row] = value
            done = {row for row, value in zip(there, found, strict=True) if not isinstance(value, Absent)}
            left = [row for row in left if row not in done]
        return made


def _in_map(types: Types, inner: Any, path: str, want: Want | None, way: str) -> InMap:
    """How ``path`` is read in a map of ``inner`` messages, which is at ``way``."""
    names = path.split(".")
    ways: list[tuple[str, Column | Convert]] = []
    for i in range(len(names), 0, -1):
        key, rest = ".".join(names[:i]), ".".join(names[i:])
        if not rest or inner.full_name in JSON_TYPES:
            convert = known(inner, want)
            ways.append((key, partial(_json_in, convert, rest) if convert else lambda _: HOLDER))
        else:
            ways.append((key, column(types, types.class_of(inner), rest, want, way=f"{way}.{key}")))
    return InMap(ways, Absent(f"{way} has no {names[0]!r}"))


def _json_in(convert: Convert, rest: str, message: Any) -> Any:
    value = convert(message)
    return find(value, rest) if rest else value


def _unset(owner: Any, messages: Messages, name: str) -> list[int]:
    """The rows in which a field is not set."""
    if all(map(owner.HasField, messages, repeat(name))):
        return []
    return [row for row, has in enumerate(map(owner.HasField, messages, repeat(name))) if not has]


def _numbers(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """A column of numbers, NaN in place of what is absent or null; None if a value is something else."""
    types = set(map(type, values))
    if not types <= _NUMBERS_OR_NONE:
        return None
    try:
        return np.array([value if type(value) in _NUMBERS else np.nan for value in values], np.float64)
    except OverflowError:  # an integer is beyond float64
        return None


def column(types: Types, owner: Any, path: str, want: Want | None, features: str = "", way: str = "") -> Column:
    """How ``path`` within the object at ``features`` is read from messages of the class ``owner``; if it is empty, that
    object itself. ``way``: the path that leads to these messages, in reasons.
    """
    steps: list[MessageStep] = []
    names = [name for part in (features, path) if part for name in part.split(".")]
    above = features.count(".") + 1 if features else 0
    for place, name in enumerate(names):
        if place == above > 0 and path:
            way = ""  # reasons name places within the features, as those of JSON do
        leaf = owner.DESCRIPTOR.fields_by_name.get(name)
        if leaf is None:
            missing = f"{way} has no {name!r}" if way else "missing"
            return Column(nothing=Absent(f"{missing}: {short(owner.DESCRIPTOR.full_name)} has no such field"))
        absent = Absent(f"{way} has no {name!r}") if way else MISSING
        way = f"{way}.{name}" if way else name
        rest = ".".join(names[place + 1 :])
        many = repeated(leaf)
        inner = leaf.message_type if is_message(leaf) and not many else None
        of_json = inner is not None and inner.full_name in JSON_TYPES
        if inner is not None and not of_json and (rest or not path):
            steps.append(MessageStep(name, owner, absent))
            owner = types.class_of(inner)
            continue
        if rest and not of_json and not is_map(leaf):
            return Column(nothing=Absent(f"{way} is {'a list' if many else 'a single value'}, not an object"))
        of = leaf.message_type.fields_by_name["value"].message_type if rest and is_map(leaf) else None
        return Column(
            tuple(steps),
            owner,
            name,
            absent if leaf.has_presence else None,
            types.values.converter(leaf, want) if of is None else by_key(leaf),
            None if inner is None else known_column(inner, want),
            rest,
            number=leaf.type in NUMBERS and not many,
            unchecked=leaf.type == STRING and not many and leaf.file.name not in types.checked,
            inside=None if of is None else _in_map(types, of, rest, want, way),
        )
    return Column(tuple(steps), owner)


@dataclass(slots=True)
class ProtobufRows:
    """The DecodedRows of messages of one type.

    Attributes:
        columns: how each path from the root is read.
        features: how each wanted path within the features is read.
        messages: one a row.
        objects: the objects that were read already, since several paths lead into one.
    """

    columns: Mapping[str, Column]
    features: Mapping[str, Column]
    messages: Messages
    objects: dict[Column, list[Any]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.messages)

    def column(self, path: str) -> Sequence[Any]:
        return self._read(self.columns[path])

    def feature(self, path: str) -> Sequence[Any]:
        return self._read(self.features[path])

    def matrix(self, paths: Sequence[str]) -> NDArray[np.float64] | None:
        """NaN stands for what is not set. None if a value is neither a number nor absent."""
        columns = [self.features[path] for path in paths]
        first = columns[0] if columns else None
        if first is not None and all(each.number and each.steps == first.steps for each in columns):
            return self._numbers(columns)
        made = np.empty((self.size, len(columns)), np.float64)
        groups: dict[tuple[MessageStep, ...], list[int]] = {}
        for j, each in enumerate(columns):
            if each.number:
                groups.setdefault(each.steps, []).append(j)
                continue
            numbers = _numbers(self._read(each))
            if numbers is None:
                return None
            made[:, j] = numbers
        for places in groups.values():
            made[:, places] = self._numbers([columns[j] for j in places])
        return made

    def _numbers(self, columns: Sequence[Column]) -> NDArray[np.float64]:
        """The numbers of columns with the same steps."""
        at, missing = columns[0].holders(self.messages)
        names = [each.leaf for each in columns]
        cells = map(attrgetter(names[0]), at) if len(names) == 1 else chain.from_iterable(map(attrgetter(*names), at))
        made = np.fromiter(cells, np.float64, len(at) * len(names)).reshape(len(at), len(names))
        for j, each in enumerate(columns):
            if each.absent is not None and (unset := _unset(each.owner, at, each.leaf)):
                made[unset, j] = np.nan
        made[list(missing)] = np.nan
        return made

    def _read(self, column: Column) -> list[Any]:
        if not column.rest:
            return column.values(self.messages)
        of = column.object
        if of not in self.objects:
            self.objects[of] = of.values(self.messages)
        return column.within(self.objects[of])


@dataclass(slots=True)
class ReadRows:
    """The DecodedRows of messages that are gone: all columns were read."""

    size: int
    columns: Mapping[str, Sequence[Any]]
    features: Mapping[str, Sequence[Any]]

    def column(self, path: str) -> Sequence[Any]:
        return self.columns[path]

    def feature(self, path: str) -> Sequence[Any]:
        return self.features[path]

    def matrix(self, paths: Sequence[str]) -> NDArray[np.float64] | None:
        columns = [_numbers(self.features[path]) for path in paths]
        return None if any(each is None for each in columns) else np.array(columns, np.float64).T.copy()


@dataclass(slots=True)
class MixedRows:
    """The DecodedRows of messages of several types.

    Attributes:
        parts: the rows of each type, with their places among all rows.
    """

    parts: Sequence[tuple[DecodedRows, Sequence[int]]]

    @property
    def size(self) -> int:
        return sum(len(places) for _, places in self.parts)

    def column(self, path: str) -> Sequence[Any]:
        return self._merged(lambda rows: rows.column(path))

    def feature(self, path: str) -> Sequence[Any]:
        return self._merged(lambda rows: rows.feature(path))

    def matrix(self, paths: Sequence[str]) -> NDArray[np.float64] | None:
        made = np.empty((self.size, len(paths)), np.float64)
        for rows, places in self.parts:
            part = rows.matrix(paths)
            if part is None:
                return None
            made[places] = part
        return made

    def _merged(self, read: Callable[[DecodedRows], Sequence[Any]]) -> list[Any]:
        made: list[Any] = [None] * self.size
        for rows, places in self.parts:
            for place, value in zip(places, read(rows), strict=True):
                made[place] = value
        return made


class MessageType:
    """One message type of a schema, compiled for what is wanted of it."""

    def __init__(self, types: Types, owner: Any, wanted: WantedFields) -> None:
        """``owner``: the class of the messages."""
        self.type = owner
        self.columns: dict[str, Column] = {}
        """How each path from the event's root is read."""
        for path, want in ((wanted.id, Want.ID), (wanted.time, Want.TIME)):
            if path is not None:
                self.columns.setdefault(path, column(types, owner, path, want))
        if wanted.features:
            self.columns.setdefault(wanted.features, column(types, owner, "", None, wanted.features))
        before = f"{wanted.features}." if wanted.features else ""
        self.features = {path: column(types, owner, path, want, wanted.features) for path, want in wanted.fields}
        """How each path within the features is read."""
        unchecked = [*self.columns.items(), *((f"{before}{path}", each) for path, each in self.features.items())]
        self.unchecked = [(path, each) for path, each in unchecked if each.unchecked]
        """The wanted strings that decoding does not check."""

    def rows(self, messages: Messages) -> ProtobufRows:
        """The decoded messages as rows."""
        return ProtobufRows(self.columns, self.features, messages)

    def read(self, rows: DecodedRows) -> ReadRows:
        """Read all columns of ``rows``, which are of this type."""
        columns = {path: rows.column(path) for path in self.columns}
        return ReadRows(rows.size, columns, {path: rows.feature(path) for path in self.features})
