"""Events as producers write them, end to end on a real Kafka: from a record's value to each input of a model.

Each case is a pipeline with a worker of its own. The right answers are computed in plain numpy.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from failsoft.workers.cli import app
from tests import model_zoo as zoo
from tests.integration.cases import TIMES, Case, Serving, feature, serving
from tests.kafka import Broker

AGES: dict[str, dict[str, Any]] = {
    "p-0": {"age (years)": 30.0, "Fare €": 80.0, "sex": "f", "embarked": "S"},
    "p-1": {"age (years)": None, "Fare €": 80.0, "sex": "f", "embarked": "X"},
    "p-2": {"age (years)": 50.0, "Fare €": 5.0, "sex": "m", "embarked": "Q"},
}
VECTOR = np.random.default_rng(6).normal(size=128).round(4).astype(np.float32)
WINDOW = np.random.default_rng(7).normal(size=(24, 3)).round(3).astype(np.float32)
WHOLE: dict[str, object] = {"amount": 50.5, "items": 3, "member": True, "zip": "90210"}
MILLISECONDS = 1_790_000_000_000


def _base64(array: NDArray[np.float32]) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


COLUMNS = Case(
    "columns",
    zoo.passengers(blocks=False),
    'kind = "binary"',
    feature("age__years_", "float", field="age (years)", impute="nan")
    + feature("Fare__", "float", field="Fare €")
    + feature("sex", "string")
    + feature("embarked", "string"),
    AGES,
)
BLOCKS = Case(
    "blocks",
    zoo.passengers(blocks=True),
    'kind = "binary"',
    feature("age", "float", field="age (years)", impute="nan", input="num")
    + feature("sex", "string", input="cat")
    + feature("fare", "float", field="Fare €", input="num")
    + feature("embarked", "string", input="cat"),
    AGES,
)
TWO_TENSORS = Case(
    "two-tensors",
    zoo.text_and_numbers(),
    'kind = "binary"',
    feature("input_ids", "tensor", dtype="int64", shape=[16])
    + feature("numeric", "tensor", dtype="float32", shape=[3]),
    {
        "mm-1": {"input_ids": list(range(16)), "numeric": [0.1, 0.2, 0.3]},
        "fraction": {"input_ids": [0.5] * 16, "numeric": [0.1, 0.2, 0.3]},
        "scalar": {"input_ids": 7, "numeric": [0.1, 0.2, 0.3]},
    },
)
EMBEDDING = Case(
    "embedding",
    zoo.linear(11, 128),
    'kind = "binary"',
    feature("embedding", "tensor", dtype="float32", shape=[128]),
    {
        "list": {"embedding": [float(v) for v in VECTOR]},
        "base64": {"embedding": _base64(VECTOR)},
        "short": {"embedding": [float(v) for v in VECTOR[:127]]},
        "short-base64": {"embedding": _base64(VECTOR[:127])},
        "no-base64": {"embedding": "?" * 684},
        "null": {"embedding": [None, *map(float, VECTOR[1:])]},
    },
)
STEPS = Case(
    "steps",
    zoo.window(),
    'kind = "regression"',
    feature("window", "tensor", dtype="float32", shape=[24, 3]),
    {"w-1": {"window": WINDOW.tolist()}, "ragged": {"window": [[1.0, 2.0, 3.0]] * 23 + [[1.0, 2.0]]}},
)
TEXTS = Case(
    "texts",
    zoo.texts(),
    'kind = "multiclass"',
    feature("text", "string"),
    {
        "x-0": {"text": "My parcel is LOST!"},
        "x-1": {"text": "refund"},
        "x-2": {"text": ""},
        "x-3": {"text": "Zürich 💶 thanks, naïve"},
    },
)
ENVELOPES = Case(
    "envelopes",
    zoo.total(),
    'kind = "regression"',
    feature("age", "float", field="payload.after.user.age") + feature("amount", "float", field="payload.after.amount"),
    {
        "n-1": {
            "payload": {
                "ts_ms": MILLISECONDS,
                "source": {"id": "n-1"},
                "after": {"user": {"age": 41.0}, "amount": 12.5},
            }
        },
        "deleted": {"payload": {"ts_ms": MILLISECONDS, "source": {"id": "deleted"}, "after": None}},
    },
    whole=True,
    inputs='id = "payload.source.id"\ntime = "payload.ts_ms"\nfeatures = ""',
)
DOTS = Case(
    "dots",
    zoo.total(),
    'kind = "regression"',
    feature("user.age", "float") + feature("txn.amount", "float"),
    {
        id: {"event_id": id, "occurred_at": time, "features": features}
        for id, time, features in (
            ("flat", MILLISECONDS, {"user.age": 41.0, "txn.amount": 12.5}),
            ("nested", MILLISECONDS / 1000 + 0.25, {"user": {"age": 40.0}, "txn": {"amount": 12.5}}),
            ("both", "2026-01-01T12:00:00+02:00", {"user": {"age": 1.0}, "user.age": 41.0, "txn.amount": 12.5}),
        )
    },
    whole=True,
)
ORDER: dict[str, dict[str, object]] = {
    "good": {},
    "amount-string": {"amount": "50.5"},
    "amount-thousands": {"amount": "1,050.50"},
    "amount-comma": {"amount": "50,5"},
    "amount-empty": {"amount": ""},
    "amount-list": {"amount": [50.5]},
    "amount-object": {"amount": {"scale": 2, "value": "E7o="}},
    "amount-1e300": {"amount": 1e300},
    "items-string": {"items": "3"},
    "items-3.0": {"items": 3.0},
    "items-3.5": {"items": 3.5},
    "items-huge": {"items": 2**63},
    "member-1": {"member": 1},
    "member-true": {"member": "true"},
    "zip-number": {"zip": 1234},
    "extra": {"foo": "bar"},
}


def _order(name: str, **keys: object) -> Case:
    features = (("amount", "float"), ("items", "int"), ("member", "bool"), ("zip", "string"))
    return Case(
        name,
        zoo.order(),
        'kind = "regression"',
        "".join(feature(f, kind, **keys) for f, kind in features),
        {id: WHOLE | changed for id, changed in ORDER.items()},
    )


STRICT, COERCED = _order("strict"), _order("coerced", coerce=True)
CASES = [COLUMNS, BLOCKS, TWO_TENSORS, EMBEDDING, STEPS, TEXTS, ENVELOPES, DOTS, STRICT, COERCED]


@pytest.fixture(scope="module")
def workers(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Every case of this file, served."""
    with serving(kafka.bootstrap, CASES, tmp_path_factory.mktemp("cases")) as started:
        yield started


@pytest.mark.parametrize("name", ["columns", "blocks"])
def test_a_pipeline_takes_columns_under_other_names(workers: Serving, name: str) -> None:
    """`field` names the event's fields, `input` the model's blocks; a missing age is imputed by the model itself."""
    done = workers.answered(name)
    for id, row in AGES.items():
        answer, right = done.scored[id], zoo.passenger(*row.values())
        assert (answer["score"], answer["imputed"]) == (pytest.approx(right, abs=1e-6), [])
    assert done.scored["p-1"]["missing"] == ["age__years_" if name == "columns" else "age"]


def test_a_model_takes_two_tensors(workers: Serving) -> None:
    """Token ids beside numbers; an element of another type, or a number for a list, is invalid and named."""
    done = workers.answered("two-tensors")
    right = zoo.text_and_numbers_answer(range(16), [0.1, 0.2, 0.3])
    assert done.scored["mm-1"]["score"] == pytest.approx(right, abs=1e-6)
    assert {id: letter.kind for id, letter in done.dead.items()} == {"fraction": "invalid", "scalar": "invalid"}
    assert all("'input_ids'" in letter.message for letter in done.dead.values()), done.dead


def test_a_vector_is_a_list_or_base64(workers: Serving) -> None:
    """Both give the same answer. Another length is invalid, with the feature and both lengths."""
    done = workers.answered("embedding")
    right = zoo.linear_answer(11, VECTOR.tolist())
    assert set(done.scored) == {"list", "base64"}
    assert [done.scored[id]["score"] for id in ("list", "base64")] == [pytest.approx(right, abs=1e-6)] * 2
    assert {letter.kind for letter in done.dead.values()} == {"invalid"}
    assert all("'embedding'" in letter.message for letter in done.dead.values()), done.dead
    short = done.dead["short"].message
    assert "127" in short and "128" in short, short


def test_a_window_is_a_list_of_lists(workers: Serving) -> None:
    """A ragged window is invalid, and its neighbour is answered."""
    done = workers.answered("steps")
    right = float(WINDOW.ravel().astype(float) @ zoo.weights(7, 72, 1).astype(float)[:, 0])
    assert done.scored["w-1"]["score"] == pytest.approx(right, abs=1e-4)
    assert done.dead["ragged"].kind == "invalid" and "'window'" in done.dead["ragged"].message


def test_a_model_takes_raw_text(workers: Serving) -> None:
    """Text in any script; the labels are the model's own strings."""
    done = workers.answered("texts")
    words = {"x-0": ["my", "parcel", "is", "lost"], "x-1": ["refund"], "x-2": [], "x-3": ["thanks"]}
    for id, given in words.items():
        answer, right = done.scored[id], zoo.text_answer(given)
        assert answer["probabilities"] == pytest.approx(right, abs=1e-6)
        assert (answer["label"], answer["score"]) == (zoo.TOPICS[right.argmax()], pytest.approx(right.max(), abs=1e-6))


def test_paths_reach_into_an_event(workers: Serving) -> None:
    """Id, time and features are found by paths with dots; a path that ends early is invalid and named."""
    done = workers.answered("envelopes")
    answer = done.scored["n-1"]
    assert (answer["score"], _seconds(answer["event_time"])) == (53.5, MILLISECONDS / 1000)
    (letter,) = done.dead.values()
    assert letter.kind == "invalid" and "payload.after" in letter.message


def test_a_name_with_dots_is_found_first(workers: Serving) -> None:
    """A flat name, a path, and a flat name beside a path; epoch milliseconds and seconds are times."""
    done = workers.answered("dots")
    assert {id: answer["score"] for id, answer in done.scored.items()} == {"flat": 53.5, "nested": 52.5, "both": 53.5}
    times = {id: _seconds(answer["event_time"]) for id, answer in done.scored.items()}
    assert times == {"flat": 1_790_000_000.0, "nested": 1_790_000_000.25, "both": 1_767_261_600.0}


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def test_nothing_is_converted_without_coerce(workers: Serving) -> None:
    """A value of another JSON type is invalid, with the feature's name. 3.0 is a whole number in JSON too."""
    done = workers.answered("strict")
    assert set(done.scored) == {"good", "extra", "items-3.0"}
    for id, letter in done.dead.items():
        assert letter.kind == "invalid" and repr(id.partition("-")[0]) in letter.message, (id, letter)


def test_coerce_converts_what_means_the_same(workers: Serving) -> None:
    """ "50.5" is 50.5, "3" and 3.0 are 3, "true" and 1 are true, 1234 is "1234"; nothing else is guessed."""
    done = workers.answered("coerced")
    same = {"good", "extra", "amount-string", "items-string", "items-3.0", "member-1", "member-true", "zip-number"}
    assert {id: answer["score"] for id, answer in done.scored.items()} == dict.fromkeys(same, 180.5)
    assert {letter.kind for letter in done.dead.values()} == {"invalid"}
    assert all(repr(id.partition("-")[0]) in letter.message for id, letter in done.dead.items()), done.dead


def test_a_csv_is_published_by_the_cards_types(workers: Serving, tmp_path: Path) -> None:
    """A ZIP code stays a string, also one that begins with 0; a boolean is one."""
    before = len(ORDER)
    workers.answered("strict")
    file = tmp_path / "events.csv"
    row = f"{TIMES},50.5,3,true"
    file.write_text(f"event_id,occurred_at,amount,items,member,zip\ncsv-1,{row},90210\ncsv-2,{row},01234\n")
    here = {name: None for name in os.environ if name.startswith("FAILSOFT_")}  # they would change the pipeline
    publish = ["publish", str(file), "--pipeline", str(workers.folders["strict"])]
    done = CliRunner().invoke(app, publish, env=here)
    assert done.exit_code == 0, done.output
    answers = workers.answered("strict", before + 2).scored
    assert (answers["csv-1"]["score"], answers["csv-2"]["score"]) == (180.5, 1180.5)
