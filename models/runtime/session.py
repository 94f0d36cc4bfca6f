"""Owns the ONNX Runtime session: loads a version, warms it, and runs batches. Failures are returned as values.

Batches of a model run only here.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import threading
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.graph import facts
from failsoft.models.catalog.repository import Artifact
from failsoft.models.runtime import inputs, load_advice, outputs, signature
from failsoft.models.runtime.element_types import ELEMENT_TYPES
from failsoft.models.runtime.memory import out_of_memory
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.run_times import RunTimes, measure
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Column, Columns
from failsoft.schemas.features.spec import DType, FeatureType, Spec, TensorSpec

__all__ = ["BareSession", "Cancel", "ModelOutput", "Session", "Unloadable"]

# ONNX Runtime's errors have no common base class but Exception, and its Python code also raises built-in ones.
_ERRORS: tuple[type[Exception], ...] = (
    *(e for e in vars(native).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
)


class Unloadable(Exception):
    """The version cannot serve: it is corrupt, too new, or does not match its card. The message says what to do."""


class Endable(Protocol):
    """A run that a Cancel can end: ONNX Runtime's RunOptions, or a replacement for it in another kind of session."""

    terminate: bool


class Cancel:
    """Ends runs from another thread. After ``set``, every run under it is a timeout, even if it returns an answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Endable] = set()
        self._expired = False

    @property
    def expired(self) -> bool:
        return self._expired

    def set(self) -> None:
        """Ends the run at its next operator; ONNX Runtime does not check inside one. May be called from any thread."""
        with self._lock:
            self._expired = True
            for options in self._running:
                options.terminate = True

    def begin(self, options: Endable) -> bool:
        """Registers a run. False if ``set`` was called before, so that the run must not start."""
        with self._lock:
            if not self._expired:
                self._running.add(options)
            return not self._expired

    def end(self, options: Endable) -> None:
        with self._lock:
            self._running.discard(options)


class Session:
    """One loaded version of a model. ``run`` may be called from several threads at once.

    Attributes:
        dtypes: numpy's name of the type that the model computes a feature in, by feature. Its numbers have to fit:
            ``impute`` takes care of those that do not.
        output_types: numpy's name of the type of each output that is a tensor.
        times: how long its runs take; None before ``warm``, and if made-up rows fail.
    """

    def __init__(self, artifact: Artifact, card: ModelCard, warns: bool = False) -> None:
        """Loads the version. Raises Unloadable. The bytes loaded are the bytes whose sha256 was compared.

        ``warns`` lets ONNX Runtime write its warnings to stderr, where a vetting reads them.
        """
        self.artifact = artifact
        self.card = card
        self.key = artifact.key
        self.model = artifact.model
        self.version = artifact.version
        self.sha256 = artifact.sha256
        self._specs = card.specs
        try:
            content = artifact.path.read_bytes()
        except OSError as error:
            raise Unloadable(f"{self.key}: {artifact.path} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != artifact.sha256:
            raise Unloadable(
                f"{self.key}: {artifact.path} changed after it was checked: give each version a new number"
            )
        self.facts = facts(content)
        try:
            session = ort.InferenceSession(content, _options(warns), providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise Unloadable(f"{self.key}: {load_advice.advice(error, self.facts, ort.__version__)}") from error
        if self.facts.damaged:
            raise Unloadable(f"{self.key}: its structure cannot be read ({self.facts.damaged}): export it again")
        try:
            self._feeds = inputs.feeds(session.get_inputs(), self._specs)
            inputs.check_imputed(card, artifact.statistics, self._feeds.dtypes)
            self._answers = outputs.answers(session.get_outputs(), card, self.facts.labels)
        except signature.Mismatch as error:
            raise Unloadable(f"{self.key}: {error}") from error
        self.dtypes = self._feeds.dtypes
        ports = [port for port in session.get_outputs() if port.type in ELEMENT_TYPES]
        self.output_types = {port.name: ELEMENT_TYPES[port.type].name for port in ports}
        self._session: ort.InferenceSession | None = session
        self.times: RunTimes | None = None

    def warm(self) -> None:
        """Runs made-up batches, so that the first real batch is not slow, and measures their ``times``. One row and a
        small batch take the two code paths of live traffic.

        Raises Unloadable for an output of the wrong shape, and if memory runs out: the vetting may have had more memory
        than the card's limit leaves. Other failures are ignored, because the rows are made up: then the times are not
        known.
        """
        self.times = measure(self._run_made_up, self.card.model.max_batch)

    def _run_made_up(self, n: int) -> float | None:
        """Runs ``n`` made-up rows. Returns the seconds that it took, or None for a failure that is ignored."""
        columns, began = _made_up(self._specs, n), time.perf_counter()
        outcome = self.run(columns)
        took = time.perf_counter() - began
        if not isinstance(outcome, Failure):
            return took
        if outcome.kind is Kind.BAD_OUTPUT:
            raise Unloadable(f"{self.key}: {outcome.message}: it does not fit the card's [output]")
        if out_of_memory(outcome.message):
            raise Unloadable(f"{self.key}: not enough memory for {n} made-up rows: {outcome.message}")
        return None

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        """Runs a batch of the card's features; blocks. A Failure is that of the whole batch.

        MODEL_ERROR if the model raised, TIMEOUT if ``cancel`` was set before the run returned, BAD_OUTPUT for an output
        of the wrong shape, UNAVAILABLE after ``close``. A row with an unusable cell is in ``bad`` (INVALID). Raises
        ValueError if the columns are not those of the card, which is a mistake of the caller.
        """
        if columns.specs != self._specs:
            raise ValueError(f"{self.key} needs the columns of its card, and got {[s.name for s in columns.specs]}")
        session = self._session
        if session is None:
            return Failure(Kind.UNAVAILABLE, f"{self.key} is unloaded")
        invalid = inputs.invalid(columns)
        options = ort.RunOptions()  # new each time: after terminate, RunOptions fail every run at once
        if cancel is not None and not cancel.begin(options):
            return self._late()
        try:
            tensors: Any = session.run(self._answers.names, self._feeds.make(columns), options)
        except _ERRORS as error:
            if cancel is not None and cancel.expired:
                return self._late()
            return Failure(Kind.MODEL_ERROR, f"{type(error).__name__}: {load_advice.first_line(error)}")
        finally:
            if cancel is not None:
                cancel.end(options)
        if cancel is not None and cancel.expired:
            return self._late()
        outcome = self._answers.read(tensors, columns.size)
        if invalid and isinstance(outcome, ModelOutput):
            outcome.bad.update(invalid)
        return outcome

    def outputs(self, columns: Columns, but: str | None = None) -> dict[str, Any] | Failure:
        """The model's outputs ``but`` one for a batch, by name, as ONNX Runtime gives them; blocks. For vetting."""
        session = self._session
        if session is None:
            return Failure(Kind.UNAVAILABLE, f"{self.key} is unloaded")
        names = [port.name for port in session.get_outputs() if port.name != but]
        if not names:  # ONNX Runtime would take that for all of them
            return {}
        try:
            return dict(zip(names, session.run(names, self._feeds.make(columns)), strict=True))
        except _ERRORS as error:
            return Failure(Kind.MODEL_ERROR, f"{type(error).__name__}: {load_advice.first_line(error)}")

    @property
    def score_output(self) -> str:
        """The name of the output that the scores are read from."""
        return self._answers.scores

    def close(self) -> None:
        """Frees the model's memory. Runs under way can finish, because each keeps a reference to the model."""
        self._session = None
        gc.collect()
        # glibc keeps freed memory; without malloc_trim a worker would grow by one model at each switch of versions.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

    def _late(self) -> Failure:
        return late(self.key, self.card)


def late(key: str, card: ModelCard) -> Failure:
    """The failure of a cancelled run."""
    return Failure(Kind.TIMEOUT, f"{key} was stopped at its deadline of {card.model.deadline * 1000:g} ms")


def _options(warns: bool = False) -> ort.SessionOptions:
    """One thread per call, without spinning: parallelism comes from lanes and processes, which share the cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 2 if warns else 4  # 4 is fatal only: errors are raised, and failsoft logs them
    return options


def _made_up(specs: tuple[Spec, ...], n: int) -> Columns:
    """``n`` rows of zeros, false and first categories."""
    values: dict[str, Any] = {}
    for spec in specs:
        match spec.type:
            case FeatureType.FLOAT:
                values[spec.name] = np.zeros(n)
            case FeatureType.INT:
                values[spec.name] = np.zeros(n, np.int64)
            case FeatureType.BOOL:
                values[spec.name] = np.zeros(n, np.bool_)
            case FeatureType.STRING:
                values[spec.name] = np.full(n, min(spec.categories or {""}), dtype=object)
            case FeatureType.TENSOR:
                assert spec.tensor is not None, "a tensor has a shape"
                values[spec.name] = _made_up_tensors(spec.tensor, n)
    return Columns(specs, n, values)


def _made_up_tensors(tensor: TensorSpec, n: int) -> Column:
    """``n`` tensors of zeros, false or "". Rows of variable length are as long as they may be: the slowest ones."""
    length = tensor.max_length or 1
    shape = [length if k == -1 else k for k in tensor.shape]
    words = tensor.dtype is DType.STRING
    rows: Column = np.full((n, *shape), "", object) if words else np.zeros((n, *shape), tensor.dtype.value)
    if -1 not in tensor.shape:
        return rows
    ragged = np.empty(n, object)
    for i in range(n):
        ragged[i] = rows[i]
    return ragged


class BareSession:
    """A model without a card, for whoever writes one.

    Attributes:
        inputs, outputs: the model's inputs and outputs.
    """

    def __init__(self, path: Path) -> None:
        """Loads the file at ``path``. Raises Unloadable with the reason."""
        content = path.read_bytes()
        try:
            self._session = ort.InferenceSession(content, _options(), providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise Unloadable(load_advice.advice(error, facts(content), ort.__version__)) from error
        self.inputs: list[signature.Port] = self._session.get_inputs()
        self.outputs: list[signature.Port] = self._session.get_outputs()

    def run(self, feeds: dict[str, Any]) -> list[Any] | str:
        """The value of each output, or why the model did not run."""
        try:
            given: list[Any] = self._session.run(None, feeds)
        except _ERRORS as error:
            return f"{type(error).__name__}: {load_advice.first_line(error)}"
        return given
