"""The only import of onnxruntime: loads a version, warms it, and runs batches whose failures are values."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import threading
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Artifact
from failsoft.models.runtime import signature
from failsoft.models.runtime.memory import out_of_memory
from failsoft.models.runtime.signature import ModelOutput, Port
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features import Columns, FeatureType, Spec

__all__ = ["Cancel", "ModelOutput", "Session", "Unloadable", "ports"]

# ONNX Runtime's errors have no common class but Exception, and its Python side raises built-in ones as well.
_ERRORS: tuple[type[Exception], ...] = (
    *(e for e in vars(native).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
)
# Headers carry 500 bytes of a message, and ONNX Runtime's begin with what matters.
_SAID = 300
# A first run allocates; a row and a small batch take the two paths that live traffic takes.
_WARM_SIZES = (1, 64)


class Unloadable(Exception):
    """The version cannot serve: it is corrupt, too new, or does not fit its card; the message says what to do."""


class Endable(Protocol):
    """What a Cancel ends: ONNX Runtime's RunOptions, or what ends a run elsewhere when this is set."""

    terminate: bool


class Cancel:
    """Ends a run from another thread. Once ``set``, whatever runs under it is a timeout, even if it comes back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Endable] = set()
        self._expired = False

    @property
    def expired(self) -> bool:
        return self._expired

    def set(self) -> None:
        """Ends the run at its next operator (ONNX Runtime does not look inside one); safe from any thread."""
        with self._lock:
            self._expired = True
            for options in self._running:
                options.terminate = True

    def begin(self, options: Endable) -> bool:
        """False if it is too late to start."""
        with self._lock:
            if not self._expired:
                self._running.add(options)
            return not self._expired

    def end(self, options: Endable) -> None:
        with self._lock:
            self._running.discard(options)


class Session:
    """One version of a model, loaded. ``run`` may be called from several threads at once."""

    def __init__(self, artifact: Artifact, card: ModelCard, warns: bool = False) -> None:
        """Raises Unloadable. The bytes that are loaded are those that were hashed.

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
        try:
            session = ort.InferenceSession(content, _options(warns), providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise Unloadable(f"{self.key}: {_advice(error)}") from error
        try:
            self._feeds = signature.feeds(session.get_inputs(), self._specs)
            self._answers = signature.answers(session.get_outputs(), card)
        except signature.Mismatch as error:
            raise Unloadable(f"{self.key}: {error}") from error
        self._session: ort.InferenceSession | None = session

    def warm(self) -> None:
        """Runs made-up batches, so that the first real one is not slow. Raises Unloadable for an output's wrong shape,
        and when memory is refused: vetting may have had more than the card's limit leaves.

        Any other failure is let pass: the values are made up, so it proves nothing.
        """
        for n in _WARM_SIZES:
            outcome = self.run(_made_up(self._specs, n))
            if isinstance(outcome, Failure) and outcome.kind is Kind.BAD_OUTPUT:
                raise Unloadable(f"{self.key}: {outcome.message}: it does not fit the card's [output]")
            if isinstance(outcome, Failure) and out_of_memory(outcome.message):
                raise Unloadable(f"{self.key}: memory is refused for {n} made-up rows: {outcome.message}")

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        """Answers a batch of the card's features, blocking; a Failure is the whole batch's.

        MODEL_ERROR when the model raised, TIMEOUT when ``cancel`` was set before it came back, BAD_OUTPUT for an
        output of the wrong shape, UNAVAILABLE once closed. A row with an unusable cell is bad (INVALID). Raises
        ValueError for columns that are not the card's, which is the caller's mistake.
        """
        if columns.specs != self._specs:
            raise ValueError(f"{self.key} wants the columns of its card, and got {[s.name for s in columns.specs]}")
        session = self._session
        if session is None:
            return Failure(Kind.UNAVAILABLE, f"{self.key} is unloaded")
        unfit = self._feeds.unfit(columns)
        options = ort.RunOptions()  # fresh each time: one that was terminated fails at once
        if cancel is not None and not cancel.begin(options):
            return self._late()
        try:
            tensors: Any = session.run(self._answers.names, self._feeds.make(columns), options)
        except _ERRORS as error:
            if cancel is not None and cancel.expired:
                return self._late()
            return Failure(Kind.MODEL_ERROR, f"{type(error).__name__}: {_first_line(error)}")
        finally:
            if cancel is not None:
                cancel.end(options)
        if cancel is not None and cancel.expired:
            return self._late()
        outcome = self._answers.read(tensors, columns.size)
        if unfit and isinstance(outcome, ModelOutput):
            outcome.bad.update(unfit)
        return outcome

    def close(self) -> None:
        """Lets go of the model's memory; runs under way end first, since each holds the model until it is back."""
        self._session = None
        gc.collect()
        # glibc keeps what was freed; without this a worker grows by a model at each swap.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

    def _late(self) -> Failure:
        return late(self.key, self.card)


def late(key: str, card: ModelCard) -> Failure:
    """Of a run that was cancelled."""
    return Failure(Kind.TIMEOUT, f"{key} was stopped at its deadline of {card.model.deadline * 1000:g} ms")


def _options(warns: bool = False) -> ort.SessionOptions:
    """One thread a call, and none that spins: parallelism comes from lanes and processes, and cores are shared."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 2 if warns else 4  # fatal only: its errors come as exceptions, and are ours to log
    return options


def _advice(error: Exception) -> str:
    """What a load error means; by its name, since the classes are not all public."""
    said = _first_line(error)
    match type(error).__name__:
        case "InvalidProtobuf":
            return f"not an ONNX file, or a damaged one: copy it again ({said})"
        case "Fail" if "opset" in said.lower() or "ir_version" in said.lower() or "ir version" in said.lower():
            return f"made for a newer ONNX Runtime than {ort.__version__}: export with a lower target_opset ({said})"
        case "NotImplemented":
            return f"it uses an operator that ONNX Runtime {ort.__version__} does not have ({said})"
    return f"ONNX Runtime {ort.__version__} cannot load it ({type(error).__name__}: {said})"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:_SAID] if lines else "no message"


def _made_up(specs: tuple[Spec, ...], n: int) -> Columns:
    """``n`` rows of zeros, falses and first categories."""
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
    return Columns(specs, n, values)


def ports(path: Path) -> tuple[list[Port], list[Port]]:
    """The inputs and the outputs of the model at ``path``, for whoever writes its card. Raises Unloadable."""
    try:
        session = ort.InferenceSession(path.read_bytes(), _options(), providers=["CPUExecutionProvider"])
    except _ERRORS as error:
        raise Unloadable(f"{path}: {_advice(error)}") from error
    return session.get_inputs(), session.get_outputs()
