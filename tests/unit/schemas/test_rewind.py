"""The permission to answer again, and the marks of what it caused."""

from __future__ import annotations

import json

import pytest

from failsoft.schemas import scored_avro, scored_read
from failsoft.schemas.positions import REWIND
from failsoft.schemas.rewind import Rewind, Row, marked, split
from tests.unit.schemas.test_scored import PLAIN

R = Rewind("20260131T120000Z-ab12cd", 200)


@pytest.mark.parametrize("own", ["", "failsoft/1 among deaths=1 until=5 of=5"])
def test_the_permission_stands_beside_the_lanes_own_metadata(own: str) -> None:
    """A crash marker must survive a rewind."""
    assert split(R.beside(own)) == (R, own)


@pytest.mark.parametrize("text", ["", "failsoft/1 suspect deaths=1 until=5 of=5", "failsoft-rewind/1 id= until=5"])
def test_any_other_metadata_is_no_permission(text: str) -> None:
    """Other programs may write metadata."""
    assert split(text) == (None, text)


def _answer(offset: int, revision: int) -> Row:
    value = json.dumps({"origin": {"topic": "t", "partition": 0, "offset": offset}}).encode()
    return b"k", value, [("failsoft-revision", b"%d" % revision)]


def _retry(offset: int, attempt: int) -> Row:
    headers: list[tuple[str, bytes | None]] = [("failsoft-origin-topic", b"t"), ("failsoft-attempt", b"%d" % attempt)]
    return b"k", b"own}", [*headers, ("failsoft-origin-offset", b"%d" % offset)]


def test_what_a_rewind_of_an_input_caused_is_marked() -> None:
    """The answer in its value and a header, the retry in a header alone: its value is evidence."""
    answer, retry, later = marked([_answer(199, 0), _retry(5, 0), _answer(200, 0)], {"t": R}, None)
    assert json.loads(answer[1] or b"")["rewind"] == R.id and (REWIND, R.id.encode()) in answer[2]
    assert retry[1] == b"own}" and (REWIND, R.id.encode()) in retry[2]
    assert later == _answer(200, 0)


def test_an_answer_in_avro_is_marked_like_one_in_json() -> None:
    """Its last field is the mark, and the rest stays as it is."""
    value, _ = scored_avro.encode(PLAIN, 7)
    headers: list[tuple[str, bytes | None]] = [("failsoft-revision", b"0")]
    [(_, found, named)] = marked([(b"k", value, headers)], {"loans": R}, None)
    assert scored_read.loads(found, 10_000) == scored_read.loads(value, 10_000) | {"rewind": R.id}
    assert found is not None and found[:5] == value[:5] and (REWIND, R.id.encode()) in named


def test_of_a_rewound_rung_all_but_first_answers_are_marked() -> None:
    """Its records do not say where on the rung they were. The first answers of the same batch are no repetition."""
    rows = marked([_answer(5, 0), _answer(5, 1), _retry(6, 1), _retry(6, 0)], {}, R)
    assert [any(name == REWIND for name, _ in headers) for _, _, headers in rows] == [False, True, True, False]


def test_a_mark_is_kept() -> None:
    """A correction belongs to the rewind that wrote its retry."""
    key, value, headers = _answer(5, 1)
    row = key, value, [*headers, (REWIND, b"older")]
    assert marked([row], {"t": R}, None) == [row]
