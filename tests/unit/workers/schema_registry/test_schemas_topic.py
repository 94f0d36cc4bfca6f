"""What commands read of the topic of schemas."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from failsoft.schemas import scored_schema
from failsoft.schemas.formats.registered import Registered, SchemaType
from failsoft.schemas.record import Record
from failsoft.workers.kafka import topic_reader
from failsoft.workers.operations import event_readers
from failsoft.workers.schema_registry import answer_schema
from failsoft.workers.settings import Settings
from tests.kit import Rec

ONE, TWO = (Registered(7, SchemaType.AVRO, text) for text in ('"int"', '"long"'))
ANSWERS = [Registered(ref, SchemaType.AVRO, scored_schema.TEXT) for ref in (7, 9)]
PIPELINE = Settings.model_validate(
    {"name": "p", "model": "m", "input": {"topics": ["t"]}, "schema_registry": {"url": "http://127.0.0.1:1"}}
)


class _Topic:
    """A reader of records."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    async def bounds(self) -> dict[Any, Any]:
        return {}

    async def until(self, _: Any) -> AsyncIterator[Sequence[Record]]:
        yield self.records


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """The records of the topic."""
    records: list[Record] = []

    @asynccontextmanager
    async def reader(_: Settings, name: str) -> AsyncIterator[_Topic]:
        assert name == "p.schemas"
        yield _Topic(records)

    monkeypatch.setattr(topic_reader, "reader", reader)
    return records


def entry(found: Registered | None, ref: int = 7) -> Record:
    """A schema, or a tombstone for ``ref``."""
    key = b"%d" % (ref if found is None else found.ref)
    return Rec("p.schemas", 0, 0, key=key, value=None if found is None else found.to_bytes())


async def test_the_first_schema_of_an_id_is_shown_by_until_an_operator_deletes_it(topic: list[Record]) -> None:
    """As workers have it; compaction may not have removed what a tombstone deletes."""
    topic += [entry(ONE), Rec(value=b"{"), entry(TWO)]
    assert await event_readers._kept(PIPELINE) == {7: ONE}
    topic += [entry(None)]
    assert await event_readers._kept(PIPELINE) == {}
    topic += [entry(TWO)]
    assert await event_readers._kept(PIPELINE) == {7: TWO}


async def test_the_newest_id_of_the_schema_of_answers_counts(topic: list[Record]) -> None:
    """Also one that ``topics apply`` wrote again, and one that another schema had before."""
    assert await answer_schema.kept(PIPELINE) is None
    topic += [entry(ONE), entry(ANSWERS[0]), entry(ANSWERS[1])]
    assert await answer_schema.kept(PIPELINE) == 9
    topic += [entry(ANSWERS[0])]
    assert await answer_schema.kept(PIPELINE) == 7
    topic += [entry(None)]
    assert await answer_schema.kept(PIPELINE) == 9


@pytest.mark.parametrize(
    "found",
    [
        ONE,
        Registered(7, SchemaType.JSON, scored_schema.TEXT),
        Registered("a-guid", SchemaType.AVRO, scored_schema.TEXT),
    ],
)
async def test_only_this_versions_schema_of_answers_counts(topic: list[Record], found: Registered) -> None:
    """The topic has the schemas of events too."""
    topic += [Rec(key=b"a-guid" if found.ref == "a-guid" else b"7", value=found.to_bytes())]
    assert await answer_schema.kept(PIPELINE) is None
