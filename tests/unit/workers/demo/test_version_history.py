"""The demo's bad version: it passes its vetting and fails on real events; the sums for its rollback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from failsoft import models
from failsoft.models.answers.imputation import impute
from failsoft.models.catalog.repository import Repository
from failsoft.models.runtime.session import ModelOutput, Session
from failsoft.models.training import mistaken
from failsoft.models.vetting.gate import examine
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.reading import columns
from failsoft.schemas.fleet.breaker import Alert
from failsoft.schemas.fleet.rollout import Change, RolloutRow, Trigger, WorkerStatus
from failsoft.schemas.record import Origin
from failsoft.schemas.wire import Malformed
from failsoft.workers.demo import applications, deploy
from failsoft.workers.demo.applications import Flaw
from failsoft.workers.demo.environment import Environment
from failsoft.workers.demo.summary import Answer, Kept, Ledger, Sum
from failsoft.workers.demo.version_history import VersionHistory, describe, undone
from tests.kit import Rec

MODEL = "repayment"
FIRST = Change(1, None, 2, "demo-1", "the first version that was served", Trigger.FIRST)
PROMOTED = Change(2, 2, 3, "ann", "better on paper", Trigger.PROMOTE)
BACK = Change(3, 3, 2, "failsoft", "2 half-open cycles failed", Trigger.AUTOMATIC)
BY_HAND = replace(BACK, trigger=Trigger.OPERATOR)
PROMOTION = Alert("promotion", f"{MODEL}@3", 2, "2", "3", "ann: better on paper", None)
ROLLBACK = Alert("rollback", f"{MODEL}@2", 3, "3", "2", "failsoft: 2 half-open cycles failed", None)
PLACES = [("in", 0, i) for i in range(3)]
OURS = Path(models.__file__).parent / "repository"


def read(*changes: Change) -> VersionHistory:
    moves = VersionHistory()
    row = RolloutRow(
        MODEL, changes[-1].to, history=changes, workers={"demo-1": WorkerStatus(3, 1), "demo-2": WorkerStatus(None, 1)}
    )
    moves.fold(Rec(value=orjson.dumps(row.to_dict())))
    return moves


def book(last: Sequence[Answer]) -> Ledger:
    """Three events on the first rung: two failed with version 3, one with version 2. ``last``: their revisions 1."""
    ledger = Ledger()
    for place, version, answer in zip(PLACES, (3, 3, 2), last, strict=True):
        failure = Failure(Kind.BREAKER_OPEN, "open")
        attempt = Attempt(0, Origin(*place, 0), 0, failure, MODEL, version, next_revision=1)
        ledger.retries.append(Kept(attempt, 0, Rec()))
        ledger.answers[place] = [answered(0, "lite", 1), answer]
    return ledger


def answered(revision: int, model: str, version: int) -> Answer:
    degraded = model != MODEL
    return Answer(revision, revision == 1, degraded, "any", "breaker_open" if degraded else None, 0.0, model, version)


CORRECTED, CONFIRMED = answered(1, MODEL, 2), answered(1, "lite", 1)
COMPLETE = book([CORRECTED, CONFIRMED, CORRECTED])


def sums(changes: Sequence[Change], alerts: Sequence[Alert], ledger: Ledger) -> list[Sum]:
    return undone(MODEL, 3, 2, read(*changes), [Rec(value=a.to_bytes()) for a in alerts], ledger)


def test_the_sums_of_a_rollback_hold() -> None:
    """One promotion and one rollback are announced, one of them twice. The version before answers the retries of the
    bad one. Events of other versions and alerts of other models are not counted.
    """
    other = replace(PROMOTION, key="repayment-lite@3")
    totals = sums([FIRST, PROMOTED, BACK], [PROMOTION, replace(PROMOTION, at_ms=4), ROLLBACK, other], COMPLETE)
    assert [each for each in totals if not each.holds] == []
    assert [str(each) for each in totals] == [
        "versions promoted 1 = 1 rolled back by itself",
        "moves of versions 2 = 1 promotion announced + 1 rollback announced",
        "provisional for repayment@3 2 = 1 corrected by repayment@2 + 1 confirmed",
        "0 answers of repayment@3",
    ]


@pytest.mark.parametrize(
    ("changes", "alerts", "ledger", "wrong"),
    [
        ([FIRST, PROMOTED], [PROMOTION], COMPLETE, "versions promoted 1 ≠ 0 rolled back by itself"),
        ([FIRST, PROMOTED, BY_HAND], [PROMOTION, ROLLBACK], COMPLETE, "versions promoted 1 ≠ 0 rolled back by itself"),
        ([FIRST], [], COMPLETE, "versions promoted 0 = 0 rolled back by itself, but should be at least 1"),
        ([FIRST, PROMOTED, BACK], [PROMOTION], COMPLETE, "moves of versions 2 ≠ 1 promotion announced + 0"),
        ([FIRST, PROMOTED, BACK], [PROMOTION, ROLLBACK], Ledger(), "provisional for repayment@3 0 = 0"),
        (
            [FIRST, PROMOTED, BACK],
            [PROMOTION, ROLLBACK],
            book([answered(0, MODEL, 2), CORRECTED, CORRECTED]),
            "provisional for repayment@3 2 ≠ 1",
        ),
        (
            [FIRST, PROMOTED, BACK],
            [PROMOTION, ROLLBACK],
            book([CORRECTED, CORRECTED, answered(1, MODEL, 3)]),
            "1 answers of repayment@3",
        ),
    ],
)
def test_an_incomplete_rollback_breaks_a_sum(
    changes: Sequence[Change], alerts: Sequence[Alert], ledger: Ledger, wrong: str
) -> None:
    """In order: the version stayed, an operator rolled it back, it was never promoted, a rollback was not announced,
    no event failed with it, one event was not corrected, and an answer of it was published.
    """
    (only,) = [each for each in sums(changes, alerts, ledger) if not each.holds]
    assert str(only).startswith(wrong)


def test_the_history_has_the_active_and_the_served_versions() -> None:
    """Without a row all are unknown. The first version is not a change."""
    assert (VersionHistory().active(MODEL), VersionHistory().serving(MODEL, "demo-1"), VersionHistory().of(MODEL)) == (
        None,
        None,
        [],
    )
    moves = read(FIRST, PROMOTED)
    moves.fold(Rec(value=None))
    assert (moves.active(MODEL), moves.active("other")) == (3, None)
    assert [moves.serving(MODEL, f"demo-{i}") for i in (1, 2, 3)] == [3, None, None]
    (change,) = moves.of(MODEL)
    assert describe(MODEL, change) == "repayment: version 2 → 3 (promote by ann: better on paper)"


def test_a_malformed_row_ends_the_demo() -> None:
    """The demo does not continue with a table that it cannot read."""
    with pytest.raises(Malformed):
        VersionHistory().fold(Rec(value=b'{"model":"repayment","active":0}'))


def test_the_bad_version_is_made_from_version_2(tmp_path: Path) -> None:
    """`python -m failsoft.models.training.mistaken` makes the committed files from version 2, byte for byte."""
    mistaken.make(OURS / MODEL / "2", tmp_path)
    for file in ("model.onnx", "version.toml"):
        assert (tmp_path / file).read_bytes() == (deploy.MISTAKEN / file).read_bytes(), (
            "run failsoft.models.training.mistaken"
        )


def test_a_graph_with_another_last_step_is_refused(tmp_path: Path) -> None:
    """A model whose last step is not the expected one is refused; the error names its last step."""
    with pytest.raises(SystemExit, match="the graph ends in Mul"):
        mistaken.make(deploy.MISTAKEN, tmp_path)


def test_the_bad_version_passes_its_vetting_and_fails_on_every_application(tmp_path: Path) -> None:
    """It is copied to the demo's own repository only. All checks pass, but every real row fails, imputed or not."""
    environment = Environment(tmp_path, "127.0.0.1:1", ["1s"])
    assert deploy.copy(environment.pipeline) == 3
    repository = Repository(Path(environment.pipeline.models.repository))
    assert (repository.versions(MODEL), Repository(OURS).versions(MODEL)) == ([3, 2, 1], [2, 1])
    card, artifact = repository.card(MODEL), repository.artifact(MODEL, 3)
    vetting = examine(repository, card, 3)
    assert vetting.passed, vetting.describe()
    rows = applications.rows()
    all_events = [applications.made(row, 1, flaw) for row in rows for flaw in (Flaw.NONE, Flaw.INCOMPLETE)]
    session = Session(artifact, card)
    events = columns([orjson.loads(a.value)["features"] for a in all_events], card.specs)
    outcome = session.run(impute(events, card, artifact.statistics, session.dtypes).columns)
    session.close()
    assert isinstance(outcome, ModelOutput)
    assert np.array_equal(sorted(outcome.bad), np.arange(len(all_events)))
    assert {failure.kind for failure in outcome.bad.values()} == {Kind.BAD_OUTPUT}
