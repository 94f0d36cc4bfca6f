"""Models as their makers export them, end to end on a real Kafka: what each score, label and output means.

Each case is a pipeline with a worker of its own. The right answers are computed in plain numpy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from failsoft.models.training import claims
from tests import model_zoo as zoo
from tests.integration.cases import Case, Servable, Serving, feature, numbered, serving
from tests.kafka import Broker

ROWS = [(12.0, 3000.0, 10.0, 1.0), (None, 3000.0, 10.0, 1.0), (None, None, 40.0, 0.0), (25.0, None, 3.0, 5.0)]
FRAUD, LEGIT = (4.0, 6.0), (-4.0, -6.0)
NORMAL, OUTLIER = (0.0, 0.0, 0.0), (6.0, 6.0, 6.0)
NET = [tuple(row) for row in np.random.default_rng(1).normal(size=(4, 5)).round(3).tolist()]
SECOND, LATE, HUGE = (1_790_000_001.0, 0.0), (1_790_000_100.0, 0.001), (1e39, 0.0)


def _of_trees(row: tuple[float | None, ...], spelling: str) -> dict[str, float | None]:
    """The features of a row, a missing value spelled in one of three ways."""
    given = dict(zip(zoo.TREE_COLUMNS, row, strict=True))
    if spelling == "absent":
        return {name: value for name, value in given.items() if value is not None}
    return {name: float("nan") if value is None and spelling == "NaN" else value for name, value in given.items()}


TREES = Case(
    "trees",
    zoo.trees(),
    'kind = "binary"',
    "".join(feature(n, "float", **({"impute": "nan"} if n in zoo.TREE_COLUMNS[:2] else {})) for n in zoo.TREE_COLUMNS),
    {f"{s}-{i}": _of_trees(row, s) for s in ("null", "absent", "NaN") for i, row in enumerate(ROWS)}
    | {"elsewhere": _of_trees(ROWS[0], "null") | {"tenure": float("nan")}},
    golden=[{"features": _of_trees(row, "absent"), "expected": {"score": zoo.churn(*row)}} for row in ROWS],
)
LABELS = Case(
    "labels",
    zoo.linear(3, 2, ("fraud", "legit")),
    'kind = "binary"\npositive = "fraud"',
    numbered(2),
    {"surely-fraud": FRAUD, "surely-legit": LEGIT},
)
ANOMALY = Case(
    "anomaly",
    zoo.outliers(),
    'kind = "anomaly"\nthreshold = 0.0\nanomalous = "low"\noutput = "scores"\ncarry = ["label"]',
    numbered(3),
    {"normal": NORMAL, "OUTLIER": OUTLIER},
)
LOGIT = Case(
    "logit",
    zoo.logits(9, 1),
    'kind = "binary"\nactivation = "sigmoid"',
    numbered(5),
    {f"t-{i}": row for i, row in enumerate(NET)},
)
LOGITS = Case(
    "logits",
    zoo.logits(9, 4),
    'kind = "multiclass"\nactivation = "softmax"',
    numbered(5),
    {f"t-{i}": row for i, row in enumerate(NET)},
)
MAPS = Case(
    "maps",
    zoo.trees(zipmap=True),
    'kind = "binary"',
    numbered(4),
    {"c-0": (12.0, 3000.0, 10.0, 1.0), "c-1": (25.0, 3000.0, 10.0, 5.0), "c-2": (25.0, 2000.0, 10.0, 5.0)},
)
DOUBLES = Case(
    "doubles",
    zoo.arrival(),
    'kind = "regression"',
    numbered(2),
    {"second": SECOND, "late": LATE, "huge": HUGE},
    golden=[{"features": {"feature_1": SECOND[0], "feature_2": 0.0}, "expected": {"score": SECOND[0]}}],
)


@dataclass(frozen=True)
class Claims:
    """The example of docs/multimodal.md."""

    name: str = "claims"

    def values(self) -> list[bytes]:
        return [json.dumps(event).encode() for event in claims.events()]

    def write(self, folder: Path, name: str, bootstrap: str) -> None:
        claims.write(folder, name, bootstrap, partitions=1)


CASES: list[Servable] = [TREES, LABELS, ANOMALY, LOGIT, LOGITS, MAPS, DOUBLES, Claims()]


@pytest.fixture(scope="module")
def workers(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Every case of this file, served."""
    with serving(kafka.bootstrap, CASES, tmp_path_factory.mktemp("cases")) as started:
        yield started


def test_trees_get_missing_values_as_nan(workers: Serving) -> None:
    """Null, an absent feature and NaN are the same: the model's own answer to NaN, and `missing` names the features.

    Nothing is imputed. NaN as the value of another feature is no JSON, and the letter says the way out.
    """
    done = workers.answered("trees")
    for i, row in enumerate(ROWS):
        missing = [n for n, value in zip(zoo.TREE_COLUMNS, row, strict=True) if value is None]
        for spelling in ("null", "absent", "NaN"):
            answer = done.scored[f"{spelling}-{i}"]
            assert answer["score"] == pytest.approx(zoo.churn(*row), abs=1e-6)
            assert answer["label"] == (1 if answer["score"] >= 0.5 else 0)
            assert (answer.get("missing"), answer["imputed"]) == (missing or None, [])
            assert (answer["source"], answer["degraded"], answer["final"]) == ("primary", False, True)
    (letter,) = done.dead.values()
    assert letter.kind == "malformed" and "NaN is not JSON" in letter.message and 'impute = "nan"' in letter.message


def test_a_score_is_the_probability_of_the_positive_label(workers: Serving) -> None:
    """The labels are the model's own strings; column 0 is the positive one."""
    done = workers.answered("labels")
    fraud, legit = done.scored["surely-fraud"], done.scored["surely-legit"]
    assert (fraud["label"], legit["label"]) == ("fraud", "legit")
    assert fraud["score"] == pytest.approx(1 - zoo.linear_answer(3, FRAUD), abs=1e-6) and fraud["score"] > 0.99
    assert legit["score"] == pytest.approx(1 - zoo.linear_answer(3, LEGIT), abs=1e-6) and legit["score"] < 0.01


def test_low_scores_are_anomalous_where_the_card_says_so(workers: Serving) -> None:
    """Only the outlier has label 1; the model's own label is carried along."""
    done = workers.answered("anomaly")
    normal, outlier = done.scored["normal"], done.scored["OUTLIER"]
    assert (normal["score"], normal["label"], normal["outputs"]) == (pytest.approx(0.2), 0, {"label": 1})
    assert (outlier["score"], outlier["label"], outlier["outputs"]) == (pytest.approx(-3.4), 1, {"label": -1})


def test_a_logit_becomes_a_probability(workers: Serving) -> None:
    """The score is the sigmoid of the model's only column."""
    done = workers.answered("logit")
    for i, row in enumerate(NET):
        answer = done.scored[f"t-{i}"]
        assert answer["score"] == pytest.approx(zoo.logits_answer(9, 1, row)[0], abs=1e-6)
        assert answer["label"] == (1 if answer["score"] >= 0.5 else 0)


def test_logits_become_probabilities(workers: Serving) -> None:
    """The probabilities are the softmax of the model's columns; the label is the number of the highest."""
    done = workers.answered("logits")
    for i, row in enumerate(NET):
        answer, right = done.scored[f"t-{i}"], zoo.logits_answer(9, 4, row)
        assert answer["probabilities"] == pytest.approx(right, abs=1e-6)
        assert (answer["label"], answer["score"]) == (right.argmax(), pytest.approx(right.max(), abs=1e-6))


def test_a_sequence_of_maps_is_read(workers: Serving) -> None:
    """CatBoost has no other form of probabilities."""
    done = workers.answered("maps")
    for id, row in MAPS.events.items():
        answer = done.scored[id]
        assert answer["score"] == pytest.approx(zoo.churn(*row), abs=1e-6)
        assert answer["label"] == (1 if answer["score"] >= 0.5 else 0) and answer["source"] == "primary"


def test_doubles_stay_doubles(workers: Serving) -> None:
    """An epoch second keeps its fraction, and a number beyond float32 is answered."""
    done = workers.answered("doubles")
    assert done.scored["second"]["score"] == 1_790_000_001.0
    assert done.scored["late"]["score"] == 1_790_000_186.4
    assert done.scored["huge"]["score"] == 1e39


def test_an_ensemble_of_text_image_and_table_answers_without_a_member(workers: Serving) -> None:
    """The example of docs/multimodal.md: a member that raises for one row, or lacks its feature, is left out and named.

    The row's neighbours have the answers of all members. Less than a quorum can read the last event.
    """
    done = workers.answered("claims")
    whole, unknown, no_photo = (done.scored[id] for id in ("whole", "unknown-token", "no-photo"))
    given = {event["event_id"]: event["claim"] for event in claims.events()}
    text, photo, table = (_claim(given["whole"], member) for member in ("claim-text", "claim-image", "claim-table"))
    assert whole["score"] == pytest.approx((2 * text + photo + table) / 4, abs=1e-6)
    assert (whole["members"], whole["reason"]) == (["claim-text@1", "claim-image@1", "claim-table@1"], None)
    assert unknown["score"] == pytest.approx((photo + table) / 2, abs=1e-6)
    assert (unknown["members"], unknown["reason"]) == (["claim-image@1", "claim-table@1"], "model_error")
    assert no_photo["score"] == pytest.approx((2 * _claim(given["no-photo"], "claim-text") + table) / 3, abs=1e-6)
    assert (no_photo["members"], no_photo["reason"]) == (["claim-text@1", "claim-table@1"], "invalid")
    assert all(
        a["source"] == "ensemble" and a["final"] and a["imputed"] == ["earlier_claims"] for a in (whole, unknown)
    )
    assert done.dead["numbers-only"].kind == "invalid"


def _claim(claim: dict[str, Any], member: str) -> float:
    """The right answer of one member of the example."""
    w = {name: array.astype(float) for name, array in claims.weights(member).items()}
    if member == "claim-text":
        z = w["E"][claim["text"]["token_ids"]].mean(0) @ w["W"]
        return float(np.exp(z[1]) / np.exp(z).sum())
    numbers = claim["photo"]["embedding"] if member == "claim-image" else [claim["amount"], claim["vehicle_age"], 0.0]
    return float(1 / (1 + np.exp(-(numbers @ w["W"])[0])))
