"""`failsoft init` for a model and a topic that exist: its columns, the schema's fields, and what to do next."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from typer.testing import CliRunner

from failsoft.models.catalog.card import ModelCard, load_card
from failsoft.schemas.features.reading import columns
from failsoft.workers import settings
from failsoft.workers.cli import app
from tests.onnx_models import node, onnx_model

AVRO = {
    "type": "record",
    "name": "Payment",
    "namespace": "shop.v1",
    "fields": [
        {"name": "payment_id", "type": "string"},
        {"name": "customer_id", "type": "string"},
        {"name": "amount", "type": "double"},
        {"name": "card", "type": {"type": "record", "name": "Card", "fields": [{"name": "age_days", "type": "int"}]}},
        {"name": "embedding", "type": {"type": "array", "items": "float"}},
    ],
}
PROTO = """syntax = "proto3"; package shop; import "google/protobuf/wrappers.proto";
message Card { string country = 1; }
message Merchant { string category = 1; }
message Line { double price = 1; }
message Payment {
  string payment_id = 1; double amount = 2; Card card = 3; optional Merchant merchant = 4; map<string, Line> lines = 5;
}
message Refund { Payment of = 1; double amount = 2; }
"""


def _model(folder: Path, *inputs: tuple[str, int]) -> str:
    """A model of a library for tables: a classifier over the columns of its inputs, which have no names."""
    total = sum(width for _, width in inputs)
    model = onnx_model(
        [(name, "float", ["n", width]) for name, width in inputs],
        [("label", "int64", ["n"]), ("scores", "float", ["n", 2])],
        node("Concat", [name for name, _ in inputs], ["all"], axis=1),
        node(
            "LinearClassifier",
            ["all"],
            ["label", "raw"],
            domain="ai.onnx.ml",
            coefficients=np.linspace(-1, 1, 2 * total).tolist(),
            intercepts=[0.0, 0.0],
            classlabels_ints=[0, 1],
            post_transform="SOFTMAX",
        ),
        node("Identity", ["raw"], ["scores"]),
    )
    path = folder / "fraud.onnx"
    onnx.save(model, str(path))
    return str(path)


def _init(folder: Path, text: str, name: str, *arguments: str) -> Any:
    (folder / name).write_text(text)
    return CliRunner().invoke(app, ["init", str(folder / "p"), "--schema", str(folder / name), *arguments])


def _card(folder: Path) -> ModelCard:
    return load_card(folder / "p" / "models" / "repository" / "fraud" / "card.toml")


def _next(done: Any) -> list[str]:
    return [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]


def test_a_list_of_the_schema_is_one_feature_of_a_models_columns(tmp_path: Path) -> None:
    """Where it is called like the input; the example events have its length, and nothing is left to name."""
    file = _model(tmp_path, ("amount", 1), ("age_days", 1), ("embedding", 4))
    done = _init(tmp_path, json.dumps(AVRO), "payment.avsc", "--onnx", file)
    assert done.exit_code == 0 and "it may serve" in done.stdout, done.output
    found = [(f.name, f.spec.path, str(f.type), tuple(f.shape or ())) for f in _card(tmp_path).features]
    assert found == [
        ("amount", "amount", "float", ()),
        ("age_days", "card.age_days", "float", ()),
        ("embedding", "embedding", "tensor", (4,)),
    ]
    assert "without names" not in done.stderr and "no field like" not in done.stderr
    events = [json.loads(line) for line in (tmp_path / "p" / "events.ndjson").read_text().splitlines()]
    assert not columns(events, _card(tmp_path).specs).why
    assert _next(done)[0].startswith("failsoft topics apply")


def test_columns_that_no_field_is_called_like_are_to_be_named_first(tmp_path: Path) -> None:
    """One note says so and names the fields, and the next command edits the card: no event would be answered."""
    done = _init(tmp_path, json.dumps(AVRO), "payment.avsc", "--onnx", _model(tmp_path, ("X", 3)))
    assert done.exit_code == 0, done.output
    (note,) = [line for line in done.stderr.splitlines() if "columns" in line]
    assert "the model takes 3 columns without names" in note and "customer_id, amount, card.age_days" in note
    assert "no field like" not in done.stderr
    assert _next(done)[0].startswith("${EDITOR") and _next(done)[1].startswith("failsoft models vet")


def test_an_id_is_called_like_its_record(tmp_path: Path) -> None:
    """`payment_id` of a Payment. Another id is only named in the note, since it may not be the event's."""
    assert _init(tmp_path, json.dumps(AVRO), "payment.avsc").exit_code == 0
    assert settings.load(tmp_path / "p", {}).input.id == "payment_id"
    os.rename(tmp_path / "p", tmp_path / "q")
    done = _init(tmp_path, json.dumps(AVRO | {"name": "Transfer"}), "payment.avsc")
    assert settings.load(tmp_path / "p", {}).input.id is None
    assert "set id in [input] if there is one (payment_id or customer_id?)" in done.stderr


def test_the_message_of_an_event_is_none_that_another_holds(tmp_path: Path) -> None:
    """Files begin with the parts. A message that is declared optional may be missing, with all of its fields."""
    refund = PROTO.index("message Refund")
    done = _init(tmp_path, PROTO[:refund], "payment.proto", "--model", "fraud")
    assert done.exit_code == 0 and "each event is one shop.Payment, the first message" in done.stderr, done.output
    imputed = {f.name: None if f.impute is None else f.impute.value for f in _card(tmp_path).features}
    assert imputed == {"amount": None, "country": None, "category": ""}
    assert settings.load(tmp_path / "p", {}).input.id == "payment_id"
    os.rename(tmp_path / "p", tmp_path / "q")
    assert "each event is one shop.Refund" in _init(tmp_path, PROTO, "payment.proto").stderr
    os.rename(tmp_path / "p", tmp_path / "r")
    parts = "required C a = 1; optional C b = 2;"
    older = f'syntax = "proto2"; message P {{ {parts} }} message C {{ required int32 c = 1; optional int32 d = 2; }}'
    assert _init(tmp_path, older, "payment.proto", "--model", "fraud").exit_code == 0
    assert [f.spec.path for f in _card(tmp_path).features if f.impute is not None] == ["a.d", "b.c", "b.d"]


def test_a_topic_that_has_events_is_read(tmp_path: Path) -> None:
    """No made-up events are published to it. Without --topic a note says which one is read."""
    topics = ["--topic", "payments", "--topic", "payments.eu"]
    done = _init(tmp_path, json.dumps(AVRO), "payment.avsc", *topics)
    assert settings.load(tmp_path / "p", {}).input.topics == ["payments", "payments.eu"]
    assert "failsoft tail" in _next(done)[-1] and "publish" not in done.stdout and "--topic names" not in done.stderr
    os.rename(tmp_path / "p", tmp_path / "q")
    done = _init(tmp_path, json.dumps(AVRO), "payment.avsc")
    assert settings.load(tmp_path / "p", {}).input.topics == ["p.events"]
    assert "pipeline.toml reads p.events: --topic names the topic" in done.stderr and "publish" in _next(done)[-1]
    assert CliRunner().invoke(app, ["init", str(tmp_path / "r"), "--topic", "a/b"]).exit_code == 2
