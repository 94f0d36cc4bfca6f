"""Sessions: models of many shapes held against their cards, and runs whose failures are values."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.card import ModelCard
from models.repository import Artifact, Repository
from models.session import Cancel, Outcome, Session, Unloadable
from schemas.failure import Failure, Kind
from schemas.features import Columns, Spec, columns

DEMO = Path(__file__).parents[2] / "models" / "repository"
TYPES = {
    "float": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
    "float16": TensorProto.FLOAT16,
}
Port = tuple[str, str, Sequence[int | str | None]]
X2: Port = ("x", "float", ["n", 2])


def port(name: str, kind: str, shape: Sequence[int | str | None]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TYPES[kind], shape)


def onnx_model(inputs: Sequence[Port], outputs: Sequence[Port], *nodes: Any, constants: Any = None) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.asarray(v), name) for name, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", [port(*i) for i in inputs], [port(*o) for o in outputs], weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


node = helper.make_node


def same(width: int | str = 2, kind: str = "float") -> onnx.ModelProto:
    """A model whose output is its input, so that a test says what comes out."""
    return onnx_model([("x", kind, ["n", width])], [("y", kind, ["n", width])], node("Identity", ["x"], ["y"]))


def features(**types: str) -> list[dict[str, str]]:
    return [{"name": name, "type": kind} for name, kind in types.items()]


def a_card(output: dict[str, Any], **types: str) -> ModelCard:
    return ModelCard.model_validate({"model": {"name": "m"}, "output": output, "features": features(**types)})


def load(folder: Path, model: onnx.ModelProto | bytes, card: ModelCard) -> Session:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    path = folder / "model.onnx"
    path.write_bytes(content)
    return Session(Artifact("m", 3, path, hashlib.sha256(content).hexdigest(), None, {}, {}), card)


def rows(card: ModelCard, *values: Sequence[object]) -> Columns:
    names = [spec.name for spec in card.specs]
    return columns([dict(zip(names, row, strict=True)) for row in values], card.specs)


def answer(session: Session, *values: Sequence[object]) -> Outcome:
    outcome = session.run(rows(session.card, *values))
    assert isinstance(outcome, Outcome), outcome
    return outcome


def ratio(kind: str) -> dict[str, Any]:
    return {"kind": kind}


def test_binary_of_two_columns(tmp_path: Path) -> None:
    """Of two columns the second is the score; the label is by threshold, the confidence the likelier side's."""
    session = load(tmp_path, same(), a_card({"kind": "binary", "threshold": 0.7}, a="float", b="float"))
    assert (session.key, session.model, session.version) == ("m@3", "m", 3)
    outcome = answer(session, (0.25, 0.75), (0.4, 0.6), (0.9, 0.1))
    assert outcome.bad == {}
    assert outcome.predictions.scores.tolist() == pytest.approx([0.75, 0.6, 0.1])
    assert outcome.predictions.scores.dtype == np.float32
    assert outcome.predictions.labels == [1, 0, 0]
    assert outcome.predictions.confidences is not None
    assert outcome.predictions.confidences.tolist() == pytest.approx([0.75, 0.6, 0.9])


@pytest.mark.parametrize("shape", [["n"], ["n", 1]])
def test_binary_of_one_column(tmp_path: Path, shape: list[int | str]) -> None:
    """One number a row, flat or in a column, is the score itself."""
    model = onnx_model([("a", "float", shape)], [("y", "float", shape)], node("Identity", ["a"], ["y"]))
    assert answer(load(tmp_path, model, a_card(ratio("binary"), a="float")), (0.25,)).predictions.row(0).score == 0.25


def test_multiclass(tmp_path: Path) -> None:
    """The likeliest class gives label, score and confidence, and every probability is kept."""
    output = {"kind": "multiclass", "classes": ["low", "mid", "high"]}
    session = load(tmp_path, same(3), a_card(output, a="float", b="float", c="float"))
    prediction = answer(session, (0.25, 0.625, 0.125)).predictions.row(0)
    assert (prediction.label, prediction.score, prediction.confidence) == ("mid", 0.625, 0.625)
    assert prediction.probabilities == (0.25, 0.625, 0.125)


def test_multiclass_labels_of_the_model(tmp_path: Path) -> None:
    """Without classes in the card the labels are those that the model gives itself."""
    model = onnx_model(
        [X2],
        [("label", "int64", ["n"]), ("probabilities", "float", ["n", 2])],
        node("Identity", ["x"], ["probabilities"]),
        node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
        node("Add", ["i", "ten"], ["label"]),
        constants={"ten": np.int64(10)},
    )
    session = load(tmp_path, model, a_card(ratio("multiclass"), a="float", b="float"))
    assert answer(session, (0.25, 0.75), (1, 0)).predictions.labels == [11, 10]


def test_regression_and_anomaly(tmp_path: Path) -> None:
    """A regression has a score alone; an anomaly is labelled if the card gives a threshold."""
    plain = answer(load(tmp_path, same(1), a_card(ratio("regression"), a="float")), (-7.5,)).predictions
    assert (plain.scores.tolist(), plain.labels, plain.confidences) == ([-7.5], None, None)
    strange = a_card({"kind": "anomaly", "threshold": 2}, a="float")
    assert answer(load(tmp_path, same(1), strange), (1.5,), (2,)).predictions.labels == [0, 1]


def quotient() -> onnx.ModelProto:
    """The first feature divided by the second: a row can make it infinite, or not a number."""
    split = node("Split", ["x"], ["p", "q"], axis=1, num_outputs=2)
    divide, flatten = node("Div", ["p", "q"], ["r"]), node("Squeeze", ["r", "one"], ["y"])
    return onnx_model([X2], [("y", "float", ["n"])], split, divide, flatten, constants={"one": np.array([1])})


def test_bad_rows_spoil_no_others(tmp_path: Path) -> None:
    """A score that is not finite or out of range fails its row, and the others are answered."""
    session = load(tmp_path, quotient(), a_card(ratio("binary"), a="float", b="float"))
    outcome = answer(session, (1, 4), (0, 0), (1, 0), (5, 4), (3, 4))
    assert outcome.predictions.scores[[0, 4]].tolist() == [0.25, 0.75]
    assert np.isfinite(outcome.predictions.scores).all()
    assert {i: f.kind for i, f in outcome.bad.items()} == dict.fromkeys([1, 2, 3], Kind.BAD_OUTPUT)
    assert outcome.bad[3].message == "a score of 1.25, where [0, 1] is right"


def test_not_finite_is_bad_without_a_range(tmp_path: Path) -> None:
    """A regression may score anything, but not infinity or NaN."""
    outcome = answer(
        load(tmp_path, quotient(), a_card(ratio("regression"), a="float", b="float")), (1, 0), (0, 0), (9, 3)
    )
    assert sorted(outcome.bad) == [0, 1] and outcome.predictions.scores[2] == 3
    assert outcome.bad[0].message == "a score of inf"


def test_a_hair_beyond_the_range(tmp_path: Path) -> None:
    """What float32 rounds beyond a bound is the bound."""
    score = float(np.nextafter(np.float32(1), np.float32(2)))
    outcome = answer(load(tmp_path, same(1), a_card(ratio("binary"), a="float")), (score,), (-1e-8,))
    assert (outcome.predictions.scores.tolist(), outcome.bad) == ([1.0, 0.0], {})


def test_logits_are_no_probabilities(tmp_path: Path) -> None:
    """A multiclass row that does not sum to one, or has a negative, is bad."""
    session = load(tmp_path, same(2), a_card(ratio("multiclass"), a="float", b="float"))
    outcome = answer(session, (0.5, 0.5), (2, 3), (-1, 2), (0.5, 0.75))
    assert sorted(outcome.bad) == [1, 2, 3]
    assert outcome.bad[1].message == "probabilities that are none: they sum to 5"


def test_wrong_row_count_fails_the_batch(tmp_path: Path) -> None:
    """An output with another number of rows belongs to no row, so the whole batch failed; so does it in warm-up."""
    model = onnx_model([X2], [("y", "float", ["k", 2])], node("Concat", ["x", "x"], ["y"], axis=0))
    session = load(tmp_path, model, a_card(ratio("binary"), a="float", b="float"))
    outcome = session.run(rows(session.card, (0, 1)))
    assert outcome == Failure(Kind.BAD_OUTPUT, "output 'y' is 2×2 for 1 rows")
    with pytest.raises(Unloadable, match="does not fit the card's"):
        session.warm()


def test_wrong_width_fails_the_batch(tmp_path: Path) -> None:
    """An output whose width is known only when it runs, and is none of the kind's, fails the whole batch."""
    model = onnx_model(
        [("x", "float", ["n", "k"])], [("y", "float", ["n", "w"])], node("Concat", ["x", "x"], ["y"], axis=1)
    )
    session = load(tmp_path, model, a_card(ratio("binary"), a="float", b="float"))
    outcome = session.run(rows(session.card, (0, 1)))
    assert outcome == Failure(Kind.BAD_OUTPUT, "output 'y' is 1×4, which is no binary output")


def test_one_tensor_a_feature_of_mixed_types(tmp_path: Path) -> None:
    """Each feature goes to the input of its name as that input's type, in whatever order the card lists them."""
    inputs: list[Port] = [
        ("s", "string", ["n", 1]),
        ("d", "double", ["n", 1]),
        ("i", "int64", ["n"]),
        ("j", "int32", ["n", 1]),
        ("b", "bool", ["n", 1]),
        ("f", "float", ["n", 1]),
    ]
    encode = node("LabelEncoder", ["s"], ["s1"], domain="ai.onnx.ml", keys_strings=["x", "y"], values_floats=[1.0, 2.0])
    casts = [node("Cast", [name], [name + "1"], to=TensorProto.FLOAT) for name in "dijb"]
    column = node("Unsqueeze", ["i1", "one"], ["i2"])
    total = node("Sum", ["s1", "d1", "i2", "j1", "b1", "f"], ["y"])
    model = onnx_model(
        inputs, [("y", "float", ["n", 1])], encode, *casts, column, total, constants={"one": np.array([1])}
    )
    card = a_card(ratio("regression"), f="float", b="bool", s="string", j="int", i="int", d="float")
    session = load(tmp_path, model, card)
    session.warm()
    made = answer(session, (0.5, True, "y", 100, 1000, 0.25), (0.5, False, "x", 1, 2, 3))
    assert made.predictions.scores.tolist() == [1103.75, 7.5]


def test_a_matrix_in_the_cards_order(tmp_path: Path) -> None:
    """A single matrix has the card's features as its columns; integers and flags become numbers in it."""
    session = load(tmp_path, same(3), a_card(ratio("multiclass"), b="bool", i="int", f="float"))
    probabilities = answer(session, (True, 0, 0.0), (False, 1, 0.0), (False, 0, 1.0)).predictions.probabilities
    assert probabilities is not None and probabilities.tolist() == np.eye(3).tolist()


def test_what_int32_cannot_hold(tmp_path: Path) -> None:
    """An integer beyond the model's int32 makes its row invalid instead of wrapping round to another number."""
    model = onnx_model(
        [("i", "int32", ["n"])], [("y", "float", ["n"])], node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)
    )
    outcome = answer(load(tmp_path, model, a_card(ratio("regression"), i="int")), (5,), (2**31,), (-(2**31),))
    assert outcome.bad == {1: Failure(Kind.INVALID, "feature 'i': 2147483648 does not fit the model's int32")}


def test_an_unusable_cell_is_never_answered(tmp_path: Path) -> None:
    """A row that was not imputed has a placeholder in it, which may not pass for a value."""
    outcome = answer(load(tmp_path, same(1), a_card(ratio("binary"), a="float")), (0.5,), (None,))
    assert outcome.bad == {1: Failure(Kind.INVALID, "feature 'a': null")}


def added(a: str, b: str) -> onnx.ModelProto:
    return onnx_model([(a, "float", ["n"]), (b, "float", ["n"])], [("y", "float", ["n"])], node("Add", [a, b], ["y"]))


def two_outputs() -> onnx.ModelProto:
    outputs: list[Port] = [("y", "float", ["n", 1]), ("z", "float", ["n", 1])]
    nodes = node("Identity", ["x"], ["y"]), node("Neg", ["x"], ["z"])
    return onnx_model([("x", "float", ["n", 1])], outputs, *nodes)


def one_row() -> onnx.ModelProto:
    return onnx_model([("x", "float", [1, 2])], [("y", "float", [1, 2])], node("Identity", ["x"], ["y"]))


def deep() -> onnx.ModelProto:
    unsqueeze = node("Unsqueeze", ["x", "one"], ["y"])
    return onnx_model([X2], [("y", "float", ["n", 1, 2])], unsqueeze, constants={"one": np.array([1])})


A, AB = {"a": "float"}, {"a": "float", "b": "float"}
ABC = {**AB, "c": "float"}


@pytest.mark.parametrize(
    ("model", "output", "types", "told"),
    [
        (same(3), {}, AB, "has 3 columns, and the card lists 2 features"),
        (same(), {}, {"a": "float", "b": "string"}, "feature 'b' is a string in the card, and input 'x'"),
        (same(2, "int64"), {}, {"a": "float", "b": "int"}, "feature 'a' is a float in the card"),
        (same(2, "float16"), {}, AB, "input 'x' is a tensor(float16); it may be one of"),
        (one_row(), {}, AB, "batches of exactly 1: export it with a dynamic first dimension"),
        (added("ratio", "b"), {}, {"raito": "float", "b": "float"}, "'ratio' (did you mean 'raito'?)"),
        (added("a", "b"), {}, ABC, "features that the model does not take: 'c'"),
        (same(3), {}, ABC, "has 3 columns: no binary output"),
        (same(3), {"kind": "multiclass", "classes": ["p", "q"]}, ABC, "no multiclass output of 2 classes"),
        (deep(), {}, AB, "output 'y' has 3 dimensions"),
        (same(2, "int64"), {}, {"a": "int", "b": "int"}, "no output is a float tensor"),
        (same(2), {"output": "z"}, AB, "output 'z' is none of the model's: ['y']"),
        (two_outputs(), {}, A, "several float outputs ('y', 'z'): say in the card's [output] which answers"),
        (b"not a model", {}, A, "not an ONNX file, or a damaged one"),
    ],
)
def test_a_mismatch_is_refused_at_load(
    tmp_path: Path, model: onnx.ModelProto | bytes, output: dict[str, Any], types: dict[str, str], told: str
) -> None:
    """A model that does not fit its card never serves; the message says where they differ and what to do."""
    with pytest.raises(Unloadable) as refused:
        load(tmp_path, model, a_card({"kind": "binary", **output}, **types))
    assert told in str(refused.value)
    assert str(refused.value).startswith("m@3: ")


def test_the_card_chooses_among_outputs(tmp_path: Path) -> None:
    """``output`` in the card names which of several float outputs answers."""
    session = load(tmp_path, two_outputs(), a_card({"kind": "regression", "output": "z"}, x="float"))
    assert answer(session, (2.0,)).predictions.scores.tolist() == [-2.0]


def test_zipmap_is_refused(tmp_path: Path) -> None:
    """Probabilities as a sequence of maps are refused with how to export without."""
    label = port("label", "int64", ["n"])
    held = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    maps = helper.make_value_info("maps", helper.make_sequence_type_proto(held))
    nodes = [
        node("ZipMap", ["x"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
        node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(nodes, "g", [port(*X2)], [label, maps])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    with pytest.raises(Unloadable, match=r"zipmap.*export without"):
        load(tmp_path, model, a_card(ratio("binary"), a="float", b="float"))


def test_a_newer_opset_is_refused_with_advice(tmp_path: Path) -> None:
    """A model from the future says so, with what to do."""
    model = same()
    model.opset_import[0].version = 999
    with pytest.raises(Unloadable, match="lower target_opset"):
        load(tmp_path, model, a_card(ratio("binary"), a="float", b="float"))


def test_a_file_changed_after_its_check(tmp_path: Path) -> None:
    """What is loaded is what was hashed: a file replaced in between is refused."""
    card = a_card(ratio("binary"), a="float", b="float")
    artifact = load(tmp_path, same(), card).artifact
    artifact.path.write_bytes(same(3).SerializeToString())
    with pytest.raises(Unloadable, match="changed after it was checked"):
        Session(artifact, card)
    artifact.path.unlink()
    with pytest.raises(Unloadable, match="cannot be read"):
        Session(artifact, card)


def test_a_model_that_raises_fails_the_batch(tmp_path: Path) -> None:
    """An operator's error is a value, whose message names it; the session goes on to answer other batches."""
    model = onnx_model(
        [("i", "int64", ["n"])],
        [("y", "float", ["n"])],
        node("Gather", ["table", "i"], ["y"]),
        constants={"table": np.array([0.5, 0.25], np.float32)},
    )
    session = load(tmp_path, model, a_card(ratio("binary"), i="int"))
    failure = session.run(rows(session.card, (1,), (9,)))
    assert isinstance(failure, Failure) and failure.kind is Kind.MODEL_ERROR
    assert "Gather" in failure.message and len(failure.message) < 400
    assert answer(session, (1,)).predictions.scores.tolist() == [0.25]


def endless() -> onnx.ModelProto:
    """A loop that would take years, of operators that each take no time."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Sin", ["v"], ["w"])],
        "body",
        [port("k", "int64", []), port("go", "bool", []), port("v", "float", ["n", 1])],
        [port("go_on", "bool", []), port("w", "float", ["n", 1])],
    )
    return onnx_model(
        [("x", "float", ["n", 1])],
        [("y", "float", ["n", 1])],
        node("Loop", ["times", "yes", "x"], ["y"], body=body),
        constants={"times": np.int64(10**15), "yes": np.bool_(True)},
    )


class Begun(Cancel):
    """Tells when a run has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def begin(self, options: onnxruntime.RunOptions) -> bool:
        started = super().begin(options)
        self.begun.set()
        return started


def test_cancel_ends_a_run(tmp_path: Path) -> None:
    """A run that does not end is a timeout soon after its cancel is set, and the session can run again."""
    session = load(tmp_path, endless(), a_card(ratio("regression"), x="float"))
    for _ in range(2):
        cancel = Begun()
        outcomes: list[Outcome | Failure] = []

        def run(cancel: Cancel = cancel, outcomes: list[Outcome | Failure] = outcomes) -> None:
            outcomes.append(session.run(rows(session.card, (1.0,)), cancel))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert cancel.begun.wait(30)
        cancel.set()
        thread.join(30)
        assert outcomes == [Failure(Kind.TIMEOUT, "m@3 was stopped at its deadline of 200 ms")]


def test_a_cancel_that_came_first(tmp_path: Path) -> None:
    """Nothing is run under a cancel that is already set."""
    session = load(tmp_path, endless(), a_card(ratio("regression"), x="float"))
    cancel = Cancel()
    cancel.set()
    outcome = session.run(rows(session.card, (1.0,)), cancel)
    assert cancel.expired and isinstance(outcome, Failure) and outcome.kind is Kind.TIMEOUT


def test_success_after_the_deadline_is_a_timeout(tmp_path: Path) -> None:
    """A run that comes back with an answer after its cancel was set (one operator is not interrupted) is a timeout."""

    class Late(Cancel):
        def end(self, options: onnxruntime.RunOptions) -> None:
            super().end(options)
            self.set()

    session = load(tmp_path, same(1), a_card(ratio("binary"), a="float"))
    outcome = session.run(rows(session.card, (0.5,)), Late())
    assert isinstance(outcome, Failure) and outcome.kind is Kind.TIMEOUT


def test_threads_share_a_session(tmp_path: Path) -> None:
    """Runs from several threads at once each get their own rows' answers."""
    session = load(tmp_path, same(1), a_card(ratio("regression"), a="float"))
    wrong: list[object] = []

    def check(k: int) -> None:
        wanted = [float(k * 1000 + i) for i in range(50)]
        for _ in range(20):
            scores = answer(session, *([score] for score in wanted)).predictions.scores.tolist()
            if scores != wanted:
                wrong.append(scores)

    threads = [threading.Thread(target=check, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_other_columns_are_a_mistake(tmp_path: Path) -> None:
    """Columns of another card end the job: their values would land under the wrong names."""
    session = load(tmp_path, same(), a_card(ratio("binary"), a="float", b="float"))
    swapped: list[Spec] = list(reversed(session.card.specs))
    with pytest.raises(ValueError, match="wants the columns of its card"):
        session.run(columns([{"a": 0, "b": 1}], swapped))


def test_closed(tmp_path: Path) -> None:
    """A closed session is unavailable, which is retried and no fault of the model."""
    session = load(tmp_path, same(), a_card(ratio("binary"), a="float", b="float"))
    session.close()
    outcome = session.run(rows(session.card, (0, 1)))
    assert outcome == Failure(Kind.UNAVAILABLE, "m@3 is unloaded")


@pytest.mark.parametrize(("model", "version"), [("repayment", 1), ("repayment", 2), ("repayment-lite", 1)])
def test_the_demos_models_match_their_golden_vectors(model: str, version: int) -> None:
    """Each of the demo's versions loads through its card and gives the answers that scikit-learn gave in training."""
    repository = Repository(DEMO)
    assert version in repository.versions(model)
    card = repository.card(model)
    session = Session(repository.artifact(model, version), card)
    session.warm()
    lines = (DEMO / model / str(version) / "golden.ndjson").read_text(encoding="utf-8").splitlines()
    golden = [json.loads(line) for line in lines]
    assert len(golden) >= 20 and len({line["expected"]["label"] for line in golden}) == 2
    outcome = session.run(columns([line["features"] for line in golden], card.specs))
    assert isinstance(outcome, Outcome) and not outcome.bad
    assert outcome.predictions.scores.tolist() == pytest.approx([g["expected"]["score"] for g in golden], abs=1e-5)
    assert outcome.predictions.labels == [g["expected"]["label"] for g in golden]
