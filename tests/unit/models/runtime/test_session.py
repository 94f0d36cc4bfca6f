"""Sessions: loading, and runs whose failures are returned as values."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from failsoft.models.catalog.repository import Repository
from failsoft.models.runtime.session import Cancel, ModelOutput, Session, Unloadable
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import Spec
from tests.onnx_models import X2, a_card, answer, load, node, onnx_model, port, rows, same

DEMO = Path(__file__).parents[4] / "models" / "repository"


def test_wrong_row_count_fails_the_batch(tmp_path: Path) -> None:
    """An output with another number of rows fails the whole batch, also in the warm-up."""
    model = onnx_model([X2], [("y", "float", ["k", 2])], node("Concat", ["x", "x"], ["y"], axis=0))
    session = load(tmp_path, model, a_card({"kind": "binary"}, a="float", b="float"))
    outcome = session.run(rows(session.card, (0, 1)))
    assert outcome == Failure(
        Kind.BAD_OUTPUT, "output 'y' is 2×2 for 1 rows: its first dimension must be that of the batch"
    )
    with pytest.raises(Unloadable, match="does not fit the card's"):
        session.warm()


def test_a_newer_opset_is_refused_with_advice(tmp_path: Path) -> None:
    """The message for a model with a newer opset says what to do."""
    model = same()
    model.opset_import[0].version = 999
    with pytest.raises(Unloadable, match="lower target_opset"):
        load(tmp_path, model, a_card({"kind": "binary"}, a="float", b="float"))


def test_a_file_changed_after_its_check(tmp_path: Path) -> None:
    """A file that was replaced after it was hashed is refused."""
    card = a_card({"kind": "binary"}, a="float", b="float")
    artifact = load(tmp_path, same(), card).artifact
    artifact.path.write_bytes(same(3).SerializeToString())
    with pytest.raises(Unloadable, match="changed after it was checked"):
        Session(artifact, card)
    artifact.path.unlink()
    with pytest.raises(Unloadable, match="cannot be read"):
        Session(artifact, card)


def test_a_model_that_raises_fails_the_batch(tmp_path: Path) -> None:
    """An operator's error is returned as a value that names the operator; the session answers further batches."""
    model = onnx_model(
        [("i", "int64", ["n"])],
        [("y", "float", ["n"])],
        node("Gather", ["table", "i"], ["y"]),
        constants={"table": np.array([0.5, 0.25], np.float32)},
    )
    session = load(tmp_path, model, a_card({"kind": "binary"}, i="int"))
    failure = session.run(rows(session.card, (1,), (9,)))
    assert isinstance(failure, Failure) and failure.kind is Kind.MODEL_ERROR
    assert "Gather" in failure.message and len(failure.message) < 400
    assert answer(session, (1,)).predictions.scores.tolist() == [0.25]


def endless() -> onnx.ModelProto:
    """A loop that would take years, of short operators."""
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
    """Reports when a run has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def begin(self, options: onnxruntime.RunOptions) -> bool:
        started = super().begin(options)
        self.begun.set()
        return started


def test_cancel_ends_a_run(tmp_path: Path) -> None:
    """A run that does not end is a timeout soon after its cancel is set, and the session can run again."""
    session = load(tmp_path, endless(), a_card({"kind": "regression"}, x="float"))
    for _ in range(2):
        cancel = Begun()
        outcomes: list[ModelOutput | Failure] = []

        def run(cancel: Cancel = cancel, outcomes: list[ModelOutput | Failure] = outcomes) -> None:
            outcomes.append(session.run(rows(session.card, (1.0,)), cancel))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert cancel.begun.wait(30)
        cancel.set()
        thread.join(30)
        assert outcomes == [Failure(Kind.TIMEOUT, "m@3 was stopped at its deadline of 200 ms")]


def test_a_cancel_that_is_set_before_the_run(tmp_path: Path) -> None:
    """Nothing is run under a cancel that is already set."""
    session = load(tmp_path, endless(), a_card({"kind": "regression"}, x="float"))
    cancel = Cancel()
    cancel.set()
    outcome = session.run(rows(session.card, (1.0,)), cancel)
    assert cancel.expired and isinstance(outcome, Failure) and outcome.kind is Kind.TIMEOUT


def test_success_after_the_deadline_is_a_timeout(tmp_path: Path) -> None:
    """An answer that returns after the cancel was set is a timeout: one operator is not interrupted."""

    class Late(Cancel):
        def end(self, options: onnxruntime.RunOptions) -> None:
            super().end(options)
            self.set()

    session = load(tmp_path, same(1), a_card({"kind": "binary"}, a="float"))
    outcome = session.run(rows(session.card, (0.5,)), Late())
    assert isinstance(outcome, Failure) and outcome.kind is Kind.TIMEOUT


def test_threads_share_a_session(tmp_path: Path) -> None:
    """Runs from several threads at once each get the answers of their own rows."""
    session = load(tmp_path, same(1), a_card({"kind": "regression"}, a="float"))
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
    """Columns of another card raise ValueError: their values would get the wrong names."""
    session = load(tmp_path, same(), a_card({"kind": "binary"}, a="float", b="float"))
    swapped: list[Spec] = list(reversed(session.card.specs))
    with pytest.raises(ValueError, match="needs the columns of its card"):
        session.run(columns([{"a": 0, "b": 1}], swapped))


def test_a_closed_session_is_unavailable(tmp_path: Path) -> None:
    """UNAVAILABLE is retried and does not count against the model."""
    session = load(tmp_path, same(), a_card({"kind": "binary"}, a="float", b="float"))
    session.close()
    outcome = session.run(rows(session.card, (0, 1)))
    assert outcome == Failure(Kind.UNAVAILABLE, "m@3 is unloaded")


@pytest.mark.parametrize(("model", "version"), [("repayment", 1), ("repayment", 2), ("repayment-lite", 1)])
def test_the_demos_models_match_their_golden_vectors(model: str, version: int) -> None:
    """Each version of the demo loads with its card and gives the answers that scikit-learn gave in training."""
    repository = Repository(DEMO)
    assert version in repository.versions(model)
    card = repository.card(model)
    session = Session(repository.artifact(model, version), card)
    session.warm()
    lines = (DEMO / model / str(version) / "golden.ndjson").read_text(encoding="utf-8").splitlines()
    golden = [json.loads(line) for line in lines]
    assert len(golden) >= 20 and len({line["expected"]["label"] for line in golden}) == 2
    outcome = session.run(columns([line["features"] for line in golden], card.specs))
    assert isinstance(outcome, ModelOutput) and not outcome.bad
    assert outcome.predictions.scores.tolist() == pytest.approx([g["expected"]["score"] for g in golden], abs=1e-5)
    assert outcome.predictions.labels == [g["expected"]["label"] for g in golden]
