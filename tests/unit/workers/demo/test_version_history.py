"""The demo's bad version: what is wrong with it and what is not, and the sums that say that the fleet left it."""

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
from failsoft.schemas.features import columns
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
SAID = Alert("promotion", f"{MODEL}@3", 2, "2", "3", "ann: better on paper", None)
SAID_BACK = Alert("rollback", f"{MODEL}@2", 3, "3", "2", "failsoft: 2 half-open cycles failed", None)
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
    """Each event is on the first rung because of version 3, the last one of version 2; ``last``: their revisions 1."""
    found = Ledger()
    for place, version, answer in zip(PLACES, (3, 3, 2), last, strict=True):
        failure = Failure(Kind.BREAKER_OPEN, "open")
        attempt = Attempt(0, Origin(*place, 0), 0, failure, MODEL, version, next_revision=1)
        found.retries.append(Kept(attempt, 0, Rec()))
        found.answers[place] = [answered(0, "lite", 1), answer]
    return found


def answered(revision: int, model: str, version: int) -> Answer:
    degraded = model != MODEL
    return Answer(revision, revision == 1, degraded, "any", "breaker_open" if degraded else None, 0.0, model, version)


CORRECTED, CONFIRMED = answered(1, MODEL, 2), answered(1, "lite", 1)
WELL = book([CORRECTED, CONFIRMED, CORRECTED])


def sums(changes: Sequence[Change], alerts: Sequence[Alert], found: Ledger) -> list[Sum]:
    return undone(MODEL, 3, 2, read(*changes), [Rec(value=a.to_bytes()) for a in alerts], found)


def test_a_bad_version_that_was_left_adds_up() -> None:
    """One promoted, one rolled back, both announced (one of them twice), and what it degraded is corrected by the one
    before; events of other versions are not counted.
    """
    other = replace(SAID, key="repayment-lite@3")
    found = sums([FIRST, PROMOTED, BACK], [SAID, replace(SAID, at_ms=4), SAID_BACK, other], WELL)
    assert [each for each in found if not each.holds] == []
    assert [str(each) for each in found] == [
        "versions promoted 1 = 1 rolled back by itself",
        "moves of versions 2 = 1 promotion announced + 1 rollback announced",
        "provisional for repayment@3 2 = 1 corrected by repayment@2 + 1 confirmed",
        "0 answers of repayment@3",
    ]


@pytest.mark.parametrize(
    ("changes", "alerts", "found", "wrong"),
    [
        ([FIRST, PROMOTED], [SAID], WELL, "versions promoted 1 ≠ 0 rolled back by itself"),
        ([FIRST, PROMOTED, BY_HAND], [SAID, SAID_BACK], WELL, "versions promoted 1 ≠ 0 rolled back by itself"),
        ([FIRST], [], WELL, "versions promoted 0 = 0 rolled back by itself, and not 1 at least"),
        ([FIRST, PROMOTED, BACK], [SAID], WELL, "moves of versions 2 ≠ 1 promotion announced + 0"),
        ([FIRST, PROMOTED, BACK], [SAID, SAID_BACK], Ledger(), "provisional for repayment@3 0 = 0"),
        (
            [FIRST, PROMOTED, BACK],
            [SAID, SAID_BACK],
            book([answered(0, MODEL, 2), CORRECTED, CORRECTED]),
            "provisional for repayment@3 2 ≠ 1",
        ),
        (
            [FIRST, PROMOTED, BACK],
            [SAID, SAID_BACK],
            book([CORRECTED, CORRECTED, answered(1, MODEL, 3)]),
            "1 answers of repayment@3",
        ),
    ],
)
def test_a_bad_version_that_had_its_way_shows(
    changes: Sequence[Change], alerts: Sequence[Alert], found: Ledger, wrong: str
) -> None:
    """It stayed, a person moved it, it never came, a move was not announced, no event met it, one was not corrected,
    and an answer of it got out.
    """
    (only,) = [each for each in sums(changes, alerts, found) if not each.holds]
    assert str(only).startswith(wrong)


def test_what_the_fleet_and_its_workers_serve_is_known_by_model() -> None:
    """Nothing before there is a row; then the version wanted, and what each worker said; the first is no move."""
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


def test_a_row_that_no_owner_wrote_ends_the_story() -> None:
    """The demo does not go on with a table that it cannot read."""
    with pytest.raises(Malformed):
        VersionHistory().fold(Rec(value=b'{"model":"repayment","active":0}'))


def test_the_bad_version_is_version_2_with_one_other_step(tmp_path: Path) -> None:
    """The committed files are, byte for byte, what `python -m failsoft.models.training.mistaken` makes of version 2."""
    mistaken.make(OURS / MODEL / "2", tmp_path)
    for file in ("model.onnx", "version.toml"):
        assert (tmp_path / file).read_bytes() == (deploy.MISTAKEN / file).read_bytes(), (
            "run failsoft.models.training.mistaken"
        )


def test_another_graph_is_not_spoiled_by_chance(tmp_path: Path) -> None:
    """A model that ends in another step is refused, with what it ends in."""
    with pytest.raises(SystemExit, match="the graph ends in Mul"):
        mistaken.make(deploy.MISTAKEN, tmp_path)


def test_the_bad_version_passes_its_vetting_and_fails_on_every_application(tmp_path: Path) -> None:
    """It comes into the demo's own repository only; all checks pass, and no real row, imputed or not, has a score."""
    environment = Environment(tmp_path, "127.0.0.1:1", ["1s"])
    assert deploy.copy(environment.pipeline) == 3
    repository = Repository(Path(environment.pipeline.models.repository))
    assert (repository.versions(MODEL), Repository(OURS).versions(MODEL)) == ([3, 2, 1], [2, 1])
    card, artifact = repository.card(MODEL), repository.artifact(MODEL, 3)
    vetting = examine(repository, card, 3)
    assert vetting.passed, vetting.describe()
    rows = applications.rows()
    found = [applications.made(row, 1, flaw) for row in rows for flaw in (Flaw.NONE, Flaw.INCOMPLETE)]
    session = Session(artifact, card)
    events = columns([orjson.loads(a.value)["features"] for a in found], card.specs)
    outcome = session.run(impute(events, card, artifact.statistics).columns)
    session.close()
    assert isinstance(outcome, ModelOutput)
    assert np.array_equal(sorted(outcome.bad), np.arange(len(found)))
    assert {failure.kind for failure in outcome.bad.values()} == {Kind.BAD_OUTPUT}
