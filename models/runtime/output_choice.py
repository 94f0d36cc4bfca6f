"""Which of a model's outputs is the answer, which is its own label, and what does not fit the card's kind."""

from __future__ import annotations

from collections.abc import Sequence

from failsoft.models.catalog.fields import OutputKind
from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.runtime.signature import Mismatch, Port

FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")
MAPS = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")
"""The output of ZipMap: for each row a map from label to probability."""
TENSORS = tuple(f"seq({kind})" for kind in FLOATS)
"""scikit-learn's multilabel classifiers: for each label a tensor of two columns."""
WHOLE = ("tensor(int64)", "tensor(int32)")


def scores_port(outputs: Sequence[Port], wanted: OutputSection) -> Port:
    """The output with the scores or probabilities: the one that the card names, or the only one that can be it.

    Raises Mismatch, which names each candidate and the keys of the card that choose.
    """
    accepted = (*FLOATS, *MAPS, *(TENSORS if wanted.kind is OutputKind.MULTILABEL else ()))
    if wanted.output is not None:
        found = [port for port in outputs if port.name == wanted.output]
        if not found:
            available = [port.name for port in outputs]
            raise Mismatch(f"the card's output {wanted.output!r} is not an output of the model, which has {available}")
        if found[0].type not in accepted:
            raise Mismatch(f"the card's output {described(found[0])} holds no scores: {_others(outputs, accepted)}")
    else:
        found = [port for port in outputs if port.type in accepted and port.name not in wanted.carry]
    if not found:
        raise Mismatch(_no_scores(outputs, wanted))
    if len(found) > 1:
        others = ", ".join(f'"{port.name}"' for port in found[1:])
        raise Mismatch(
            f"several float outputs ({', '.join(map(described, found))}): choose one in the card's [output], "
            f'output = "{found[0].name}", and copy others into the answer with carry = [{others}]'
        )
    return found[0]


def _others(outputs: Sequence[Port], accepted: Sequence[str]) -> str:
    able = [described(port) for port in outputs if port.type in accepted]
    return f"it may be {' or '.join(able)}" if able else "no output of the model is a float tensor"


def _no_scores(outputs: Sequence[Port], wanted: OutputSection) -> str:
    types = ", ".join(map(described, outputs))
    carried = [port for port in outputs if port.name in wanted.carry and port.type in FLOATS]
    if carried:
        return f"no output is left for the score, because all float outputs are in carry ({types}): take one out"
    if any(port.type in TENSORS for port in outputs):
        return (
            f"no output is a float tensor ({types}): a sequence of tensors has the probabilities of several labels: "
            'write kind = "multilabel", or export one tensor'
        )
    return (
        f"no output is a float tensor ({types}): only labels leave no score to compare with a threshold or with a "
        "fallback's: export scores or probabilities too"
    )


def check_shape(scores: Port, outputs: Sequence[Port], wanted: OutputSection) -> None:
    """Refuses a declared shape that cannot hold the answers of the card's kind. Raises Mismatch."""
    shape = list(scores.shape)
    if scores.type not in FLOATS or per_label(shape, wanted):
        return
    if len(shape) > 2:
        squeezed = [size for i, size in enumerate(shape) if i == 0 or size != 1]
        mend = (
            "export it without the dimensions of 1"
            if len(squeezed) <= 2
            else "export the scores of one step or position of it, or carry it and choose another output"
        )
        raise Mismatch(
            f"output {scores.name!r} has {len(shape)} dimensions, {sizes(scores)}; scores have one or two, and a row "
            f"for each event: {mend}"
        )
    width = shape[1] if len(shape) == 2 else None
    _check_ranked(scores, outputs, wanted)
    if width == 1 and wanted.outputs is not None:
        return  # skl2onnx declares one column for a regression of trees, however many they give: the runs tell
    reason = misfit(wanted, width) if isinstance(width, int) else None
    if reason is not None:
        raise Mismatch(f"output {scores.name!r} has {width} column{'s' * (width != 1)}, {reason}")


def _check_ranked(scores: Port, outputs: Sequence[Port], wanted: OutputSection) -> None:
    """Refuses the k best of a list as probabilities: they come with as many whole numbers."""
    if wanted.kind is OutputKind.MULTILABEL or wanted.outputs is not None or len(scores.shape) != 2:
        return
    width = scores.shape[1]
    beside = [p for p in outputs if p.type in WHOLE and len(p.shape) == 2 and p.shape[1] == width]
    if width in (1, None) or not beside:
        return
    names = '"score_1", "score_2"' + ("" if width == 2 else ", …")
    raise Mismatch(
        f"outputs {described(scores)} and {described(beside[0])} have a whole number for each score. If these are the "
        f'best of a list (top-k), write kind = "regression", outputs = [{names}] and carry = ["{beside[0].name}"]; if '
        'each column is a label of its own, write kind = "multilabel"'
    )


def misfit(wanted: OutputSection, width: int) -> str | None:
    """Why ``width`` columns do not fit the card's kind, labels, names or activation, and what would.

    None if they fit.
    """
    kind, labels = wanted.kind, wanted.labels
    of_kind = f"not those of a{'n' * (kind is OutputKind.ANOMALY)} {kind} output"
    match kind:
        case OutputKind.BINARY:
            if width not in (1, 2):
                return f'{of_kind}: write kind = "multiclass", or "multilabel" if several labels may be true at once'
            if wanted.activation == "softmax" and width == 1:
                return 'which activation = "softmax" does not fit: write activation = "sigmoid"'
        case OutputKind.MULTICLASS | OutputKind.MULTILABEL:
            if width < 2:
                return f'{of_kind}: one column is kind = "binary"'
            if labels is not None and width != len(labels):
                return f"{of_kind} of {len(labels)} labels"
        case OutputKind.REGRESSION if wanted.outputs is not None:
            if width != len(wanted.outputs):
                return f"and the card's outputs name {len(wanted.outputs)}: name each column"
        case OutputKind.REGRESSION:
            if width != 1:
                names = ", ".join(['"…"'] * min(width, 4)) + (", …" if width > 4 else "")
                return f"{of_kind} without names: name the columns, outputs = [{names}]"
        case OutputKind.ANOMALY:
            if width != 1:
                return of_kind
    return None


def per_label(shape: Sequence[int | str | None], wanted: OutputSection) -> bool:
    """Whether this is scikit-learn's form of several labels: for each label a row of two columns for each event."""
    return wanted.kind is OutputKind.MULTILABEL and stacked(shape)


def stacked(shape: Sequence[int | str | None]) -> bool:
    """Whether a tensor of this shape may be a row of two columns for each of several labels and each event."""
    return len(shape) == 3 and isinstance(shape[0], int) and shape[2] == 2


def label_port(outputs: Sequence[Port], wanted: OutputSection, scores: Port) -> Port | None:
    """The model's own label output: the only output of one whole number or string a row; None without one."""
    found = [
        port
        for port in outputs
        if port.type in (*WHOLE, "tensor(string)")
        and port.name not in (*wanted.carry, scores.name)
        and (len(port.shape) == 1 or (len(port.shape) == 2 and port.shape[1] == 1))
    ]
    return found[0] if len(found) == 1 else None


def described(port: Port) -> str:
    """An output's name, type and shape, for messages. ONNX Runtime does not tell an unknown shape from a scalar."""
    return f"{port.name!r} ({port.type}{f', {sizes(port)}' if port.shape else ''})"


def sizes(port: Port) -> str:
    """An output's dimensions, for messages."""
    return "×".join("?" if size is None else str(size) for size in port.shape)
