"""Owns the checks on one version. They run one after the other in the vetting's subprocess, which a check may crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Artifact
from failsoft.models.runtime.memory import out_of_memory, over_memory
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.session import Session, Unloadable
from failsoft.models.runtime.signature import Mismatch
from failsoft.models.vetting import golden
from failsoft.models.vetting.golden import Golden
from failsoft.models.vetting.verdict import Check, CheckResult
from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import FeatureType
from failsoft.schemas.prediction import Prediction

Step = str | Check
"""The name of a check that begins, or a finished check. After a crash the reader knows which check was running."""

SAMPLE = 16
"""Rows that are tried one by one: enough to include each category of a small set, and few enough for the time limits at
a deadline of 200 ms."""

BATCHES = (1, 2, 64)
"""Batch sizes to try: one row, the smallest real batch, and a typical batch under light traffic."""

TIMES = 5
"""Runs of which the fastest counts: a busy machine only ever makes a run slower."""

NAMED = 5
"""Largest number of features that a message names."""

# Valid for most features and for every index into a table. The model may not accept large or negative numbers.
_SMALL = (1, 0, 2, 0.5, 3, 0.25, 1.5)


def run_checks(artifact: Artifact, card: ModelCard, memory: str, clock: Callable[[], float]) -> Iterator[Step]:
    """Yields each check's name and result. Stops early if the other checks cannot run after a failed one.

    ``memory`` is the limit in words, for messages; ``clock`` gives seconds.
    """
    yield "checksum"
    yield _checksum(artifact)
    # The repository refuses a version with weights in other files before this point.
    yield Check("single_file", CheckResult.PASSED, "no weights in other files")
    yield "load"
    began = clock()
    try:
        session = Session(artifact, card, warns=True)
    except Unloadable as error:
        yield from _unloadable(error, memory)
        return
    yield Check("load", CheckResult.PASSED, f"in {_ms(clock() - began)}")
    yield Check("contract", CheckResult.PASSED, f"{len(card.features)} features, a {card.output.kind} output")
    try:
        vectors, problem = golden.read(artifact.path.parent / golden.FILE), None
    except Refused as error:
        vectors, problem = None, str(error)
    yield "output"
    sample, origin = _sample(session, artifact, card, vectors)
    began = clock()
    answers = [session.run(sample.take(np.array([0])))]
    first = clock() - began
    answers += [session.run(sample.take(np.array([i]))) for i in range(1, sample.size)]
    yield _output(answers, origin, memory)
    good = np.array([i for i, a in enumerate(answers) if isinstance(a, ModelOutput) and not a.bad], dtype=np.intp)
    if len(good):
        yield "batch"
        yield _batch(session, sample, good)
    yield "golden"
    yield _golden(session, artifact, vectors, problem)
    if len(good):
        yield "nan"
        yield _nan(session, sample.take(good[:1]))
        yield "time"
        yield _time(session, sample, good, first, clock)


def _checksum(artifact: Artifact) -> Check:
    if artifact.declared:
        return Check("checksum", CheckResult.PASSED, f"sha256 {artifact.sha256[:12]}…, as in version.toml")
    message = f'no sha256 in version.toml, so an incomplete copy is not detected: add sha256 = "{artifact.sha256}"'
    return Check("checksum", CheckResult.SKIPPED, message)


def _unloadable(error: Unloadable, memory: str) -> Iterator[Check]:
    if isinstance(error.__cause__, Mismatch):
        yield Check("load", CheckResult.PASSED, "within the limits")
        yield Check("contract", CheckResult.FAILED, str(error.__cause__))
    elif out_of_memory(f"{type(error.__cause__).__name__}: {error}"):
        yield Check("load", CheckResult.FAILED, over_memory(memory))
    else:
        yield Check("load", CheckResult.FAILED, str(error))


def _sample(
    session: Session, artifact: Artifact, card: ModelCard, vectors: Sequence[Golden] | None
) -> tuple[Columns, str]:
    """Up to SAMPLE valid rows, and their origin: "golden" for golden vectors, which are real rows, else "made-up"."""
    if vectors:
        rows, invalid = golden.rows(vectors, card, artifact.statistics, session.dtypes)
        valid = [i for i in range(rows.size) if i not in invalid][:SAMPLE]
        if valid:
            return rows.take(np.array(valid, dtype=np.intp)), "golden"
    return columns([_made_up(artifact, card, i) for i in range(SAMPLE)], card.specs), "made-up"


def _made_up(artifact: Artifact, card: ModelCard, i: int) -> dict[str, object]:
    """One made-up row: row 0 has zeros and first categories, row 1 typical values of the training data, others vary."""
    row: dict[str, object] = {}
    for j, feature in enumerate(card.features):
        known = artifact.statistics.get(feature.name)
        match feature.type:
            case FeatureType.FLOAT | FeatureType.INT:
                typical = None if known is None else known.mean if known.median is None else known.median
                varied = 0 if i == 0 else _SMALL[(i + j) % len(_SMALL)] if i > 1 else typical or 0
                row[feature.name] = round(varied) if feature.type is FeatureType.INT else float(varied)
            case FeatureType.BOOL:
                row[feature.name] = i > 0 and (i + j) % 2 == 1
            case FeatureType.STRING:
                words = sorted(feature.categories or ("",))
                row[feature.name] = words[0 if i == 0 else (i + j) % len(words)]
    return row


def _output(answers: Sequence[ModelOutput | Failure], origin: str, memory: str) -> Check:
    """Checks one answer per row. Some answers may be missing, since made-up values may be outside the model's
    domain.
    """
    raised = [a for a in answers if isinstance(a, Failure)]
    for failure in raised:
        if failure.kind is Kind.BAD_OUTPUT:
            return Check("output", CheckResult.FAILED, f"{failure.message}: it does not fit the card's [output]")
        if out_of_memory(failure.message):
            return Check("output", CheckResult.FAILED, f"for a single {origin} row {over_memory(memory)}")
    answered = [a for a in answers if isinstance(a, ModelOutput)]
    bad = [a.bad[0] for a in answered if a.bad]
    first_failure = next(iter([*raised, *bad]), None)
    if first_failure is not None and len(raised) == len(answers) and origin == "made-up":
        message = f"it fails on every made-up row ({first_failure.message}), which proves nothing: add golden.ndjson"
        return Check("output", CheckResult.NOTE, message)
    if first_failure is not None and len(raised) + len(bad) == len(answers):
        message = f"no usable answer to any of {len(answers)} {origin} rows: {first_failure.message}"
        return Check("output", CheckResult.FAILED, message)
    scores = [float(a.predictions.scores[0]) for a in answered if not a.bad]
    message = (
        f"{len(scores)} of {len(answers)} {origin} rows answered, scores from {min(scores):.4g} to {max(scores):.4g}"
    )
    if first_failure is not None:
        return Check("output", CheckResult.NOTE, f"{message}; to the others: {first_failure.message}")
    return Check("output", CheckResult.PASSED, message)


def _batch(session: Session, sample: Columns, good: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Check:
    single_scores: list[float] = []
    for n in BATCHES:
        rows = np.resize(good, n)
        answer = session.run(sample.take(rows))
        if isinstance(answer, Failure):
            message = f"it takes 1 row, and not {n} ({answer.message}): export it with a dynamic first dimension"
            return Check("batch", CheckResult.FAILED, message)
        single_scores = single_scores or [_score(session.run(sample.take(np.array([i])))) for i in good.tolist()]
        expected = np.resize(np.array(single_scores), n)
        off = np.abs(answer.predictions.scores - expected)
        if (off > golden.ABSOLUTE + golden.RELATIVE * np.abs(expected)).any() or answer.bad:
            message = (
                f"a row's answer in a batch of {n} is up to {off.max():.2g} off its answer alone: the model mixes rows"
            )
            return Check("batch", CheckResult.NOTE, f"{message}, or is random")
    return Check("batch", CheckResult.PASSED, f"{', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]} rows")


def _score(answer: ModelOutput | Failure) -> float:
    return float("nan") if isinstance(answer, Failure) else float(answer.predictions.scores[0])


def _golden(session: Session, artifact: Artifact, vectors: list[Golden] | None, problem: str | None) -> Check:
    if problem is not None:
        return Check("golden", CheckResult.FAILED, problem)
    if vectors is None:
        message = f"no {golden.FILE}: this version's answers cannot be compared (docs/vetting.md: how to make the file)"
        return Check("golden", CheckResult.SKIPPED, message)
    rows, invalid = golden.rows(vectors, session.card, artifact.statistics, session.dtypes)
    valid = [i for i in range(rows.size) if i not in invalid]
    answers: list[Prediction | Failure] = [invalid.get(i) or _UNASKED for i in range(rows.size)]
    for start in range(0, len(valid), BATCHES[-1]):
        chunk = valid[start : start + BATCHES[-1]]
        for i, answer in zip(chunk, _each(session, rows.take(np.array(chunk, dtype=np.intp))), strict=True):
            answers[i] = answer
    differences = golden.mismatches(vectors, answers)
    if differences:
        return Check("golden", CheckResult.FAILED, golden.describe(differences, len(vectors)))
    return Check("golden", CheckResult.PASSED, f"{len(vectors)} answers as expected")


_UNASKED = Failure(Kind.UNAVAILABLE, "not asked")


def _each(session: Session, rows: Columns) -> list[Prediction | Failure]:
    """One answer per row. If a batch fails as a whole, its rows are run one by one."""
    answer = session.run(rows)
    if isinstance(answer, ModelOutput):
        return [answer.bad.get(i) or answer.predictions.row(i) for i in range(rows.size)]
    if rows.size == 1:
        return [answer]
    return [result for i in range(rows.size) for result in _each(session, rows.take(np.array([i])))]


def _nan(session: Session, row: Columns) -> Check:
    """Tries a NaN in each float feature, one feature per row. An answer is only noted: live, imputation comes first."""
    names = [spec.name for spec in session.card.specs if spec.type is FeatureType.FLOAT]
    if not names:
        return Check("nan", CheckResult.SKIPPED, "no float feature")
    rows = row.take(np.zeros(len(names), dtype=np.intp))
    for i, name in enumerate(names):
        rows.values[name][i] = np.nan
    answers = _each(session, rows)
    confident = [name for name, a in zip(names, answers, strict=True) if not isinstance(a, Failure)]
    if not confident:
        return Check(
            "nan", CheckResult.PASSED, "no score for a missing value: the model raises, or its output is not a number"
        )
    more = f" and {len(confident) - NAMED} more" if len(confident) > NAMED else ""
    message = f"it gives a score for a missing {', '.join(confident[:NAMED])}{more}: only imputation prevents that"
    return Check("nan", CheckResult.NOTE, message)


def _time(
    session: Session,
    sample: Columns,
    good: np.ndarray[tuple[int], np.dtype[np.intp]],
    first: float,
    clock: Callable[[], float],
) -> Check:
    deadline = session.card.model.deadline

    def quickest(n: int) -> float:
        rows, best = sample.take(np.resize(good, n)), float("inf")
        for _ in range(TIMES):
            began = clock()
            session.run(rows)
            best = min(best, clock() - began)
        return best

    one = quickest(1)
    if one > deadline:
        message = (
            f"a single row takes {_ms(one)}, and the card's deadline is {_ms(deadline)}: every call would time out"
        )
        return Check("time", CheckResult.FAILED, f"{message}; raise the deadline, or make the model smaller")
    many = quickest(BATCHES[-1])
    message = (
        f"first run {_ms(first)}, then {_ms(one)} a row and {_ms(many)} for {BATCHES[-1]}; deadline {_ms(deadline)}"
    )
    return Check("time", CheckResult.NOTE if max(first, many) > deadline else CheckResult.PASSED, message)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
