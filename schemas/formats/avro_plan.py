"""Plans how values of an Avro schema are read: the steps in the schema's order, and which of them are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from failsoft.schemas.features.paths import MISSING, Absent, find
from failsoft.schemas.formats.avro_batch import AvroStep
from failsoft.schemas.formats.avro_schema import AvroType
from failsoft.schemas.formats.avro_steps import (
    WIDE,
    Block,
    Collection,
    Constant,
    Number,
    Refusal,
    Sink,
    Text,
    Union,
    Vector,
)
from failsoft.schemas.formats.avro_values import BRANCH, branches, form
from failsoft.schemas.formats.reader import Want, WantedFields
from failsoft.schemas.formats.registered import Unusable

_LONGEST = 200
"""Characters of a path in a message."""

_KINDS = {"null": "null", "array": "a list", "string": "a string", "enum": "a string", "boolean": "true or false"}
_KINDS |= {"bytes": "bytes", "fixed": "bytes", **dict.fromkeys(("int", "long", "float", "double"), "a number")}


@dataclass(frozen=True, slots=True)
class Slot:
    """A wanted path.

    Attributes:
        path: from the event's root.
        want: what the value is wanted as; None: the object itself, which holds the features.
        inside: the path of what holds it; reasons name paths within that.
    """

    path: str
    want: Want | None
    inside: str = ""


@dataclass(frozen=True, slots=True)
class AvroPlan:
    """How values are read.

    Attributes:
        steps: the steps in the schema's order.
        slots: the wanted paths.
        columns: the slot of a path from the root.
        features: the slot of a path within the features.
        reach: how far beyond a value the steps may read (bytes).
    """

    steps: Sequence[AvroStep]
    slots: Sequence[Slot]
    columns: dict[str, int]
    features: dict[str, int]
    reach: int


def plan_avro(root: AvroType, wanted: WantedFields) -> AvroPlan:
    """Plan the reading of ``wanted``. Raises Unusable."""
    prefix = f"{wanted.features}." if wanted.features else ""
    slots: list[Slot] = []
    columns: dict[str, int] = {}
    for path, want in ((wanted.id, Want.ID), (wanted.time, Want.TIME), (wanted.features, None)):
        if path is not None and path not in columns:
            columns[path] = len(slots)
            slots.append(Slot(path, want))
    features = {path: len(slots) + i for i, (path, _) in enumerate(wanted.fields)}
    slots += [Slot(prefix + path, want, wanted.features) for path, want in wanted.fields]
    planner = _Planner(slots)
    sought = [_Sought(i, slot.path) for i, slot in enumerate(slots)]
    if root.kind == "union":
        steps: list[AvroStep] = [Union("the event", [planner.event(part, sought) for part in root.parts])]
    else:
        steps = planner.event(root, sought)
    for block in planner.blocks.values():
        block.prepare()
    return AvroPlan(steps, slots, columns, features, planner.reach)


@dataclass(frozen=True, slots=True)
class _Sought:
    """A slot that is looked for, and the rest of its path; "" means here."""

    slot: int
    rest: str


class _Planner:
    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self.blocks: dict[int, Block] = {}
        self.reach = 64

    def event(self, kind: AvroType, sought: Sequence[_Sought]) -> list[AvroStep]:
        """The steps of a whole event."""
        if kind.kind not in ("record", "map"):
            return [Refusal(f"the event is {_KINDS[kind.kind]}, not an object")]
        return self.steps(kind, "", sought)

    def steps(self, kind: AvroType, path: str, sought: Sequence[_Sought]) -> list[AvroStep]:
        """The steps that read ``kind``, which is at ``path``, and what is sought there or in it."""
        made: list[AvroStep] = []
        match kind.kind:
            case "record":
                return self._record(kind, path, sought)
            case "union":
                parts = [self.steps(part, path, sought) for part in kind.parts]
                self.reach += 10
                return [Union(_label(path), parts)]
            case "array" | "map":
                return self._collection(kind, path, sought)
        made += [self._nothing(each, path, kind) for each in sought if each.rest]
        slots = [each.slot for each in sought if not each.rest]
        if kind.kind == "null":
            return [*made, *(Constant(slot, None) for slot in slots)]
        if kind.width == 0:
            return [*made, *(Constant(slot, b"") for slot in slots)]
        if kind.width is not None:
            block = Block()
            block.add(_label(path), kind, slots)
            self.blocks[id(block)] = block
            self.reach += kind.width if kind.width <= WIDE else 0
            return [*made, block]
        self.reach += 10
        step = (
            Text(_label(path), kind, slots) if kind.kind in ("string", "bytes") else Number(_label(path), kind, slots)
        )
        return [*made, step]

    def _record(self, kind: AvroType, path: str, sought: Sequence[_Sought]) -> list[AvroStep]:
        fields, inner, made = dict(kind.fields), dict[str, list[_Sought]](), list[AvroStep]()
        for each in sought:
            name, _, rest = (each.rest, "", "") if each.rest in fields else each.rest.partition(".")
            if not each.rest:
                made.append(Constant(each.slot, {}))
            elif name in fields:
                inner.setdefault(name, []).append(_Sought(each.slot, rest))
            else:
                way = self._way(each, path)
                plain = "." not in self._slots[each.slot].path.removeprefix(f"{self._slots[each.slot].inside}.")
                why = f"{way} has no {name!r}" if way else f"there is no {name!r}"
                made.append(Constant(each.slot, MISSING if plain else Absent(why)))
        for name, part in kind.fields:
            for step in self.steps(part, f"{path}.{name}" if path else name, inner.get(name, [])):
                if isinstance(step, Block) and made and isinstance(made[-1], Block):
                    made[-1].append(step)
                    del self.blocks[id(step)]
                else:
                    made.append(step)
        return made

    def _way(self, sought: _Sought, path: str) -> str:
        """The path so far, as reasons name it."""
        inside = self._slots[sought.slot].inside
        return "" if path == inside else path.removeprefix(f"{inside}.") if inside else path

    def _nothing(self, sought: _Sought, path: str, kind: AvroType) -> AvroStep:
        way = self._way(sought, path)
        found = f"{_KINDS[kind.kind]}, not an object"
        return Constant(sought.slot, Absent(f"{way} is {found}" if way else found))

    def _collection(self, kind: AvroType, path: str, sought: Sequence[_Sought]) -> list[AvroStep]:
        made: list[AvroStep] = []
        sinks: list[tuple[int, Sink]] = []
        for each in sought:
            if kind.kind == "array" and each.rest:
                made.append(self._nothing(each, path, kind))
            else:
                want = self._slots[each.slot].want or Want.STRING
                sinks.append((each.slot, _sink(form(kind, want), self._way(each, path), each.rest)))
        label = _label(path or "the event")
        self.reach += 10
        other = Collection(label, reader_of(kind), sinks)
        if kind.kind == "array" and kind.parts[0].kind in ("float", "double"):
            return [*made, Vector(label, kind.parts[0], [slot for slot, _ in sinks], other)]
        return [*made, other]


def _label(path: str) -> str:
    """The path in messages: its end, if it is long."""
    return path if len(path) <= _LONGEST else f"…{path[-_LONGEST:]}"


def _sink(made: Callable[[Any], Any] | None, way: str, rest: str) -> Sink:
    def sink(raw: Any) -> Any:
        value = raw if made is None else made(raw)
        if not rest:
            return value
        for name in reversed(way.split(".") if way else []):
            value = {name: value}
        return find(value, f"{way}.{rest}" if way else rest)

    return sink


def reader_of(kind: AvroType) -> Callable[[BytesIO], Any]:
    """Reads one value of this type from a stream, with fastavro. Raises Unusable.

    fastavro gets a schema of the same bytes: enums are ints, logical types what they are stored as, and in a union of
    several types each but null is a record, so that the value says which one it is.
    """
    from fastavro import parse_schema, schemaless_reader
    from fastavro.schema import SchemaParseException

    try:
        parsed = parse_schema(_plain(kind, {}))
    except SchemaParseException as e:
        raise Unusable(f"fastavro refuses the schema: {e}") from None
    return lambda stream: schemaless_reader(stream, parsed, None)


def _plain(kind: AvroType, named: dict[int, str]) -> Any:
    """The schema that fastavro gets."""
    match kind.kind:
        case "enum":
            return "int"
        case "array":
            return {"type": "array", "items": _plain(kind.parts[0], named)}
        case "map":
            return {"type": "map", "values": _plain(kind.parts[0], named)}
        case "record" | "fixed":
            if id(kind) in named:
                return named[id(kind)]
            name = named[id(kind)] = f"T{len(named)}"
            if kind.kind == "fixed":
                return {"type": "fixed", "name": name, "size": kind.width}
            fields = [{"name": field, "type": _plain(part, named)} for field, part in kind.fields]
            return {"type": "record", "name": name, "fields": fields}
        case "union":
            if len(branches(kind)) < 2:
                return [_plain(part, named) for part in kind.parts]
            return [_branch(i, _plain(part, named), named) for i, part in enumerate(kind.parts)]
    return kind.kind


def _branch(i: int, plain: Any, named: dict[int, str]) -> Any:
    if plain == "null":
        return plain
    name = f"T{len(named)}"
    named[-len(named) - 1] = name
    return {"type": "record", "name": name, "fields": [{"name": f"{BRANCH}{i}", "type": plain}]}
