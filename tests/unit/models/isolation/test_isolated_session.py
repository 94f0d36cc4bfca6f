"""A model in its own processes gives the same answers and refusals as a model on a thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from failsoft.models.catalog.card import ModelCard
from failsoft.models.isolation.isolated_session import Isolated
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.session import Cancel, Session, Unloadable
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from tests.isolated_models import Start, a_card, artifact, deadly, forkservers, hanging, processes, replicas, user_time
from tests.kafka import wait_for
from tests.onnx_models import node, onnx_model, rows, same
from tests.versions import bomb


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a model, loaded and warmed. At the end it is closed and no process may be left."""
    made: list[Isolated] = []

    def one(
        model: onnx.ModelProto, whole: ModelCard | None = None, on_death: Any = lambda death: None, **card: Any
    ) -> Isolated:
        made.append(Isolated(artifact(tmp_path, model), whole or a_card(**card), on_death))
        made[-1].warm()
        wait_for(lambda: len(replicas()) == made[-1].card.model.replicas, 60, "the replicas")
        return made[-1]

    yield one
    for each in made:
        each.close()
    assert not processes()


def mixed() -> onnx.ModelProto:
    """One tensor for each type of column; the score is their sum."""
    return onnx_model(
        [(name, kind, ["n", 1]) for name, kind in (("f", "float"), ("i", "int64"), ("b", "bool"), ("s", "string"))],
        [("y", "float", ["n", 1])],
        node("Cast", ["i"], ["i1"], to=1),
        node("Cast", ["b"], ["b1"], to=1),
        node("LabelEncoder", ["s"], ["s1"], domain="ai.onnx.ml", keys_strings=["é€", ""], values_floats=[8.0, 16.0]),
        node("Sum", ["f", "i1", "b1", "s1"], ["y"]),
    )


CASES: list[tuple[Any, dict[str, Any]]] = [
    (mixed, {"types": {"f": "float", "i": "int", "b": "bool", "s": "string"}}),
    (same, {"types": {"a": "float", "b": "float"}, "output": {"kind": "binary"}}),
    (lambda: same(3), {"types": dict.fromkeys("abc", "float"), "output": {"kind": "multiclass"}}),
    (
        lambda: same(3),
        {"types": dict.fromkeys("abc", "float"), "output": {"kind": "multiclass", "classes": ["lo", "mid", 7]}},
    ),
    (
        lambda: same(3),
        {
            "types": dict.fromkeys("abc", "float"),
            "output": {"kind": "multilabel", "labels": ["lo", "mid", "hi"], "activation": "sigmoid"},
        },
    ),
    (deadly, {}),
]
EVENTS: list[dict[str, object]] = [
    {"f": 0.5, "i": 3, "b": True, "s": "é€", "a": 0.25, "c": 0.0, "x": 5, "y": 0.5},
    {"f": 1.5, "i": 2**40, "b": False, "s": "", "a": 0.0, "c": 0.75, "x": 0, "y": -7.5},
    {"f": 1.5, "i": -3, "b": 0, "s": "other", "a": 1e30, "c": "no", "x": 1.5, "y": None},
    {},
]


@pytest.mark.parametrize(("model", "card"), CASES)
def test_answers_are_those_of_a_session(tmp_path: Path, start: Start, model: Any, card: dict[str, Any]) -> None:
    """Scores, labels, probabilities, confidences and failures are equal, for one row, many rows, and few after many."""
    for event in EVENTS:
        event.setdefault("b", 0.75)
    isolated = start(model(), **card)
    session = Session(artifact(tmp_path, model()), a_card(**card))
    session.warm()
    assert (isolated.times is None) == (session.times is None), "both are timed with the same made-up rows"
    for n in (1, 4, 9_000, 2):
        batch = columns([EVENTS[i % 4] for i in range(n)], session.card.specs)
        there, here = isolated.run(batch), session.run(batch)
        assert isinstance(there, ModelOutput) and isinstance(here, ModelOutput)
        assert there.bad == here.bad
        a, b = there.predictions, here.predictions
        assert a.scores.dtype == b.scores.dtype and np.array_equal(a.scores, b.scores, equal_nan=True)
        assert a.labels == b.labels
        for ours, expected in ((a.probabilities, b.probabilities), (a.confidences, b.confidences)):
            assert (ours is None) == (expected is None) and (ours is None or np.array_equal(ours, expected))
        assert [a.row(i).outputs for i in range(n)] == [b.row(i).outputs for i in range(n)]


def test_tensors_are_answered_as_by_a_session(tmp_path: Path, start: Start) -> None:
    """Vectors, ids of variable length, their mask and a column of one input; the process tells the inputs' types."""
    model = onnx_model(
        [("ids", "int32", ["n", "s"]), ("mask", "float", ["n", "s"]), ("v", "float16", ["n", 3])],
        [("y", "float", ["n", 1])],
        node("Cast", ["ids"], ["i"], to=1),
        node("Mul", ["i", "mask"], ["m"]),
        node("Cast", ["v"], ["w"], to=1),
        node("ReduceSum", ["m", "one"], ["a"], keepdims=1),
        node("ReduceSum", ["w", "one"], ["b"], keepdims=1),
        node("Add", ["a", "b"], ["y"]),
        constants={"one": np.array([1])},
    )
    features = [
        {"name": "n", "type": "int", "input": "v", "impute": 4},
        {"name": "ids", "type": "tensor", "dtype": "int64", "shape": [-1], "max_length": 9, "pad": 7, "mask": "mask"},
        {"name": "pair", "type": "tensor", "dtype": "float32", "shape": [2], "input": "v"},
    ]
    card = ModelCard.model_validate(
        {"model": {"name": "m", "isolation": "process"}, "output": {"kind": "regression"}, "features": features}
    )
    ids = np.empty(3, object)
    ids[:] = [np.array([1, 2, 3]), np.array([], np.int64), np.array([5])]
    batch = Columns(card.specs, 3, {"n": np.arange(3), "ids": ids, "pair": np.full((3, 2), 0.25, np.float32)})
    session, isolated = Session(artifact(tmp_path, model), card), start(model, card)
    here, there = session.run(batch), isolated.run(batch)
    assert isinstance(here, ModelOutput) and isinstance(there, ModelOutput)
    assert there.predictions.scores.tolist() == here.predictions.scores.tolist() == [6.5, 1.5, 7.5]
    assert dict(isolated.dtypes) == dict(session.dtypes) == {"n": "float16", "ids": "int32", "pair": "float16"}


def test_a_run_that_raises_is_a_value_and_the_process_lives(start: Start) -> None:
    """A model's error is returned with the session's message, and the process goes on."""
    table = onnx_model(
        [("i", "int64", ["n"])],
        [("y", "float", ["n"])],
        node("Gather", ["table", "i"], ["y"]),
        constants={"table": np.array([0.5, 0.25], np.float32)},
    )
    isolated = start(table, types={"i": "int"})
    before = processes()
    failure = isolated.run(rows(isolated.card, (1,), (9,)))
    assert isinstance(failure, Failure) and failure.kind is Kind.MODEL_ERROR and "Gather" in failure.message
    assert isinstance(isolated.run(rows(isolated.card, (1,))), ModelOutput) and processes() == before


def test_columns_of_another_card_are_the_callers_mistake(start: Start) -> None:
    """They raise ValueError in the caller, as in a session, and no process is asked."""
    with pytest.raises(ValueError, match="needs the columns of its card"):
        start(deadly()).run(columns([{"z": 1.0}], a_card(types={"z": "float"}).specs))


@pytest.mark.parametrize(
    ("model", "card", "message"),
    [
        (b"no model", {}, "not an ONNX file"),
        (same(), {"types": {"a": "float", "b": "float", "c": "float"}}, "has 2 columns, and the card lists 3"),
        (same(), {"types": {"a": "float", "b": "float"}}, "not those of a regression output"),
    ],
)
def test_a_model_that_a_session_refuses_is_refused(
    tmp_path: Path, model: Any, card: dict[str, Any], message: str
) -> None:
    """``warm`` raises with the session's message, and no process is left."""
    isolated = Isolated(artifact(tmp_path, model), a_card(**card))
    with pytest.raises(Unloadable, match=message):
        isolated.warm()
    assert not processes()
    failure = isolated.run(rows(isolated.card, *[(0.0,) * len(isolated.card.specs)]))
    assert failure == Failure(Kind.UNAVAILABLE, "m@3 is unloaded")


def test_a_model_that_crashes_in_its_warm_up_is_refused(tmp_path: Path) -> None:
    """A version that kills its process at each start is refused when it is loaded, and not retried for ever."""
    model = onnx_model(
        [("x", "int64", ["n"])],
        [("y", "float", ["n"])],
        node("Sub", ["x", "one"], ["d"]),
        node("Div", ["least", "d"], ["q"]),
        node("Cast", ["q"], ["y"], to=1),
        constants={"one": np.int64(1), "least": np.int64(-(2**63))},
    )
    isolated = Isolated(artifact(tmp_path, model), a_card(types={"x": "int"}))
    with pytest.raises(Unloadable, match=r"while it loaded, its process died \(signal SIGFPE\)"):
        isolated.warm()
    assert not processes()


def test_a_version_over_its_cards_memory_is_refused(tmp_path: Path) -> None:
    """A version that unfolds to 400 MB, which a vetting allows, is refused under the card's 256 MB, with the limit."""
    isolated = Isolated(artifact(tmp_path, bomb(100_000_000)), a_card(memory="256MB", types={"x": "float"}))
    with pytest.raises(Unloadable, match=r"not enough memory for 1 made-up rows: .*its card's memory is 256MB"):
        isolated.warm()
    assert not processes()


def test_replicas_share_the_calls(start: Start) -> None:
    """Calls go to the processes in turn."""
    isolated = start(hanging(), replicas=3)
    used = {p.pid: p.cpu_times().user for p in replicas()}
    spin = rows(isolated.card, (100_000, 0.5))
    for _ in range(3):
        assert isinstance(isolated.run(spin), ModelOutput)
    assert all(p.cpu_times().user > used[p.pid] for p in replicas())


def test_another_replica_answers_while_one_is_busy(start: Start) -> None:
    """A call that does not end keeps only its own process busy, until its cancel."""
    isolated = start(hanging(), replicas=2)
    cancel, outcomes = Cancel(), []
    caller = threading.Thread(target=lambda: outcomes.append(isolated.run(rows(isolated.card, (10**15, 0.5)), cancel)))
    caller.start()
    for _ in range(10):
        assert isinstance(isolated.run(rows(isolated.card, (1, 0.5))), ModelOutput)
    assert not outcomes
    cancel.set()
    caller.join(60)
    assert outcomes[0].kind is Kind.TIMEOUT


def _worked() -> float:
    """Seconds of processor time that the replicas have used; it only grows."""
    return sum(map(user_time, replicas()))


def test_a_call_that_finds_all_processes_busy_is_unavailable_at_its_deadline(start: Start) -> None:
    """UNAVAILABLE does not count against the model's breaker, and the message advises more replicas."""
    isolated = start(hanging())
    first, second = Cancel(), Cancel()
    callers = [threading.Thread(target=isolated.run, args=(rows(isolated.card, (10**15, 0.5)), first))]
    before = _worked()
    callers[0].start()
    wait_for(lambda: _worked() > before, 60, "the first call to run")
    timer = threading.Timer(0.1, second.set)
    timer.start()
    failure = isolated.run(rows(isolated.card, (1, 0.5)), second)
    assert isinstance(failure, Failure) and failure.kind is Kind.UNAVAILABLE and "add replicas" in failure.message
    first.set()
    callers[0].join(60)
    assert isinstance(isolated.run(rows(isolated.card, (1, 0.5))), ModelOutput)


def test_signals_to_the_group_leave_the_processes_alone(start: Start) -> None:
    """Ctrl-C and a supervisor's SIGTERM reach the whole group, but a worker that drains still needs its models."""
    isolated = start(deadly())
    before = processes()
    for process in before:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
    assert isinstance(isolated.run(rows(isolated.card, (1, 0.5))), ModelOutput)
    assert processes() == before


def test_a_process_inherits_no_password_and_no_file(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's process has neither the pipeline's settings nor the worker's open files."""
    monkeypatch.setenv("FAILSOFT_KAFKA__SASL_PASSWORD", "hush")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    start(deadly())
    for process in processes():
        assert "FAILSOFT_KAFKA__SASL_PASSWORD" not in process.environ()
    os.close(writer)
    assert os.read(reader, 1) == b"", "another process holds the other end"
    os.close(reader)


def test_closing_waits_for_runs_and_ends_everything(start: Start) -> None:
    """A run under way is answered; then the model is unloaded, and a second close has no effect."""
    isolated = start(hanging(), deadline="20s")
    outcomes: list[ModelOutput | Failure] = []
    caller = threading.Thread(target=lambda: outcomes.append(isolated.run(rows(isolated.card, (300_000, 0.5)))))
    before = _worked()
    caller.start()
    wait_for(lambda: _worked() > before, 60, "the call to run")
    isolated.close()
    caller.join(60)
    assert isinstance(outcomes[0], ModelOutput) and not processes() and not forkservers()
    assert isolated.run(rows(isolated.card, (1, 0.5))) == Failure(Kind.UNAVAILABLE, "m@3 is unloaded")
    isolated.close()
