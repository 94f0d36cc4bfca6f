"""The positions in a header of the lanes' outputs, and the origin of an output."""

from __future__ import annotations

import pytest

from failsoft.schemas import positions, scored_avro
from failsoft.schemas.positions import POSITIONS, furthest, header, key, origin_of, position
from tests.unit.schemas.test_scored import PLAIN


def test_positions_are_read_as_they_were_written() -> None:
    """Also beside the other headers of an answer."""
    given = {"b.events": 17, "a:AbC": 0}
    assert positions.read([("failsoft-revision", b"0"), header(given)]) == given
    assert header(given)[1] == b'{"a:AbC":0,"b.events":17}'


@pytest.mark.parametrize("raw", [None, b"", b"[1]", b'{"a":-1}', b'{"a":1.5}', b'{"a":true}', b"\xff"])
def test_what_another_program_wrote_is_no_position(raw: bytes | None) -> None:
    """A lane must not stop for a header that happens to have the name."""
    assert positions.read([(POSITIONS, raw)]) is None


def test_a_topic_made_anew_has_no_position_of_the_former_one() -> None:
    """Its records have nothing to do with those of the former topic. Positions without ids are of the present one."""
    known = {key("t", "old"): 500, "u": 7}
    assert position(known, "t", "new") is None and position(known, "t", "old") == 500
    assert position(known, "t", None) == 500  # the ids cannot be asked
    assert position(known, "u", "any") == 7 and position(known, "none", None) is None


def test_the_furthest_of_several() -> None:
    """The tails of several partitions are of different times."""
    assert furthest([{"a": 1, "b": 5}, {}, {"a": 3}]) == {"a": 3, "b": 5}


@pytest.mark.parametrize(
    ("value", "headers", "found"),
    [
        (b'{"origin":{"topic":"t","partition":0,"offset":17}}', [], ("t", 17)),
        (b"any", [("failsoft-origin-topic", b"t"), ("failsoft-origin-offset", b"9")], ("t", 9)),
        (b"any", [("failsoft-origin-topic", b"t"), ("failsoft-origin-offset", b"x")], None),
        (b'{"origin":{"topic":"t","offset":"17"}}', [], None),
        (b'"offset":', [], None),
        (scored_avro.encode(PLAIN, 7)[0], [], ("loans", 17)),
        (scored_avro.encode(PLAIN, 7)[0][:-3], [], None),
        (b"\0\0\0\0\7" + b"\0" * 50, [], None),
        (None, [], None),
    ],
)
def test_an_output_names_its_origin(
    value: bytes | None, headers: list[tuple[str, bytes | None]], found: tuple[str, int] | None
) -> None:
    """In its value, or in headers; other programs' records have none."""
    assert origin_of(value, headers) == found
