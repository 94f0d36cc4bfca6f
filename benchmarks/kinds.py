"""Models of other kinds than the benchmark's own: their events, their models, and their rates beside it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np

from benchmarks import candidates, events, model
from benchmarks.candidates import EXACTLY, HAND_VECTOR, VECTOR, VECTOR_BASE64, ZIPMAP, Bench, Candidate, Figures
from benchmarks.events import EVENT_BYTES, SEED
from benchmarks.table import markdown, spread

LENGTH = 128
"""Numbers of a vector."""

DISTINCT = 2_000
"""Distinct vectors; they repeat under other ids. The text of one takes 2.6 KB."""

FEATURE = f"""\
[[features]]
name = "embedding"
type = "tensor"
dtype = "float32"
shape = [{LENGTH}]
"""

Ratios = Sequence[tuple[Candidate, Candidate, str]]
"""What to divide: the rates of the first by those of the second, in words."""

COMPARED = (EXACTLY, ZIPMAP, HAND_VECTOR, VECTOR, VECTOR_BASE64)

RATIOS = (
    (ZIPMAP, EXACTLY, "a model with ZipMap / the same without"),
    (VECTOR, HAND_VECTOR, "a vector as JSON / a hand-written loop that does the same"),
    (VECTOR_BASE64, VECTOR, "a vector as base64 / as JSON"),
)


def vectors(n: int = DISTINCT) -> np.ndarray:
    """``(n, 128)`` float32, the same on each call."""
    return np.random.default_rng(SEED).standard_normal((n, LENGTH)).astype(np.float32)


def as_json(row: np.ndarray) -> str:
    """The numbers as ``tolist`` gives them to a producer: float32 in the digits of a double."""
    return f"[{','.join(map(repr, row.tolist()))}]"


def as_base64(row: np.ndarray) -> str:
    """The row's little-endian bytes."""
    return f'"{base64.b64encode(row.astype("<f4").tobytes()).decode()}"'


def vector_events(text: Callable[[np.ndarray], str], n: int) -> Iterator[tuple[bytes, bytes]]:
    """``n`` events with one vector each, as (key, value). ``text`` writes a vector as JSON."""
    texts = [text(row) for row in vectors()]
    for i in range(n):
        event_id = f"evt-{i:011d}"
        head = f'{{"event_id":"{event_id}","occurred_at":"2026-11-24T10:00:00.123Z","features":{{"embedding":'
        yield event_id.encode(), f"{head}{texts[i % len(texts)]}}}}}".encode()


def vector_model() -> bytes:
    """A logistic regression: one float32 ``embedding`` (n, 128) in, label (n) and probabilities (n, 2) out."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    x = vectors()
    fitted = LogisticRegression().fit(x, x[:, 0] + x[:, 1] > 0)
    types = [("embedding", FloatTensorType([None, LENGTH]))]
    content: bytes = to_onnx(
        fitted, initial_types=types, options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3}
    ).SerializeToString()
    return content


@dataclass(frozen=True, slots=True)
class Source:
    """An input topic's events.

    Attributes:
        made: makes n of them.
        size: bytes of an event, for the table.
    """

    made: Callable[[int], Iterator[tuple[bytes, bytes]]]
    size: int


def by_kind(bench: Bench, n: int, rounds: int) -> str:
    """The rates of each kind in turn, over ``n`` events each, as Markdown."""
    model.write(bench.folder / ZIPMAP.repository, content=model.train(zipmap=True))
    model.write(bench.folder / VECTOR.repository, content=vector_model(), features=FEATURE)
    sources = {"standard": Source(events.events, EVENT_BYTES)}
    for name, text in (("vector", as_json), ("base64", as_base64)):
        made = partial(vector_events, text)
        sources[name] = Source(made, size(made))
    return rates(bench, "kinds", n, rounds, sources, COMPARED, RATIOS)


def rates(
    bench: Bench,
    section: str,
    n: int,
    rounds: int,
    sources: Mapping[str, Source],
    compared: Sequence[Candidate],
    ratios: Ratios,
) -> str:
    """The rates of the ``compared`` in rounds, over ``n`` events of its source each, and ``ratios``, as Markdown."""
    for name, source in sources.items():
        topic = f"{bench.prefix}{section}-{name}"
        bench.cluster.create(topic)
        bench.cluster.fill(topic, n, source.made)
    found: dict[Candidate, list[Figures]] = {candidate: [] for candidate in compared}
    for number in range(rounds):
        turn = number % len(compared)
        for candidate in (*compared[turn:], *compared[:turn]):
            topic = f"{bench.prefix}{section}-{candidate.events}"
            found[candidate].append(candidates.run(bench, candidate, topic, n, f"{section}-{candidate.name}-{number}"))
    rows = [
        (
            candidate.title,
            f"{sources[candidate.events].size:,}",
            f"{median(f.rate for f in runs):,.0f}",
            f"{1e6 * median(f.cpu_per_answer for f in runs):,.1f}",
        )
        for candidate, runs in found.items()
    ]
    table = markdown(("program", "bytes an event", "events/s", "CPU µs/event"), rows)
    return "\n".join([table, "", *_ratios(found, ratios)])


def _ratios(found: Mapping[Candidate, list[Figures]], ratios: Ratios) -> Iterator[str]:
    yield "Ratios of rates, each with the least and the greatest of its rounds, and of CPU time:"
    yield ""
    for these, those, what in ratios:
        cpu = median(b.cpu_per_answer / a.cpu_per_answer for a, b in zip(found[these], found[those], strict=True))
        yield f"- {what}: {spread(found[these], found[those])}; by CPU time {cpu:.2f}"


def size(made: Callable[[int], Iterator[tuple[bytes, bytes]]]) -> int:
    """The mean bytes of an event."""
    sizes = [len(value) for _, value in made(200)]
    return round(sum(sizes) / len(sizes))
