"""Looks at a model file and describes it for its first card. The file is loaded and run in a process of its own."""

from __future__ import annotations

import shlex
from pathlib import Path

from failsoft.models.catalog import graph
from failsoft.models.runtime.session import Unloadable
from failsoft.models.vetting.observation import Observation, observe
from failsoft.workers.operations.card_features import column_names, features_of
from failsoft.workers.operations.card_output import Outputs, output_of
from failsoft.workers.operations.scaffold import Shape

TABULAR = ("skl2onnx", "OnnxMLTools", "CatBoost")
"""The producers, as their files name them, that make models of tables: their inputs are columns."""

_OF_TABLES = (
    *("TreeEnsemble", "Linear", "SVM", "Scaler", "Imputer"),
    *("OneHotEncoder", "LabelEncoder", "FeatureVectorizer"),
)
"""How the operators of such models begin, for files that name no producer."""


class CannotServe(Exception):
    """No card makes the model serve. The message says why, and how to export it."""


def described(path: Path, positive: str | None) -> Shape:
    """What the card of the model at ``path`` says; blocks for some seconds.

    ``positive``: the label whose probability is the score, if the user says it. Raises CannotServe, OSError for a file
    that cannot be read, and ValueError if ``positive`` is none of the model's labels.
    """
    facts = graph.facts(path.read_bytes())
    if facts.external:
        raise CannotServe(f"{path}: {_elsewhere(path, facts.external)}")
    try:
        seen = observe(path)
    except Unloadable as error:
        raise CannotServe(str(error)) from None
    tabular = facts.producer in TABULAR or any(op.startswith(_OF_TABLES) for op in facts.ops)
    named = column_names(facts.metadata)
    outputs = Outputs(seen.outputs, seen.values, facts.labels, facts.metadata, facts.ops, tabular)
    try:
        features = features_of(seen.inputs, None if named is None else named[1], tabular, seen.fixed, seen.longest)
        output_of(outputs)
    except ValueError as error:
        raise CannotServe(f"{path}: {error}") from None
    output = output_of(outputs, positive)
    trees = any(op.startswith("TreeEnsemble") for op in facts.ops)
    return Shape(features.features, output, trees, [*_unrun(seen), *features.notes, *output.notes])


def _unrun(seen: Observation) -> list[str]:
    return [f"the model could not be run with made-up rows: {seen.problem}"] if seen.problem else []


def _elsewhere(path: Path, locations: tuple[str, ...]) -> str:
    """Why weights in other files are refused, and the command that makes one file."""
    missing = [name for name in locations if not (path.parent / name).is_file()]
    one = path.with_name(f"{path.stem}-one-file.onnx")
    code = f"import onnx; onnx.save(onnx.load({str(path)!r}), {str(one)!r})"
    shell = shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'
    lost = f", and {', '.join(missing)} is not beside it: copy it there" if missing else ""
    return (
        f"its weights are in {', '.join(locations)}{lost}. A version is a single file, because its checksum covers no "
        f"other. Make one file (pip install onnx), and give that to --onnx:\n  python -c {shell}"
    )
