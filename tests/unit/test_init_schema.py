"""`failsoft init --schema`: the events' schema fills in the card's features and the pipeline's [input]."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from failsoft.models.catalog.card import ModelCard, load_card
from failsoft.schemas import times
from failsoft.schemas.decoding import decode
from failsoft.schemas.features.reading import columns, columns_in
from failsoft.schemas.features.table import FeatureTable
from failsoft.schemas.formats.registered import Reference, Registered, SchemaType
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.workers import settings
from failsoft.workers.cli import app
from failsoft.workers.operations.avro_writer import AvroWriter
from failsoft.workers.operations.protobuf_tree import chosen, messages
from failsoft.workers.operations.protobuf_writer import ProtobufWriter
from failsoft.workers.schema_registry import compiling, packages
from failsoft.workers.schema_registry.protoc import compiled
from failsoft.workers.scoring.plan import Plan
from tests.kit import Rec

AVRO = {
    "type": "record",
    "name": "Payment",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "items", "type": ["null", "int"], "default": None},
        {"name": "discount", "type": ["double", "null"], "default": 0.5},
        {"name": "currency", "type": {"type": "enum", "name": "Currency", "symbols": ["EUR", "USD"]}},
        {
            "name": "card",
            "type": {
                "type": "record",
                "name": "Card",
                "fields": [
                    {"name": "country", "type": "string"},
                    {"name": "since", "type": {"type": "int", "logicalType": "date"}},
                    {"name": "currency", "type": ["null", "Currency"]},
                ],
            },
        },
        {"name": "embedding", "type": {"type": "array", "items": "float"}},
        {"name": "mac", "type": {"type": "fixed", "name": "Mac", "size": 6}},
        {"name": "tags", "type": {"type": "map", "values": "string"}},
        {"name": "odd", "type": ["string", "int"]},
    ],
}
JSON = {
    "type": "object",
    "required": ["id", "features"],
    "properties": {
        "id": {"type": "string"},
        "features": {
            "type": "object",
            "required": ["a", "v"],
            "properties": {
                "a": {"type": "number"},
                "b": {"type": "integer"},
                "c": {"enum": ["x", None]},
                "v": {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
                "d": {"$ref": "#/$defs/D"},
            },
        },
    },
    "$defs": {"D": {"properties": {"z": {"type": "boolean", "default": True}}}},
}
LOAN = {
    "type": "record",
    "name": "Loan",
    "fields": [
        {"name": name, "type": ["null", "double"] if name == "LoanLength" else kind}
        for name, kind in [
            *(("carValue", "double"), ("SalaryRange", "string"), ("debt_to_income_ratio", "float")),
            *(("LoanLength", "double"), ("repaidLoanOnPrevCar", "boolean"), ("sizeOfDownpayment", "string")),
        ]
    ],
}
DEMO = Path(__file__).resolve().parents[2] / "models" / "repository" / "repayment" / "2" / "model.onnx"


def _init(folder: Path, schema: Any, *arguments: str, name: str = "event.avsc") -> Any:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    (folder / name).write_text(text)
    return CliRunner().invoke(app, ["init", str(folder / "p"), "--schema", str(folder / name), *arguments])


def _card(folder: Path) -> ModelCard:
    return load_card(folder / "p" / "models" / "repository" / "my-model" / "card.toml")


def _events(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "p" / "events.ndjson").read_text().splitlines()]


def test_an_avro_schema_fills_in_the_card(tmp_path: Path) -> None:
    """Types, nested paths, categories, tensors and what stands for null come from the schema; [input] does too."""
    done = _init(tmp_path, AVRO)
    assert done.exit_code == 0, done.output
    made = settings.load(tmp_path / "p", {})
    assert (made.input.format, made.input.id, made.input.time, made.input.features) == (
        *("avro", "event_id", "occurred_at", ""),
    )
    assert made.schema_registry.url == "http://127.0.0.1:8081"
    features = {each.name: each for each in _card(tmp_path).features}
    found = {
        name: (f.spec.path, str(f.type), None if f.impute is None else f.impute.value) for name, f in features.items()
    }
    assert found == {
        "amount": ("amount", "float", None),
        "items": ("items", "int", 0),
        "discount": ("discount", "float", 0.5),
        "currency": ("currency", "string", None),
        "country": ("card.country", "string", None),
        "since": ("card.since", "int", None),
        "card_currency": ("card.currency", "string", "EUR"),
        "embedding": ("embedding", "tensor", None),
        "mac": ("mac", "tensor", None),
    }
    assert features["currency"].categories == ("EUR", "USD")
    assert (features["embedding"].dtype, features["embedding"].shape, features["mac"].shape) == ("float32", (-1,), (6,))
    for said in (
        "tags (a map",
        "odd (it is one of 2 types)",
        "without a value of items, discount, card_currency",
        "'occurred_at'",
    ):
        assert said in done.stderr
    publish = shlex.split(done.stdout.splitlines()[-1])
    assert publish[3:5] == ["--schema", str(tmp_path / "event.avsc")]


def test_example_events_have_times_that_can_be_read(tmp_path: Path) -> None:
    """Also where the schema has the time as text."""
    texts = [{"name": name, "type": "string"} for name in ("event_id", "occurred_at")]
    schema = AVRO | {"fields": [*texts, {"name": "amount", "type": "double"}]}
    assert _init(tmp_path, schema).exit_code == 0
    assert [times.time(each["occurred_at"]) for each in _events(tmp_path)] == [
        f"2026-01-01T12:00:0{n}Z" for n in range(3)
    ]


def _unread(folder: Path, registered: Registered, payloads: list[bytes]) -> set[str]:
    """The features that the new card cannot read of events, as a worker reads them."""
    made = settings.load(folder / "p", {})
    card = _card(folder)
    plan = Plan("m", {"m": card}, [], {}, made.envelope, [], 0.0, {}, "replay")
    reader = asyncio.run(compiling.compile_reader(registered, plan.wanted, made.envelope.format))
    records = [Rec(value=b"\0\0\0\0\1" + payload) for payload in payloads]
    events = decode(records, {}, made.envelope, {1: reader})
    assert not events.failures and not events.untimed and events.ids == ["example-0", "example-1", "example-2"]
    assert isinstance(events.features, FeatureTable)
    return {feature for _, feature in columns_in(events.features, [0, 1, 2], card.specs).why}


def test_the_example_events_are_read_by_the_card(tmp_path: Path) -> None:
    """What publish writes of them has a usable value of each feature, an id and a time."""
    assert _init(tmp_path, AVRO).exit_code == 0
    registered = Registered(1, SchemaType.AVRO, json.dumps(AVRO))
    writer = AvroWriter(registered)
    assert not _unread(tmp_path, registered, [writer.write(event) for event in _events(tmp_path)])


def test_a_json_schema_fills_in_the_card(tmp_path: Path) -> None:
    """What is not required may be missing. The example events are usable values of the features."""
    done = _init(tmp_path, JSON, name="event.schema.json")
    assert done.exit_code == 0, done.output
    made = settings.load(tmp_path / "p", {})
    assert (made.input.format, made.input.id, made.input.time) == ("json", "id", None)
    assert made.schema_registry.url is None and "--schema" not in done.stdout
    card = _card(tmp_path)
    found = {f.name: (f.spec.path, None if f.impute is None else f.impute.value) for f in card.features}
    assert found == {"a": ("a", None), "b": ("b", 0), "c": ("c", "x"), "v": ("v", None), "z": ("d.z", True)}
    events = _events(tmp_path)
    assert not columns([each["features"] for each in events], card.specs).why
    assert len({each["id"] for each in events}) == 3


PROTO = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "common/money.proto";
message Other { double y = 1; }
message Payment {
  string event_id = 1;
  google.protobuf.Timestamp occurred_at = 2;
  double amount = 3;
  optional int32 items = 4;
  google.protobuf.DoubleValue discount = 5;
  enum Currency { EUR = 0; USD = 1; }
  Currency currency = 6;
  repeated float embedding = 7;
  map<string, string> tags = 8;
  oneof kind { string by_phone = 9; uint64 by_web = 10; }
  common.Money price = 11;
}
"""
MONEY = 'syntax = "proto3"; package common; message Money { int64 units = 1; }'


def test_a_protobuf_message_fills_in_the_card(tmp_path: Path) -> None:
    """Imports are found around the file. Fields with presence may be missing; the first message is the default."""
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "money.proto").write_text(MONEY)
    done = _init(tmp_path, PROTO, "--message", "Payment", name="payment.proto")
    assert done.exit_code == 0, done.output
    made = settings.load(tmp_path / "p", {})
    assert (made.input.format, made.input.id, made.input.time) == ("protobuf", "event_id", "occurred_at")
    found = {
        f.name: (f.spec.path, str(f.type), None if f.impute is None else f.impute.value)
        for f in _card(tmp_path).features
    }
    assert found == {
        "amount": ("amount", "float", None),
        "items": ("items", "int", 0),
        "discount": ("discount", "float", 0.0),
        "currency": ("currency", "string", None),
        "embedding": ("embedding", "tensor", None),
        "by_phone": ("by_phone", "string", ""),
        "by_web": ("by_web", "int", 0),
        "units": ("price.units", "int", None),
    }
    assert _events(tmp_path)[0]["by_web"] is None and "--message Payment" in done.stdout
    registered = Registered(1, SchemaType.PROTOBUF, PROTO, (Reference("common/money.proto", MONEY),))
    message = chosen(messages(compiled(registered)), "shop.Payment")
    payloads = [ProtobufWriter(message).write(event) for event in _events(tmp_path)]
    assert {raw[:2] for raw in payloads} == {b"\2\2"}  # one index, which is 1: the second message
    assert _unread(tmp_path, registered, payloads) == {"by_web"}  # of a oneof, the first is set
    (tmp_path / "p").rename(tmp_path / "q")
    done = _init(tmp_path, PROTO, name="payment.proto")
    which = "the first message that no other one holds"
    assert f"each event is one shop.Other, {which}: --message names another (shop.Payment)" in done.stderr


def test_a_models_features_are_found_in_the_schema(tmp_path: Path) -> None:
    """With --onnx the schema says each feature's path; one that it lacks is said. The version is vetted."""
    done = _init(tmp_path, LOAN, "--onnx", str(DEMO), "--registry", "https://schemas:8443/")
    assert done.exit_code == 0, done.output
    features = {each.name: each for each in _card(tmp_path).features}
    assert (features["car_value"].field, features["repaid_loan_on_prev_car"].field) == (
        "carValue",
        "repaidLoanOnPrevCar",
    )
    imputed = features["loan_length"].impute
    assert imputed is not None and imputed.value == 0.0
    assert "the schema allows events without a value of loan_length" in done.stderr
    assert "no field like driver_tenure:" in done.stderr and features["driver_tenure"].field is None
    assert settings.load(tmp_path / "p", {}).schema_registry.url == "https://schemas:8443"


def test_types_that_differ_are_said(tmp_path: Path) -> None:
    """A text where the model takes a number is coerced, and a note names both types."""
    text = {"type": "record", "name": "Loan", "fields": [{"name": "car_value", "type": "string"}]}
    done = _init(tmp_path, text, "--onnx", str(DEMO))
    assert "'car_value' as float, and 'car_value' is string in the schema: coerce = true" in done.stderr
    assert _card(tmp_path).features[0].coerce


RECURSIVE = {"type": "record", "name": "Tree", "fields": [{"name": "left", "type": ["null", "Tree"]}]}
WIDE = {"type": "record", "name": "R0", "fields": [{"name": "x", "type": "int"}]}
for _n in range(1, 40):
    WIDE = {
        "type": "record",
        "name": f"R{_n}",
        "fields": [{"name": "a", "type": WIDE}, {"name": "b", "type": f"R{_n - 1}"}],
    }


@pytest.mark.parametrize(
    ("schema", "name", "words"),
    [
        (RECURSIVE, "event.avsc", "Tree holds itself at left"),
        (WIDE, "event.avsc", "more than 20,000 fields"),
        ({"type": "record", "name": "A", "fields": [{"name": "x", "type": "shop.B"}]}, "event.avsc", "shop.B.avsc"),
        ("{", "event.avsc", "not JSON"),
        ("5", "event.avsc", "not a valid Avro schema"),
        ('"string"', "event.avsc", "no object with fields, but string"),
        ({"properties": {"a": {"$ref": "#/nowhere"}}}, "event.json", "a: $ref '#/nowhere' leads to nothing"),
        ({"properties": {"a": {"$ref": "#"}}}, "event.json", "recursive"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, "event.json", "recursive"),
        ({"properties": {"a": {"type": "text"}}}, "event.json", "a: type 'text' is none of"),
        ({"properties": {"a": {}}}, "event.json", "no field of it can be a feature"),
        ('syntax = "proto3"; message T { T t = 1; }', "event.proto", "T holds itself at t"),
        ('syntax = "proto3"; message T {', "event.proto", "protoc refuses it"),
        ('syntax = "proto3"; import "no/such.proto";', "event.proto", "'no/such.proto' is neither in its folder"),
        ('syntax = "proto3";', "event.proto", "it has no message"),
        ("", "event.xsd", "must end in .avsc, .proto, .json"),
    ],
)
def test_a_schema_that_cannot_be_used_is_one_line(tmp_path: Path, schema: Any, name: str, words: str) -> None:
    """The command exits with 1, names the file and what is wrong, and writes nothing."""
    done = _init(tmp_path, schema, name=name)
    assert done.exit_code == 1, done.output
    assert name in done.stderr and words in done.stderr and "nothing was written" in done.stderr
    assert not (tmp_path / "p").exists()


def test_types_in_files_beside_it_are_found(tmp_path: Path) -> None:
    """An Avro schema may name types of other files, each called after its full name."""
    card = {"type": "record", "name": "Card", "namespace": "shop", "fields": [{"name": "limit", "type": "double"}]}
    (tmp_path / "shop.Card.avsc").write_text(json.dumps(card))
    done = _init(tmp_path, {"type": "record", "name": "A", "fields": [{"name": "card", "type": "shop.Card"}]})
    assert done.exit_code == 0, done.output
    assert [each.spec.path for each in _card(tmp_path).features] == ["card.limit"]


@pytest.mark.parametrize("name", ["event.avsc", "event.json"])
def test_a_library_that_is_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It names the extra that has it, also where the file's name does not say that it is Avro."""
    monkeypatch.setattr(packages, "_PACKAGES", {WireFormat.AVRO: ("no_such_library",)})
    done = _init(tmp_path, AVRO, name=name)
    assert done.exit_code == 1 and "pip install 'failsoft[avro]'" in done.stderr
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("option", [["--message", "M"], ["--registry", "http://schemas"]])
def test_options_of_a_schema_need_one(tmp_path: Path, option: list[str]) -> None:
    """They are refused without --schema, and so is an address that is none."""
    assert CliRunner().invoke(app, ["init", str(tmp_path / "p"), *option]).exit_code == 2
    refused = _init(tmp_path, AVRO, "--registry", "registry:8081")
    assert refused.exit_code == 2 and "Value error" not in refused.stderr
    assert not (tmp_path / "p").exists()
