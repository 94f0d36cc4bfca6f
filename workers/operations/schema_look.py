"""Looks at the schema of a new pipeline's events: what their features may be, and where their id and time are."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from failsoft.schemas.formats.registered import Registered, SchemaType, Unusable
from failsoft.workers.operations import avro_tree, json_schema_tree, protobuf_tree, schema_file
from failsoft.workers.operations.scaffold import EXAMPLE, EventSource, Shape
from failsoft.workers.operations.schema_card import event_shape, features_of_schema, joined
from failsoft.workers.operations.schema_file import UnusableFile
from failsoft.workers.operations.schema_tree import Node
from failsoft.workers.schema_registry import protoc


def described(path: Path, message: str | None, model: Shape | None) -> Shape:
    """What the card and the pipeline file say of events of the schema in a file.

    Args:
        path: the file.
        message: the message, of a Protobuf file; None: the first that no other one holds.
        model: what the card says of the model; None: there is none yet, and the features are the schema's.

    Raises UnusableFile, and OSError for a file that cannot be read.
    """
    schema = schema_file.read(path)
    notes: list[str] = []
    try:
        event = event_shape(*_tree(schema, message, notes))
    except (ValueError, RecursionError) as e:
        raise UnusableFile(f"{path}: {e}") from None
    source = EventSource(schema.type.wire_format, event.id, event.time, event.holder, examples=event.examples)
    before = [*notes, *event.notes]
    if model is None:
        features, more = features_of_schema(event)
        return replace(EXAMPLE, features=features, notes=[*before, *more], source=source)
    made = joined(model.features, event)
    kept = [note for note in model.notes if note not in made.outdated]
    return replace(
        model,
        features=made.features,
        notes=[*kept, *before, *made.notes],
        source=replace(source, examples=made.examples),
        unmatched=made.unmatched,
    )


def _tree(schema: Registered, message: str | None, notes: list[str]) -> tuple[Node, str]:
    """The tree of an event's values, and the name of its record, message or object; empty if it has none."""
    if schema.type is not SchemaType.PROTOBUF:
        if message is not None:
            raise ValueError("only a Protobuf file has messages: leave out --message")
        parsed = json.loads(schema.text)
        avro = schema.type is SchemaType.AVRO
        title = parsed.get("name" if avro else "title") if isinstance(parsed, dict) else None
        tree = avro_tree.read(parsed) if avro else json_schema_tree.read(parsed)
        return tree, title.rpartition(".")[2] if isinstance(title, str) else ""
    try:
        compiled = asyncio.run(protoc.descriptors(schema))
    except Unusable as e:
        raise ValueError(str(e)) from None
    found = protobuf_tree.messages(compiled)
    one = protobuf_tree.chosen(found, message)
    if message is None and len(found) > 1:
        others = ", ".join(name for name in found if name != one.full_name)
        which = "the first message that no other one holds"
        notes.append(f"each event is one {one.full_name}, {which}: --message names another ({others})")
    return protobuf_tree.read(one), one.name
