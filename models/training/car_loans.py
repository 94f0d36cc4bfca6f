"""Trains the demo's models on the car-loan data, exports them to ONNX, and checks each export against scikit-learn."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import BooleanTensorType, FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from failsoft.models.answers.imputation import impute
from failsoft.models.catalog.repository import Repository
from failsoft.models.runtime.session import Session
from failsoft.schemas.failure import Failure
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import FeatureType

# Share of the rows kept for evaluation. Rows are in order of time, so models are evaluated on later rows than they were
# trained on.
HELD_OUT = 0.25
SEED = 7
GOLDEN = 20
# Largest allowed difference of a score: ONNX Runtime computes in float32, scikit-learn partly in float64.
TOLERANCE = 1e-5
# Old enough for every runtime that this project supports. The models need no newer operators.
OPSET = {"": 18, "ai.onnx.ml": 3}
_TENSORS = {
    FeatureType.FLOAT: FloatTensorType,
    FeatureType.BOOL: BooleanTensorType,
    FeatureType.STRING: StringTensorType,
}


def main(arguments: list[str] | None = None) -> int:
    """Trains, exports and checks all models. Returns exit code 0; exits with an error if a check fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="python -m failsoft.models.training.car_loans --data train.csv"
    )
    parser.add_argument("--data", type=Path, required=True, help="car_loans_train.csv, with the column `repaid`")
    parser.add_argument("--out", type=Path, default=Path("models/repository"), help="a repository that has the cards")
    options = parser.parse_args(arguments)
    rows = pd.read_csv(options.data)
    repository = Repository(options.out)
    # Version 1 of the primary is a simple first version; version 2 has deeper trees and is measurably better.
    _make(repository, "repayment", 1, rows, _boosting(trees=15, depth=2))
    _make(repository, "repayment", 2, rows, _boosting(trees=100, depth=3))
    _make(repository, "repayment-lite", 1, rows, Pipeline([("scale", StandardScaler()), ("fit", LogisticRegression())]))
    return 0


def _boosting(trees: int, depth: int) -> Pipeline:
    """Boosted trees on unscaled numbers: scaling would only move thresholds to values that float32 cannot hold."""
    one_hot = OneHotEncoder(handle_unknown="ignore")
    prepare = ColumnTransformer(
        [
            ("categories", one_hot, ["salary_range", "size_of_downpayment"]),
            ("numbers", "passthrough", ["car_value", "debt_to_income_ratio", "loan_length", "driver_tenure"]),
            ("flags", "passthrough", ["repaid_loan_on_prev_car"]),
        ]
    )
    boosting = GradientBoostingClassifier(n_estimators=trees, max_depth=depth, random_state=SEED)
    return Pipeline([("prepare", prepare), ("fit", boosting)])


def _make(repository: Repository, model: str, version: int, rows: pd.DataFrame, pipeline: Pipeline) -> None:
    card = repository.card(model)
    names = [spec.name for spec in card.specs]
    cut = round(len(rows) * (1 - HELD_OUT))
    train, test = rows.iloc[:cut], rows.iloc[cut:]
    x, x_test, y_test = train[names], test[names], test["repaid"].astype(int)
    one_matrix = all(spec.type is FeatureType.FLOAT for spec in card.specs)
    if one_matrix:
        pipeline.fit(x.to_numpy(), train["repaid"].astype(int))
        inputs: list[tuple[str, Any]] = [("features", FloatTensorType([None, len(names)]))]
        expected = pipeline.predict_proba(x_test.to_numpy())[:, 1]
    else:
        pipeline.fit(x, train["repaid"].astype(int))
        inputs = [(spec.name, _TENSORS[spec.type]([None, 1])) for spec in card.specs]
        expected = pipeline.predict_proba(x_test)[:, 1]
    exported = to_onnx(pipeline, initial_types=inputs, options={"zipmap": False}, target_opset=OPSET)
    exported.graph.name = f"{model}-{version}"  # skl2onnx chooses a random name, which would change the checksum
    content = exported.SerializeToString()
    metrics = {"auc": roc_auc_score(y_test, expected), "brier": brier_score_loss(y_test, expected)}

    folder = repository.root / model / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    (folder / "version.toml").write_text(_version_toml(content, metrics, x), encoding="utf-8")
    events = _json_rows(x_test)
    with (folder / "golden.ndjson").open("w", encoding="utf-8") as golden:
        for i in np.linspace(0, len(events) - 1, GOLDEN, dtype=int):
            answer = {"score": round(float(expected[i]), 7), "label": int(expected[i] >= 0.5)}
            golden.write(json.dumps({"features": events[i], "expected": answer}, ensure_ascii=False) + "\n")

    worst = _check(repository, model, version, events, expected)
    line = f"{model}@{version}: AUC {metrics['auc']:.4f}, {len(content) / 1000:.0f} kB, differs by at most {worst:.1e}"
    print(line, file=sys.stderr)


def _check(repository: Repository, model: str, version: int, events: list[dict[str, Any]], expected: Any) -> float:
    """The largest difference between a served score and scikit-learn's. Raises SystemExit if it is over TOLERANCE."""
    card, artifact = repository.card(model), repository.artifact(model, version)
    session = Session(artifact, card)
    session.warm()
    outcome = session.run(impute(columns(events, card.specs), card, artifact.statistics, session.dtypes).columns)
    if isinstance(outcome, Failure) or outcome.bad:
        raise SystemExit(f"{model}@{version} does not run: {outcome}")
    worst = float(np.abs(outcome.predictions.scores - expected).max())
    if worst > TOLERANCE:
        raise SystemExit(f"{model}@{version} differs from scikit-learn by {worst:.1e}, more than {TOLERANCE:.0e}")
    return worst


def _version_toml(content: bytes, metrics: dict[str, float], x: pd.DataFrame) -> str:
    lines = [
        f'sha256 = "{hashlib.sha256(content).hexdigest()}"',
        f"trained_at = {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "",
        "[metrics]  # on the last quarter of the rows, which came later than those of training",
        *(f"{name} = {value:.6f}" for name, value in metrics.items()),
    ]
    for name, column in x.items():
        lines += ["", f"[statistics.{name}]"]
        if column.dtype == np.float64:
            lines += [f"mean = {column.mean():.6f}", f"median = {column.median():.6f}"]
        else:
            mode = column.mode().iloc[0]
            lines.append(
                "mode = " + (str(bool(mode)).lower() if column.dtype == bool else json.dumps(mode, ensure_ascii=False))
            )
    return "\n".join(lines) + "\n"


def _json_rows(x: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as they appear in the JSON of events."""
    rows: list[dict[str, Any]] = json.loads(x.to_json(orient="records", double_precision=15))
    return rows


if __name__ == "__main__":
    sys.exit(main())
