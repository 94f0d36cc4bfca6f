"""Rows of a file as events: lines, cells, keys, the pipeline's format, and a rate that does not drift."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failsoft.schemas.decoding import decode_one
from failsoft.schemas.event import Envelope, Event, origin_of
from failsoft.schemas.features.paths import find
from failsoft.schemas.features.spec import DType, FeatureType, Spec, TensorSpec
from failsoft.workers.operations.csv_cells import looks_like, typed
from failsoft.workers.operations.event_files import BadRow, Csv, EventLine, Lines, Ndjson
from failsoft.workers.operations.rate import Schedule
from tests.kit import Rec

LOANS = Envelope(id="event_id", time="occurred_at", features="features")


def _fed(lines: Lines, blocks: Iterable[bytes]) -> list[bytes]:
    found = [line for block in blocks for line in lines.feed(block)]
    return found + lines.end()


def _rows(
    text: str, envelope: Envelope = LOANS, key: str | None = None, specs: Sequence[Spec] = ()
) -> list[tuple[bytes | None, Any]]:
    rows = Csv(envelope, key, specs).rows(_fed(Lines(quoted=True), [text.encode()]))
    return [(key, json.loads(event)) for key, event in rows]


@given(st.lists(st.binary(max_size=6).map(lambda b: b.replace(b"\n", b"x")), max_size=8), st.data())
def test_lines_do_not_depend_on_block_boundaries(lines: list[bytes], data: st.DataObject) -> None:
    """Lines are cut at line breaks only, not where a read ends, and no byte is lost."""
    whole = b"\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    blocks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = lines[:-1] + [line for line in lines[-1:] if line]
    assert _fed(Lines(), blocks) == expected


@given(st.lists(st.lists(st.text(st.sampled_from('ab,"\n é'), min_size=1, max_size=5), min_size=2, max_size=2)))
def test_csv_is_read_as_it_was_written(table: list[list[str]]) -> None:
    """Quotes, commas and line breaks inside cells are read back for any split into blocks."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["event_id", "text"])
    writer.writerows(table)
    raw = out.getvalue().encode()
    lines = _fed(Lines(quoted=True), [raw[i : i + 3] for i in range(0, len(raw), 3)])
    events = [json.loads(event) for _, event in Csv(LOANS, None).rows(lines)]
    assert [[e["event_id"], e["features"]["text"]] for e in events] == table


@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        ("true", True),
        ("False", False),
        ("7", 7),
        ("-7", -7),
        ("0", 0),
        ("1.50", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", 2.0**63),
        ("007", "007"),
        ("+49", "+49"),
        ("1,5", "1,5"),
        ("NaN", "NaN"),
        ("inf", "inf"),
        ("1e999", "1e999"),
        ("0 - 20K €", "0 - 20K €"),
        ("-", "-"),
        (".", "."),
        ("٣", "٣"),
        (" 7", " 7"),
    ],
)
def test_a_cell_becomes_a_json_value(cell: str, meant: object) -> None:
    """Without a card, a cell is true, false, a number in JSON's notation, or text; never NaN or an infinity."""
    found = looks_like(cell)
    assert found == meant and type(found) is type(meant)


FLOAT, INT, BOOL, STRING, TENSOR = FeatureType


@pytest.mark.parametrize(
    ("kind", "cell", "sent"),
    [
        (STRING, "90210", "90210"),
        (STRING, "01234", "01234"),
        (STRING, "true", "true"),
        (STRING, "NA", "NA"),
        (FLOAT, "50.5", 50.5),
        (FLOAT, "50", 50),
        (FLOAT, "1,050.5", "1,050.5"),
        (FLOAT, "50,5", "50,5"),
        (FLOAT, "true", "true"),
        (FLOAT, "007", "007"),
        (FLOAT, "1e999", "1e999"),
        (FLOAT, "inf", "inf"),
        (FLOAT, "NaN", None),
        (INT, "3.0", 3.0),
        (INT, "<NA>", None),
        (INT, "3.5", 3.5),
        (BOOL, "1", True),
        (BOOL, "0.0", False),
        (BOOL, "True", True),
        (BOOL, "NA", None),
        (BOOL, "yes", "yes"),
        (TENSOR, "[1, [2.5]]", [1, [2.5]]),
        (TENSOR, "AACAPw==", "AACAPw=="),
        (TENSOR, "[1, NaN]", "[1, NaN]"),
        (TENSOR, "5", "5"),
        (TENSOR, "null", None),
    ],
)
def test_a_cell_of_a_feature_has_the_type_that_the_card_says(kind: FeatureType, cell: str, sent: object) -> None:
    """A cell that is not of its type stays text, which a worker refuses: nothing is guessed."""
    tensor = TensorSpec(DType.FLOAT32, (2,)) if kind is TENSOR else None
    found = typed(cell, Spec("x", kind, tensor=tensor))
    assert found == sent and type(found) is type(sent)


def test_the_features_columns_are_written_at_their_paths() -> None:
    """A column has the feature's name or its path. A name with dots, and a path through a value, is one name."""
    specs = [
        Spec("amount", FLOAT, field="after.amount"),
        Spec("age", INT, field="age (years)"),
        Spec("zip.code", STRING),
        Spec("op", STRING, field="meta"),
        Spec("seq", INT, field="meta.seq"),
        Spec("event_id", INT),
    ]
    change = Envelope(id="payload.after.id", time="payload.ts", features="payload")
    text = "payload.after.id,payload.ts,amount,age (years),zip.code,op,meta.seq,event_id,more.x\n" + (
        "7,1790000000000,1.5,41,90210,u,3,9,007\n"
    )
    ((key, event),) = _rows(text, change, specs=specs)
    assert key == b"7" and event == {
        "payload": {
            "after": {"id": "7", "amount": 1.5},
            "ts": "2026-09-21T14:13:20.000Z",
            "age (years)": 41,
            "zip.code": "90210",
            "meta": "u",
            "meta.seq": 3,
            "event_id": 9,
            "more.x": "007",
        }
    }
    read = decode_one(Rec(value=json.dumps(event).encode()), origin_of(Rec()), change)
    assert isinstance(read, Event) and read.id == "7"
    assert [find(read.features, spec.path) for spec in specs] == [1.5, 41, "90210", "u", 3, 9]


def test_the_id_may_be_a_feature_too() -> None:
    """Where the event itself has the features, an id that is a number in the card is sent as one."""
    flat = Envelope(id="id", time=None, features="")
    assert _rows("id,x\n5,1\n", flat, specs=[Spec("id", INT)]) == [(b"5", {"id": 5, "x": 1})]
    assert _rows("id\n5\n", specs=[Spec("id", INT)]) == [(b"5", {"event_id": "5", "features": {"id": 5}})]


def test_two_columns_of_one_feature_are_refused() -> None:
    """Which of the two is meant is not guessed."""
    with pytest.raises(BadRow, match=r"row 1: 'amount' and 'after\.amount' are both the feature 'amount'"):
        _rows("amount,after.amount\n1,2\n", specs=[Spec("amount", FLOAT, field="after.amount")])


def test_a_csv_row_becomes_an_event_in_the_pipelines_format() -> None:
    """Id and time are written under the envelope's names, the rest are features, and an empty cell is left out."""
    text = (
        "id,timestamp,amount,new,note\n50000,2018-10-30 18:00:00.000,1.5,true,\n50001,2018-10-30T20:00:00+02:00,,no,x\n"
    )
    assert _rows(text) == [
        (
            b"50000",
            {"event_id": "50000", "occurred_at": "2018-10-30T18:00:00Z", "features": {"amount": 1.5, "new": True}},
        ),
        (
            b"50001",
            {
                "event_id": "50001",
                "occurred_at": "2018-10-30T20:00:00+02:00",
                "features": {"new": "no", "note": "x"},
            },
        ),
    ]


def test_the_envelopes_own_columns_come_before_the_usual_names() -> None:
    """If a file has both event_id and id, event_id is the id, and id is a feature."""
    assert _rows("id,event_id\n1,e1\n") == [(b"e1", {"event_id": "e1", "features": {"id": 1}})]


def test_features_can_be_top_level_fields() -> None:
    """With features = "" the event object itself holds the features."""
    flat = Envelope(id="id", time=None, features="")
    assert _rows("id,a,b\n1,2,x\n", flat) == [(b"1", {"id": "1", "a": 2, "b": "x"})]


def test_the_key_is_the_chosen_column_or_the_id() -> None:
    """--key names a column; without it and without an id a row has no key and may go to any partition."""
    assert [key for key, _ in _rows("id,customer\n1,c9\n2,\n", key="customer")] == [b"c9", None]
    assert [key for key, _ in _rows("a\n1\n")] == [None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,a\n1,2\n", "row 1.*'a' appears twice"),
        ("a,\n1,2\n", "row 1.*no name"),
        ("a,b\n1,2\n1,2,3\n", "row 3 has 3 cells, but the header has 2"),
        ('a,b\n1,"2\n', "row 2: a quote in it is never closed"),
        ('a,b\n1,2\n3,5" pipe\n4,5\n6,7\n', "row 3: a quote in it is never closed"),
        (",a\n0,1\n", "row 1.*the first column has no name.*index=False"),
        ("a;b\n1;2\n", "row 1.*one column, 'a;b'.*commas, not by ';'"),
        ("sep=;\na;b\n", "row 1.*commas, not by ';'"),
        ("a\tb\n1\t2\n", "row 1.*commas, not by"),
    ],
)
def test_a_csv_that_cannot_be_read_is_refused_by_row(text: str, message: str) -> None:
    """The error names the first row that cannot be read; no row is guessed."""
    with pytest.raises(BadRow, match=message):
        _rows(text)


def test_a_csv_in_another_encoding_is_refused() -> None:
    """Excel's "Unicode text" is UTF-16, and older exports are Latin-1."""
    for raw in ("a,b\n1,2\n".encode("utf-16"), "a,b\n1,ü\n".encode("latin-1")):
        with pytest.raises(BadRow, match=r"is not UTF-8 .+ save the file as UTF-8"):
            list(Csv(LOANS, None).rows(_fed(Lines(quoted=True), [raw])))


def test_a_single_column_may_have_any_name_that_is_a_feature() -> None:
    """A feature's name is known, so a semicolon in it separates nothing."""
    assert _rows("a;b\n1\n", specs=[Spec("a;b", FLOAT)]) == [(None, {"features": {"a;b": 1}})]


def test_an_unknown_key_column_is_refused() -> None:
    """The error lists the existing columns."""
    with pytest.raises(BadRow, match="no column is called 'customer'; there are: id, a"):
        _rows("id,a\n1,2\n", key="customer")


def test_missing_last_cells_of_a_row_are_empty() -> None:
    """Spreadsheets write such rows; they also write a byte order mark and Windows line ends, which are accepted."""
    lines = _fed(Lines(quoted=True), ["\ufeffid,a,b\r\n1,2\r\n".encode()])
    assert [json.loads(e) for _, e in Csv(LOANS, None).rows(lines)] == [{"event_id": "1", "features": {"a": 2}}]


def test_a_time_that_cannot_be_parsed_is_sent_unchanged_and_counted() -> None:
    """The worker uses the record's time instead, and the command prints the count."""
    parse = Csv(LOANS, None)
    (row,) = parse.rows([b"id,timestamp", b"1,yesterday"])
    assert json.loads(row[1])["occurred_at"] == "yesterday" and parse.untimed == 1


def test_ndjson_is_sent_byte_for_byte() -> None:
    """Spacing, key order, trailing carriage returns and malformed lines are kept; only empty lines are skipped."""
    raw = b'{"event_id": "e1",  "x":1.0}\r\nnot json\n\n[1]\n{"event_id":7}'
    rows: list[EventLine] = list(Ndjson(LOANS, None).rows(_fed(Lines(), [raw])))
    assert rows == [
        (b"e1", b'{"event_id": "e1",  "x":1.0}\r'),
        (None, b"not json"),
        (None, b"[1]"),
        (b"7", b'{"event_id":7}'),
    ]


def test_the_key_of_ndjson_is_a_path_and_is_read_beside_a_nan() -> None:
    """A line with NaN goes to the partition of its id, as without."""
    deep = Envelope(id="payload.id", time=None, features="payload.after")
    lines = [b'{"payload": {"id": "a", "after": {"x": NaN}}}', b'{"payload.id": "b"}', b'{"payload": []}']
    assert [key for key, _ in Ndjson(deep, None).rows(lines)] == [b"a", b"b", None]
    assert [key for key, _ in Ndjson(deep, "x.y").rows([b'{"payload": {"after": {"x": {"y": "c"}}}}'])] == [b"c"]


def test_a_key_of_ndjson_may_be_a_feature() -> None:
    """--key is looked up in the event, then in its features."""
    rows = Ndjson(LOANS, "customer").rows([b'{"features":{"customer":"c"}}', b'{"customer":true,"features":1}', b"{}"])
    assert [key for key, _ in rows] == [b"c", b"true", None]


def test_a_rate_does_not_drift() -> None:
    """Each item has a fixed due time and late items are caught up: ten seconds at 500/s give 5,000 items."""
    schedule = Schedule(500.0, start=100.0)
    done = 0
    now = 100.0
    while now < 110.0:
        done += int(schedule.allowed(done, now))
        now += 0.0137 if done % 2 else 0.3  # the clock is read at irregular intervals
    done += int(schedule.allowed(done, 110.0))
    assert done == 5001  # the first is due at once


@given(st.floats(0.1, 1e6), st.integers(0, 10**6), st.floats(0, 1e4))
def test_after_its_wait_the_next_one_may_go(rate: float, done: int, now: float) -> None:
    """After ``wait`` seconds at least one item is allowed; the wait is 0 if one is allowed already."""
    schedule = Schedule(rate, start=0.0)
    wait = schedule.wait(done, now)
    assert (wait == 0.0) == (schedule.allowed(done, now) >= 1)
    assert schedule.allowed(done, now + wait + 1e-6 * (1 + now)) >= 1


def test_without_a_rate_nothing_waits() -> None:
    """Without a rate every item is allowed at once."""
    assert Schedule(None, 0.0).wait(10**9, 0.0) == 0.0
    assert Schedule(None, 0.0).allowed(10**9, 0.0) == float("inf")
