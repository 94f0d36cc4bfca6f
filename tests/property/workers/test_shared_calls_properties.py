"""Any calls of any lanes: through shared runs each row has the result that it has in a run of its lane alone."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.session import Cancel
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.prediction import Prediction, Predictions
from failsoft.workers.execution.runner import Runner
from failsoft.workers.execution.shared_calls import SharedCalls
from failsoft.workers.scoring.plan import Call, CallResult
from failsoft.workers.telemetry.metrics import Metrics

SPECS = {
    "a@1": (Spec("x", FeatureType.FLOAT), Spec("y", FeatureType.FLOAT)),
    "b@2": (Spec("x", FeatureType.FLOAT), Spec("s", FeatureType.STRING)),
}
ENOUGH = 60.0
WHOLE = {-3: Kind.MODEL_ERROR, -2: Kind.CRASHED}
"""The failures of a whole run, by the value of ``x`` that causes them."""

ROW = st.fixed_dictionaries(
    {"x": st.integers(-3, 1000)}, optional={"y": st.integers(0, 9), "s": st.sampled_from(["a", "b"])}
)
CALLS = st.tuples(
    st.integers(0, 5), st.sampled_from(sorted(SPECS)), st.lists(ROW, min_size=1, max_size=5), st.booleans()
)
ROUNDS = st.lists(st.lists(CALLS, max_size=8), max_size=3)


@dataclass(frozen=True)
class Rowwise:
    """A model whose result for a row depends on that row alone: it fails the run for some rows, and others by row."""

    key: str

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        x = columns.values["x"]
        for value, kind in WHOLE.items():
            if (x == value).any():
                return Failure(kind, f"because of {value}")
        bad = {i: Failure(Kind.BAD_OUTPUT, f"a score of {x[i]}") for i in np.flatnonzero(x < 0).tolist()}
        for (row, name), why in columns.why.items():
            bad[row] = Failure(Kind.INVALID, f"{name}: {why}")
        rows = [Prediction(float(v), f"{self.key}-{v}", (float(v), 1.0), float(v) / 1000) for v in x]
        return ModelOutput(Predictions.of(rows), bad)


def _runner() -> Runner:
    models = {key: Rowwise(key) for key in SPECS}
    return Runner(models, 2, Metrics(CollectorRegistry()), time.monotonic, lambda error: None)


def _made(key: str, rows: list[dict[str, Any]], alone: bool) -> Call:
    return Call(key, columns(rows, SPECS[key]), ENOUGH, 4 * ENOUGH, alone=alone)


def by_row(call: Call, result: CallResult) -> list[object]:
    """The answer or the failure of each row."""
    rows: list[object] = []
    for i in range(len(call)):
        assert i in result.bad or result.predictions is not None
        rows.append(result.bad[i] if i in result.bad else result.predictions.row(i))  # type: ignore[union-attr]
    return rows


async def _check(rounds: list[list[tuple[int, str, list[dict[str, Any]], bool]]]) -> None:
    plain, shared = _runner(), SharedCalls(runner := _runner(), time.monotonic)
    for made in rounds:
        lanes = [(lane, _made(key, rows, alone)) for lane, key, rows, alone in made]
        together = await asyncio.gather(*(shared.run(call, lane) for lane, call in lanes))
        for (_, call), result in zip(lanes, together, strict=True):
            apart = await plain.run(call)
            assert by_row(call, result) == by_row(call, apart)
            assert result.bad.keys() <= set(range(len(call)))
            assert result.predictions is None or len(result.predictions) == len(call)
        assert sum(r.runs for r in together) >= len({call.key for _, call in lanes})
    for key in SPECS:
        await asyncio.wait_for(runner.retire(key), ENOUGH)
    plain.close()
    runner.close()


@settings(max_examples=60, deadline=None)
@given(ROUNDS)
def test_shared_runs_change_no_result(rounds: list[list[tuple[int, str, list[dict[str, Any]], bool]]]) -> None:
    """Row by row the answers and failures are those of separate runs, and afterwards no call is in flight."""
    asyncio.run(_check(rounds))
