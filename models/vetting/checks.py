"""Owns the checks on one version. They run one after the other in the vetting's subprocess, which a check may crash."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.fields import OutputKind
from failsoft.models.catalog.repository import Artifact
from failsoft.models.runtime.memory import out_of_memory, over_memory
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.session import Session, Unloadable
from failsoft.models.runtime.signature import Mismatch
from failsoft.models.vetting import golden, own_labels, probabilities
from failsoft.models.vetting.golden import Golden, Tolerance
from failsoft.models.vetting.missing_values import nan
from failsoft.models.vetting.own_labels import LABELLED, LabelFinding
from failsoft.models.vetting.own_marks import compare_marks
from failsoft.models.vetting.probabilities import logits, misapplied
from failsoft.models.vetting.rows import each, own_scores
from failsoft.models.vetting.sample import made_up, of_length, sample
from failsoft.models.vetting.verdict import Check, CheckResult
from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.prediction import Prediction

Step = str | Check
"""The name of a check that begins, or a finished check. After a crash the reader knows which check was running."""

BATCHES = (1, 2, 64)
"""Batch sizes to try: one row, the smallest real batch, and a typical batch under light traffic."""

TIMES = 5
"""Runs of which the fastest counts: a busy machine only ever makes a run slower."""


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
    count = len(card.features)
    fits = f"{count} feature{'s' * (count != 1)}, a{'n' * (card.output.kind is OutputKind.ANOMALY)} {card.output.kind}"
    yield Check("contract", CheckResult.PASSED, f"{fits} output")
    try:
        vectors, problem = golden.read(artifact.path.parent / golden.FILE), None
    except Refused as error:
        vectors, problem = None, str(error)
    yield "output"
    rows, origin = sample(artifact, card, vectors, session.dtypes)
    began = clock()
    answers = [session.run(rows.take(np.array([0])))]
    first = clock() - began
    answers += [session.run(rows.take(np.array([i]))) for i in range(1, rows.size)]
    answered = _indices(i for i, a in enumerate(answers) if isinstance(a, ModelOutput))
    raw = own_scores(session, rows.take(answered))
    yield _output(answers, origin, memory, None if raw is None else logits(*raw, card.output))
    good = _indices(i for i, a in enumerate(answers) if isinstance(a, ModelOutput) and not a.bad)
    tolerance = golden.tolerance("float32" if raw is None else raw[1], card.output.tolerance)
    yield "golden"
    golden_check = _golden(session, artifact, vectors, problem, tolerance)
    yield golden_check
    proven = golden_check.result is CheckResult.PASSED
    if card.output.activation is not None:
        yield "activation"
        yield _activation(session, made_up(artifact, card), rows, proven)
    contradicts = False
    if card.output.kind in LABELLED and len(answered):
        yield "labels"
        labels = _labels(
            session, rows.take(answered), proven and all(v.expected.label is not None for v in vectors or ())
        )
        yield labels
        contradicts = labels.result is CheckResult.FAILED  # then a batch fails for this reason
    if len(good):
        if not contradicts:
            yield "batch"
            yield _batch(session, rows, good, tolerance)
        if "ZipMap" in session.facts.ops:
            yield "maps"
            yield _maps(session, rows.take(np.resize(good, BATCHES[-1])), clock)
        if any(spec.tensor is not None and spec.tensor.max_length is not None for spec in card.specs):
            yield "length"
            yield _length(session, artifact, clock)
        yield "nan"
        yield nan(session, rows.take(good))
        yield "time"
        yield _time(session, rows, good, first, clock)


def _indices(rows: Iterable[int]) -> NDArray[np.intp]:
    return np.array(list(rows), dtype=np.intp)


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


def _output(answers: Sequence[ModelOutput | Failure], origin: str, memory: str, no_probabilities: str | None) -> Check:
    """Checks one answer per row. Some answers may be missing, since made-up values may be outside the model's
    domain.
    """
    raised = [a for a in answers if isinstance(a, Failure)]
    for failure in raised:
        if failure.kind is Kind.BAD_OUTPUT:
            return Check("output", CheckResult.FAILED, f"{failure.message}: it does not fit the card's [output]")
        if out_of_memory(failure.message):
            return Check("output", CheckResult.FAILED, f"for a single {origin} row {over_memory(memory)}")
    if no_probabilities is not None:
        return Check("output", CheckResult.FAILED, f"of the {origin} rows, {no_probabilities}")
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


def _batch(session: Session, sample: Columns, good: NDArray[np.intp], tolerance: Tolerance) -> Check:
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
        if (off > tolerance.of(expected)).any() or answer.bad:
            message = (
                f"a row's answer in a batch of {n} is up to {off.max():.2g} off its answer alone: the model mixes rows"
            )
            return Check("batch", CheckResult.NOTE, f"{message}, or is random")
    return Check("batch", CheckResult.PASSED, f"{', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]} rows")


def _score(answer: ModelOutput | Failure) -> float:
    return float("nan") if isinstance(answer, Failure) else float(answer.predictions.scores[0])


def _golden(
    session: Session, artifact: Artifact, vectors: list[Golden] | None, problem: str | None, tolerance: Tolerance
) -> Check:
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
        for i, answer in zip(chunk, each(session, rows.take(np.array(chunk, dtype=np.intp))), strict=True):
            answers[i] = answer
    relative, types = session.card.output.tolerance, session.output_types
    carried = {name: golden.tolerance(types.get(name, "float32"), relative) for name in session.card.output.carry}
    differences = golden.mismatches(vectors, answers, tolerance, carried)
    if differences:
        return Check("golden", CheckResult.FAILED, golden.describe(differences, len(vectors)))
    return Check("golden", CheckResult.PASSED, f"{len(vectors)} answers as expected")


_UNASKED = Failure(Kind.UNAVAILABLE, "not asked")


def _activation(session: Session, made_up: Columns, rows: Columns, proven: bool) -> Check:
    """Whether the card's activation is that of the model's logits. Rows of several scales are tried too: a few real
    ones show little.
    """
    output = session.card.output
    found = [own_scores(session, each) for each in (made_up, rows)]
    scores = [raw for raw in found if raw is not None]
    if not scores:
        return Check("activation", CheckResult.SKIPPED, "no row has scores")
    table = np.concatenate([raw[0] for raw in scores])
    problem = misapplied(table, scores[0][1], output)
    if problem is None:
        span = f"the model's own scores are from {np.nanmin(table):.4g} to {np.nanmax(table):.4g}"
        return Check("activation", CheckResult.PASSED, f"{span}: {output.activation} makes them probabilities")
    if proven:
        return Check("activation", CheckResult.NOTE, f"{problem}; the golden vectors agree with it all the same")
    return Check("activation", CheckResult.FAILED, f"{problem}, or add golden.ndjson if they are logits after all")


def _labels(session: Session, rows: Columns, proven: bool) -> Check:
    """The model's labels against the card's. Golden vectors with labels that agree say what the card means."""
    output = session.card.output
    raw, ours = session.outputs(rows), session.run(rows)
    if isinstance(ours, Failure) and ours.kind is Kind.BAD_OUTPUT:
        return Check("labels", CheckResult.FAILED, ours.message)
    if isinstance(raw, Failure) or isinstance(ours, Failure):
        return Check("labels", CheckResult.SKIPPED, "it does not take these rows as a batch")
    if output.kind is OutputKind.MULTILABEL:
        return _held(compare_marks(raw, output, session.score_output, rows.size), proven)
    own = own_labels.own_labels(raw, output, session.score_output, rows.size)
    read = probabilities.table(raw[session.score_output], rows.size)
    if own is None or read is None:
        return Check("labels", CheckResult.SKIPPED, "the model has no label output")
    # A multiclass row may be bad because of its label, which is what is looked for.
    sound = [i for i in range(rows.size) if i not in ours.bad or output.kind is OutputKind.MULTICLASS]
    if not sound:
        return Check("labels", CheckResult.SKIPPED, "no row has a usable score")
    answers = ours.predictions.take(_indices(sound))
    found = own_labels.compare([own[i] for i in sound], answers, output, session.facts, read[0].shape[1])
    return _held(found, proven)


def _held(found: LabelFinding, proven: bool) -> Check:
    if found.result is CheckResult.FAILED and proven:
        return Check("labels", CheckResult.NOTE, f"{found.message}; but the golden vectors agree with the card")
    return Check("labels", found.result, found.message)


_NO_MAPS = {
    "skl2onnx": 'export without it: to_onnx(model, …, options={"zipmap": False})',
    "OnnxMLTools": "export without it: convert_lightgbm(…, zipmap=False)",
    "CatBoost": "CatBoost has no option to export without it",
}


def _maps(session: Session, rows: Columns, clock: Callable[[], float]) -> Check:
    """The share of a run that goes into maps: the model's other outputs come without them."""
    mend = _NO_MAPS.get(session.facts.producer, "export without ZipMap, if its converter has an option for it")
    whole = _quickest(lambda: session.run(rows), clock)
    others = session.outputs(rows, but=session.score_output)
    message = f"its probabilities are a sequence of maps (ZipMap), which ONNX Runtime hands over one by one: {mend}"
    if isinstance(others, Failure) or not others:
        return Check("maps", CheckResult.NOTE, message)
    rest = _quickest(lambda: session.outputs(rows, but=session.score_output), clock)
    share = max(0.0, 1 - rest / whole) if whole else 0.0
    return Check("maps", CheckResult.NOTE, f"{message}. They take {share:.0%} of the time for {rows.size} rows")


def _length(session: Session, artifact: Artifact, clock: Callable[[], float]) -> Check:
    """Tries the longest rows that the card lets through, and empty ones: the other made-up rows are short."""
    card = session.card
    began = clock()
    answer = each(session, of_length(artifact, card, None))[0]
    took = clock() - began
    if isinstance(answer, Failure):
        message = f"a row as long as max_length fails ({answer.message}): write the max_length that the model takes"
        return Check("length", CheckResult.NOTE, f"{message}; truncate = true cuts longer rows off")
    if took > card.model.deadline:
        message = f"a row as long as max_length takes {_ms(took)}, and the deadline is {_ms(card.model.deadline)}"
        return Check("length", CheckResult.NOTE, f"{message}: write a shorter max_length, or a longer deadline")
    empty = each(session, of_length(artifact, card, 0))[0]
    if isinstance(empty, Failure):
        return Check("length", CheckResult.NOTE, f"a row of length 0 has no answer: {empty.message}")
    return Check("length", CheckResult.PASSED, f"rows of length 0 and of max_length, in {_ms(took)}")


def _quickest(run: Callable[[], object], clock: Callable[[], float]) -> float:
    best = float("inf")
    for _ in range(TIMES):
        began = clock()
        run()
        best = min(best, clock() - began)
    return best


def _time(
    session: Session,
    sample: Columns,
    good: NDArray[np.intp],
    first: float,
    clock: Callable[[], float],
) -> Check:
    deadline = session.card.model.deadline

    def quickest(n: int) -> float:
        rows = sample.take(np.resize(good, n))
        return _quickest(lambda: session.run(rows), clock)

    one = quickest(1)
    if one > deadline:
        message = (
            f"a single row takes {_ms(one)}, and the card's deadline is {_ms(deadline)}: every call would time out"
        )
        return Check("time", CheckResult.FAILED, f"{message}; raise the deadline, or make the model smaller")
    many = quickest(BATCHES[-1])
    message = (
        f"first run {_ms(first)}, then {_ms(one)} a row and {_ms(many)} for {BATCHES[-1]}, "
        f"{BATCHES[-1] / many if many else 0:,.0f} rows a second; deadline {_ms(deadline)}"
    )
    return Check("time", CheckResult.NOTE if max(first, many) > deadline else CheckResult.PASSED, message)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
